//! How often each stage was begun, so that one that kills its worker ends in a failure record.
//!
//! Counted at the start, because a worker that dies reports nothing. The counts are in Redis: one
//! that was emptied gives every stage its attempts back, and nothing else is lost.

use agrpo_spec::StageDigest;

use crate::error::JobsError;
use crate::redis::Fleet;

const ATTEMPTS: &str = "agrpo:attempts";

/// Counts a start and answers with the starts so far.
pub(crate) async fn begin(fleet: &Fleet, stage: StageDigest) -> Result<u32, JobsError> {
    add(fleet, stage, 1).await
}

/// Takes a start back that ended for no fault of the stage.
pub(crate) async fn forgive(fleet: &Fleet, stage: StageDigest) -> Result<(), JobsError> {
    add(fleet, stage, -1).await.map(drop)
}

/// Forgets all starts: the stage is done, or a person asks for new attempts.
pub(crate) async fn forget(fleet: &Fleet, stage: StageDigest) -> Result<(), JobsError> {
    redis::cmd("HDEL")
        .arg(ATTEMPTS)
        .arg(stage.to_string())
        .query_async(&mut fleet.connection())
        .await
        .map_err(|error| fleet.failure(&error))
}

async fn add(fleet: &Fleet, stage: StageDigest, change: i32) -> Result<u32, JobsError> {
    let count: i64 = redis::cmd("HINCRBY")
        .arg(ATTEMPTS)
        .arg(stage.to_string())
        .arg(change)
        .query_async(&mut fleet.connection())
        .await
        .map_err(|error| fleet.failure(&error))?;
    Ok(u32::try_from(count).unwrap_or(0))
}
