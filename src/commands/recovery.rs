//! Hints about lost or damaged data: whether a run's retention deleted it, and what brings it back. Changes nothing.
//! An error stays as it is where nothing more is known than that the blob is missing.

use agrpo_fleet::replay;
use agrpo_spec::{RunId, StageDigest, StageKey};

use super::prelude::{Failure, Result, Session, Store};

/// The same result; the error about a blob that retention deleted says so, and how it is computed again.
pub(super) async fn explained<T>(store: &Store, session: &Session, result: Result<T>) -> Result<T> {
    match result {
        Err(failure) => Err(explain(store, session, None, failure).await),
        done => done,
    }
}

/// The same for one error. `asked` is the stage whose inputs were read, which is then the one to replay.
pub(super) async fn explain(
    store: &Store,
    session: &Session,
    asked: Option<(Option<RunId>, StageDigest)>,
    mut failure: Failure,
) -> Failure {
    let Some(digest) = failure.lost else { return failure };
    let dropped = replay::dropped(store, digest).await.unwrap_or_default();
    let of_reader = dropped.map(|(run, reader)| (Some(run), reader));

    if let Some((run, _)) = dropped {
        let (url, run) = (store.url(), run.short());
        failure.message =
            format!("cas/{digest} is not in {url}: the retention of run {run} deleted it");
    }
    let Some((run, stage)) = asked.or(of_reader) else { return failure };
    let Ok(lacking) = replay::lacking(store, run, stage).await else { return failure };
    // The replay that brings the blob back, and what it computes.
    let command = format!("agrpo replay {} --rewind{}", stage.short(), session.store_option());
    let name = |(key, stage): &(Option<StageKey>, StageDigest)| {
        key.map_or_else(|| stage.short(), |key| key.to_string())
    };
    failure.hint(match &lacking[..] {
        // The blobs exist and one is damaged; which stages that concerns is found during the replay.
        [] => format!("{command} makes it again and stores it"),
        [one] => format!("{command} computes {} again and stores it", name(one)),
        [first, .., last] => format!(
            "{command} computes {} stages again, from {} to {}, and stores what they give",
            lacking.len(),
            name(first),
            name(last)
        ),
    })
}

/// What to do about an object that agrpo did not write.
pub(super) fn move_away(url: &str) -> String {
    format!("move what is no regular file, or no folder, out of {url}")
}
