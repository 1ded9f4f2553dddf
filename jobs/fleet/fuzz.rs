//! Fuzz entry points: the decoders of what comes from Redis and from the records of a run. Bytes in, an answer or a
//! refusal out; nothing here reaches a server.

use agrpo_spec::{RunId, StageDigest, record};
use serde_json::Value;

use crate::coordination::queue::Hint;
use agrpo_store::Failure;

/// A message of the queue, as it comes: any JSON, then a hint or nothing. Answers with where it points.
pub fn hint(bytes: &[u8]) -> Option<(RunId, StageDigest)> {
    let message: Value = serde_json::from_slice(bytes).ok()?;
    let Hint { run, stage } = serde_json::from_value(message).ok()?;
    Some((run, stage))
}

/// A failure record.
pub fn failure(bytes: &[u8]) -> Option<Failure> {
    record::open(bytes).ok().map(|opened| opened.value)
}
