//! What is said of a blob that is not there: whether a run's retention deleted it, and what computes it again.
//!
//! Only looks. Where nothing more is known than that the blob is missing, the error stays as it is.

use agrpo_jobs::{Store, replay};
use agrpo_spec::{RunId, StageDigest, StageKey};

use crate::commands::store_option;
use crate::exit::Failure;

/// The same result; of a blob that retention deleted, the error says so and how it is computed again.
pub(super) async fn explained<T>(
    store: &Store,
    flag: Option<&str>,
    result: Result<T, Failure>,
) -> Result<T, Failure> {
    match result {
        Err(failure) => Err(explain(store, flag, None, failure).await),
        done => done,
    }
}

/// The same for a stage whose inputs are asked for, if there is one: it is the stage to replay.
pub(super) async fn explain(
    store: &Store,
    flag: Option<&str>,
    asked: Option<(Option<RunId>, StageDigest)>,
    failure: Failure,
) -> Failure {
    let Some(digest) = failure.lost() else { return failure };
    let let_go = replay::let_go(store, digest).await.unwrap_or_default();
    let of_reader = let_go.map(|(run, reader)| (Some(run), reader));
    let failure = match let_go {
        None => failure,
        Some((run, _)) => failure.told(format!(
            "cas/{digest} is not in {}: the retention of run {} deleted it",
            store.url(),
            run.short()
        )),
    };
    let Some((run, stage)) = asked.or(of_reader) else { return failure };
    let Ok(lacking) = replay::lacking(store, run, stage).await else { return failure };
    failure.hint(rewinding(flag, stage, &lacking))
}

/// What a replay of the stage would compute again before it.
fn rewinding(
    flag: Option<&str>,
    stage: StageDigest,
    lacking: &[(Option<StageKey>, StageDigest)],
) -> String {
    let command = format!("agrpo replay {} --rewind{}", stage.short(), store_option(flag));
    let name = |(key, stage): &(Option<StageKey>, StageDigest)| {
        key.map_or_else(|| stage.short(), |key| key.to_string())
    };
    match lacking {
        // What is there is damaged, and how far back that reaches shows on the way.
        [] => format!("{command} makes it again and stores it"),
        [one] => format!("{command} computes {} again and stores it", name(one)),
        [first, .., last] => format!(
            "{command} computes {} stages again, from {} to {}, and stores what they give",
            lacking.len(),
            name(first),
            name(last)
        ),
    }
}
