//! Fuzz entry points: the decoders of what comes from Redis and from the records of a run. Bytes in, an answer or a
//! refusal out; nothing here reaches a server.

use agrpo_spec::{RunId, StageDigest, StageKey, record};
use agrpo_store::Failure;

use crate::coordination::queue::Hint;

/// An answer of the queue, a run and an entry of it: a hint or nothing. Answers with where it points.
pub fn hint(bytes: &[u8]) -> Option<(RunId, StageKey, StageDigest)> {
    let (run, entry) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
    Hint::parse(run, entry).map(|Hint { run, key, stage }| (run, key, stage))
}

/// A failure record.
pub fn failure(bytes: &[u8]) -> Option<Failure> {
    record::open(bytes).ok().map(|opened| opened.value)
}
