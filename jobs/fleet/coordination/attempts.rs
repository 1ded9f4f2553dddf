//! Counts how often each stage was begun, so that a stage that kills its workers ends in a failure record.
//!
//! An attempt is counted at its start, because a worker that dies reports nothing. The counts are in Redis: if it is
//! emptied, every stage has all its attempts again, and nothing else is lost.

use std::sync::LazyLock;

use agrpo_spec::StageDigest;
use redis::Script;

use crate::coordination::redis::{Fleet, script};
use crate::{Result, coordination::keys::ATTEMPTS};

/// No count of agrpo is higher: a stage fails after a few starts, and each run that shares it adds one.
const MOST: u32 = 100;

static ADD: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local stored = redis.call('HGET', KEYS[1], ARGV[1])
         local count = tonumber(stored or 0)
         if not count or count < 0 or count > tonumber(ARGV[3]) or count ~= math.floor(count) then
             note(KEYS[1] .. ' ' .. ARGV[1] .. ' was ' .. shown(stored) .. ', which agrpo never writes; the count begins again')
             count = 0
         end
         count = math.max(0, count + ARGV[2])
         redis.call('HSET', KEYS[1], ARGV[1], count)
         return answer(count)",
    )
});

/// Counts a start; returns the number of starts.
pub(crate) async fn begin(fleet: &Fleet, stage: StageDigest) -> Result<u32> {
    add(fleet, stage, 1).await
}

/// Uncounts a start that ended through no fault of the stage.
pub(crate) async fn forgive(fleet: &Fleet, stage: StageDigest) -> Result<()> {
    add(fleet, stage, -1).await.map(drop)
}

/// Forgets all starts: the stage is done, or a person asks for new attempts.
pub(crate) async fn forget(fleet: &Fleet, stage: StageDigest) -> Result<()> {
    let mut command = redis::cmd("HDEL");
    fleet.ask(command.arg(fleet.keys.of(ATTEMPTS)).arg(stage.to_string())).await
}

async fn add(fleet: &Fleet, stage: StageDigest, change: i32) -> Result<u32> {
    let mut call = ADD.prepare_invoke();
    call.key(fleet.keys.of(ATTEMPTS)).arg(stage.to_string()).arg(change).arg(MOST);
    fleet.invoke(&call).await
}
