//! A trial: runs every command once, then every script, on keys that nothing else uses.
//!
//! Finds missing rights, full memory and keys on another node of a cluster before a run depends on them. Deletes every
//! key that it writes, also after an error.

use std::collections::BTreeSet;

use agrpo_spec::{ArtifactDigest, Numerics, RunId, StageDigest, StageKey, StageKind};
use agrpo_store::{Hold, JobsError, Versions};

use crate::Result;
use crate::coordination::keys::{ACTIVE, HELD, SURVEYED};
use crate::coordination::leases::stages::{self, Acquired};
use crate::coordination::leases::{LEASE, Lease, release};
use crate::coordination::queue::{Holding, PASSED_OVER, Queue};
use crate::coordination::redis::{Fleet, diagnosis, refusal};
use crate::coordination::runs::{set_active, set_held};
use crate::coordination::{attempts, registry::workers};

/// A name like that of a stage or a run.
const NAME: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Runs the trial; the error is the first refusal.
pub(super) async fn trial(fleet: &Fleet, unique: &str) -> Result<()> {
    let fleet = fleet.on_trial(unique);
    commands(&fleet).await?;
    let tried = scripts(&fleet, unique).await;
    let removed = clean(&fleet).await;
    tried.and(removed)
}

/// Runs every command of our scripts on a key of each type.
async fn commands(fleet: &Fleet) -> Result<()> {
    let refused = diagnosis::refused(&mut fleet.connection(), &fleet.keys).await;
    let refused = fleet.explained(refused).await?;
    let Some((_, why)) = refused.first() else { return Ok(()) };
    let names: BTreeSet<&str> = refused.iter().map(|(name, _)| name.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let text = format!("{}: {}", names.join(", "), why.trim());
    Err(fleet.meaning(refusal::classify("", why), text.into()).await)
}

async fn scripts(fleet: &Fleet, unique: &str) -> Result<()> {
    let run: RunId = NAME.parse().map_err(unexpected)?;
    let stage: StageDigest = NAME.parse().map_err(unexpected)?;
    let key = StageKey::new(StageKind::Rollout, 1, 0);
    set_active(fleet, run, true).await?;
    set_held(fleet, run, Some(Hold::Paused)).await?;
    set_held(fleet, run, None).await?;
    attempts::begin(fleet, stage).await?;
    attempts::forgive(fleet, stage).await?;
    attempts::forget(fleet, stage).await?;

    stages::awaken(fleet).await?;
    let lease = fleet.keys.lease(stage);
    if let Acquired::Token(token) = stages::acquire(fleet, LEASE, &lease, unique, NAME).await? {
        let (mut connection, held) = (fleet.connection(), [(lease.as_str(), token.as_str())]);
        let beat = stages::beat(fleet, &mut connection, LEASE, unique, "{}", &held).await;
        fleet.explained(beat).await?;
        release(fleet, &lease, &token).await?;
    }
    workers(fleet).await?;
    stages::sign_off(fleet, unique).await?;
    let reconciler = fleet.keys.reconciler(&Versions::own());
    if let Some(lease) = Lease::acquire(fleet, reconciler, unique, LEASE).await? {
        lease.renew().await?;
        lease.release().await?;
    }

    let queue = Queue::new(fleet, Numerics::CpuPortable, &Versions::own());
    let [base, other] = ["base", "other"].map(|name| ArtifactDigest::of(name.as_bytes()));
    queue.note_base(run, base).await?;
    queue.offer(run, [(key, stage)]).await?;
    queue.unknown(run, [stage]).await?;
    queue.waiting().await?;
    // A worker of another base passes over the run while it stores a result, and then takes the stage.
    for is_storing in [true, false] {
        let holding = Holding { base: Some(other), is_storing };
        if let Some(hint) = queue.take_near(holding, PASSED_OVER).await? {
            queue.release(hint).await?;
        }
    }
    if let Some(hint) = queue.take().await? {
        queue.release(hint).await?;
    }
    queue.forget_bases().await?;
    queue.join(run, key, 0).await?;
    queue.joined(run, key).await?;
    queue.withdraw(run).await?;
    set_active(fleet, run, false).await?;
    let [active, held, surveyed] = [ACTIVE, HELD, SURVEYED].map(|name| fleet.keys.of(name));
    let mut pipe = redis::pipe();
    pipe.set(&surveyed, 1).smembers(active).hkeys(held).exists(&surveyed);
    fleet.ask_all::<redis::Value>(&pipe).await.map(drop)
}

/// Deletes every key that the scripts may have written.
async fn clean(fleet: &Fleet) -> Result<()> {
    let queue = fleet.keys.queue(Numerics::CpuPortable, &Versions::own());
    let key = StageKey::new(StageKind::Rollout, 1, 0);
    let mut delete = redis::cmd("DEL");
    delete.arg(fleet.keys.fixed());
    delete.arg(fleet.keys.of(&format!("lease:{NAME}")));
    delete.arg(format!("{queue}:ready:{NAME}"));
    delete.arg(format!("{queue}:joins:{NAME}:{key}"));
    fleet.ask::<u64>(&delete).await.map(drop)
}

fn unexpected(error: impl std::fmt::Display) -> JobsError {
    JobsError::internal(format!("the trial uses an invalid name: {error}"))
}
