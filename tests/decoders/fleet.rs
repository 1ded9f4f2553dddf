//! What Redis and a run's folder hold: hints, failures, the index of finished stages.

use agrpo_fleet::fuzz;
use agrpo_spec::{ArtifactDigest, StageDigest, StageKey, record};
use serde_json::json;

fn digest(text: &str) -> String {
    ArtifactDigest::of(text.as_bytes()).to_string()
}

pub(crate) fn hints() -> Vec<Vec<u8>> {
    let (run, key) = (digest("run"), crate::spec::some_key());
    let hint = |n: u32| format!("{run} 0 {key} {}", digest(&n.to_string()));
    (0..3).map(|n| hint(n).into_bytes()).collect()
}

pub(crate) fn hint(bytes: &[u8]) -> bool {
    fuzz::hint(bytes).is_some()
}

pub(crate) fn failures() -> Vec<Vec<u8>> {
    let failure = json!({
        "key": crate::spec::some_key(), "stage": digest("stage"), "error": "the gradient's norm is NaN",
        "worker": "host-1", "attempts": 3, "unix_ms": 1_700_000_000_000_u64,
    });
    vec![record::seal(&failure), failure.to_string().into_bytes()]
}

pub(crate) fn failure(bytes: &[u8]) -> bool {
    fuzz::failure(bytes).is_some()
}

pub(crate) fn index_entries() -> Vec<Vec<u8>> {
    let key = crate::spec::some_key();
    vec![format!("{key}.{}", digest("stage")).into_bytes()]
}

/// The name of an entry of `runs/<run>/stages`.
pub(crate) fn index_entry(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Some((key, stage)) = text.split_once('.') else { return false };
    key.parse::<StageKey>().is_ok() && stage.parse::<StageDigest>().is_ok()
}
