//! A trial: every command once, then every script, under names that nothing else has.
//!
//! What a user may not, what a server has no memory for, and what a cluster keeps elsewhere shows here and
//! not in the middle of a run. Everything that it writes is deleted, whatever came of it.

use std::collections::BTreeSet;

use crate::coordination::attempts;
use crate::coordination::keys::{ACTIVE, HELD, SURVEYED};
use crate::coordination::leases::stages::{self, Acquired, Terms};
use crate::coordination::leases::{LEASE, Lease, release};
use crate::coordination::queue::{Hint, Queue};
use crate::coordination::redis::{Fleet, rights};
use crate::coordination::registry::workers;
use crate::coordination::runs::{set_active, set_held};
use agrpo_spec::{Numerics, RunId, StageDigest, StageKey, StageKind};
use agrpo_store::JobsError;
use agrpo_store::Versions;
use agrpo_store::{Control, Hold};

/// A name like that of a stage or a run.
const NAME: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Tries everything; the first refusal.
pub(super) async fn trial(fleet: &Fleet, unique: &str) -> Result<(), JobsError> {
    let fleet = fleet.on_trial(unique);
    commands(&fleet).await?;
    let tried = scripts(&fleet, unique).await;
    let removed = clean(&fleet, unique).await;
    tried.and(removed)
}

/// Every command that a script uses, ours or apalis's, on a key of each type.
async fn commands(fleet: &Fleet) -> Result<(), JobsError> {
    let refused = match rights::refused(&mut fleet.connection(), &fleet.keys).await {
        Ok(refused) => refused,
        Err(error) => return Err(fleet.failed(&error).await),
    };
    let Some((.., why)) = refused.first() else { return Ok(()) };
    let names: BTreeSet<&str> = refused.iter().map(|(name, ..)| name.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    Err(fleet.meaning(&format!("{}: {}", names.join(", "), why.trim())).await)
}

async fn scripts(fleet: &Fleet, unique: &str) -> Result<(), JobsError> {
    let run: RunId = NAME.parse().map_err(unexpected)?;
    let stage: StageDigest = NAME.parse().map_err(unexpected)?;
    let key = StageKey::new(StageKind::Rollout, 1, 0);
    set_active(fleet, run, true).await?;
    let held = Control { state: Hold::Paused, unix_ms: 0, by: String::new() };
    set_held(fleet, run, Some(&held)).await?;
    set_held(fleet, run, None).await?;
    attempts::begin(fleet, stage).await?;
    attempts::forgive(fleet, stage).await?;
    attempts::forget(fleet, stage).await?;

    stages::awaken(fleet).await?;
    let (terms, lease) = (Terms { ttl: LEASE }, fleet.keys.lease(stage));
    if let Acquired::Token(token) = stages::acquire(fleet, terms, &lease, unique, NAME).await? {
        let (mut connection, held) = (fleet.connection(), [(lease.as_str(), token.as_str())]);
        let beat = stages::beat(fleet, &mut connection, terms, unique, "{}", &held).await;
        if let Err(error) = beat {
            return Err(fleet.failed(&error).await);
        }
        release(fleet, &lease, &token).await?;
    }
    workers(fleet).await?;
    stages::sign_off(fleet, unique).await?;
    let sweeper = fleet.keys.sweeper(&Versions::own());
    if let Some(lease) = Lease::acquire(fleet, sweeper, unique, LEASE).await? {
        lease.renew().await?;
        lease.release().await?;
    }

    let queue = Queue::new(fleet, Numerics::CpuPortable, &Versions::own());
    queue.offer(run, [(key, stage)]).await?;
    queue.unknown(run, [stage]).await?;
    queue.waiting().await?;
    queue.take(Hint { run, stage }).await?;
    queue.forget(stage).await?;
    queue.join(run, key, 0).await?;
    queue.joined(run, key).await?;
    queue.withdraw(run).await?;
    queue.tidy().await?;
    queue.leave(unique).await?;
    set_active(fleet, run, false).await?;
    let [active, held, surveyed] = [ACTIVE, HELD, SURVEYED].map(|name| fleet.keys.of(name));
    let mut pipe = redis::pipe();
    pipe.set(&surveyed, 1).smembers(active).hkeys(held).exists(&surveyed);
    fleet.ask_all::<redis::Value>(&pipe).await.map(drop)
}

/// Deletes whatever the scripts may have written.
async fn clean(fleet: &Fleet, unique: &str) -> Result<(), JobsError> {
    let queue = fleet.keys.queue(Numerics::CpuPortable, &Versions::own());
    let key = StageKey::new(StageKind::Rollout, 1, 0);
    let mut delete = redis::cmd("DEL");
    // The list of queues is apalis's, and has been set right by the script.
    let ours = |key: &String| key.starts_with(&fleet.keys.of(""));
    delete.arg(fleet.keys.fixed().into_iter().filter(ours).collect::<Vec<_>>());
    delete.arg(fleet.keys.of(&format!("lease:{NAME}")));
    for part in ["ready", "window"] {
        delete.arg(format!("{queue}:{part}:{NAME}"));
    }
    delete.arg(format!("{queue}:joins:{NAME}:{key}"));
    delete.arg(format!("{queue}:inflight:{unique}"));
    // The first task of a count that begins with one.
    delete.arg(format!("{queue}:meta:{:015}.{NAME}", 1));
    fleet.ask::<u64>(&delete).await.map(drop)
}

fn unexpected(error: impl std::fmt::Display) -> JobsError {
    JobsError::Internal(format!("a name of the trial is none: {error}"))
}
