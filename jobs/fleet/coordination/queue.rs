//! The queue: hints that a stage may be computed now.
//!
//! A hint may be wrong or outdated, so a worker that takes one asks the store first. Each numerics class and each set
//! of stage versions has a queue of its own, `queue:<class>:<tag of the versions>`, so that a worker takes only hints
//! that it can use. If a hint is lost, with a worker or with Redis, the reconciler offers its stage again once the
//! stage is neither ready nor leased.
//!
//! ```text
//! <queue>:ready:<run>           stages that can be computed, in the order of the plan
//! <queue>:turns                 runs that have such stages; the one that has waited longest comes first
//! <queue>:taken                 stages taken a moment ago, so that an offer that comes late does not repeat them
//! <queue>:bases                 the base of each run that starts from a checkpoint, until the run is over
//! <queue>:passed                when such a run was first passed over since its last turn
//! <queue>:joins:<run>:<update>  shards whose part of the update is published
//! ```

use std::{collections::BTreeSet, sync::LazyLock, time::Duration};

use agrpo_spec::{ArtifactDigest, Numerics, RunId, StageDigest, StageKey};
use agrpo_store::Versions;
use redis::{Script, ScriptInvocation};
use tokio::sync::oneshot;

use crate::coordination::keys::{ACTIVE, HELD, LEASE};
use crate::coordination::redis::{self as connection, Fleet};
use crate::{Result, coordination::leases::LEASE as LEASE_LASTS};

/// An offer within this time after the stage was offered or taken is dropped: two workers may offer a stage at once.
const GRACE_SECONDS: u64 = 1;
/// The most ready stages of a run; the reconciler offers the others later.
pub(crate) const MOST_READY: usize = 10_000;
/// How long workers that hold another base pass over a run. Reading 16 GB of weights and moving them to a GPU takes 10 to
/// 15 s: a worker that changes its base this seldom loses less than a twentieth of its time to that.
pub(crate) const PASSED_OVER: Duration = Duration::from_secs(300);
/// The published shards of an update are forgotten this long after the last one.
const JOIN_SECONDS: i64 = 3600;

fn script(text: &str) -> Script {
    connection::script(&format!("{}\n{text}", include_str!("queue/functions.lua")))
}

static OFFER: LazyLock<Script> = LazyLock::new(|| script(include_str!("queue/offer.lua")));
static TAKE: LazyLock<Script> = LazyLock::new(|| script(include_str!("queue/take.lua")));
static UNKNOWN: LazyLock<Script> = LazyLock::new(|| script(include_str!("queue/unknown.lua")));
static BASES: LazyLock<Script> = LazyLock::new(|| script(include_str!("queue/bases.lua")));
static WAITING: LazyLock<Script> = LazyLock::new(|| script(include_str!("queue/waiting.lua")));

/// A stage that a worker may compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) run: RunId,
    /// The stage's key in the run; like the hint, it may be wrong.
    pub(crate) key: StageKey,
    pub(crate) stage: StageDigest,
}

impl Hint {
    /// A hint from an entry of a run, `order key digest`; `None` if agrpo did not write it.
    pub(crate) fn parse(run: &str, entry: &str) -> Option<Self> {
        let mut parts = entry.split(' ').skip(1);
        let (key, stage) = (parts.next()?, parts.next()?);
        Some(Self { run: run.parse().ok()?, key: key.parse().ok()?, stage: stage.parse().ok()? })
    }
}

/// What makes a worker prefer some runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Holding {
    /// The base that it read last, if that is a checkpoint's.
    pub(crate) base: Option<ArtifactDigest>,
    /// Whether a result of its own is being stored, from which stages of that base may follow.
    pub(crate) is_storing: bool,
}

/// A hint that was taken. It is processed once `done` is sent; if `done` is dropped, the hint is released.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) hint: Hint,
    pub(crate) done: oneshot::Sender<()>,
}

impl Fleet {
    /// How many stages of a numerics class wait for a worker of this program's versions.
    pub async fn waiting(&self, numerics: Numerics) -> Result<u64> {
        Queue::new(self, numerics, &Versions::own()).waiting().await
    }
}

/// The queue of one class of numerics, for programs of the same versions.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    fleet: Fleet,
    name: String,
}

impl Queue {
    pub(crate) fn new(fleet: &Fleet, numerics: Numerics, versions: &Versions) -> Self {
        Self { fleet: fleet.clone(), name: fleet.keys.queue(numerics, versions) }
    }

    /// Offers those of the stages that are neither ready nor being computed. Returns how many are new.
    pub(crate) async fn offer(
        &self,
        run: RunId,
        stages: impl IntoIterator<Item = (StageKey, StageDigest)>,
    ) -> Result<usize> {
        let mut stages = stages.into_iter().peekable();
        if stages.peek().is_none() {
            return Ok(0);
        }
        let mut call = self.call(&OFFER);
        call.arg(run.to_string()).arg(MOST_READY);
        for (key, stage) in stages {
            call.arg(format!("{} {key} {stage}", key.order()));
        }
        self.fleet.invoke(&call).await
    }

    /// Those of the stages that are neither ready nor being computed.
    pub(crate) async fn unknown(
        &self,
        run: RunId,
        stages: impl IntoIterator<Item = StageDigest>,
    ) -> Result<BTreeSet<StageDigest>> {
        let mut call = self.call(&UNKNOWN);
        call.arg(run.to_string());
        for stage in stages {
            call.arg(stage.to_string());
        }
        let names: Vec<String> = self.fleet.invoke(&call).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Notes which base a run starts from.
    pub(crate) async fn note_base(&self, run: RunId, base: ArtifactDigest) -> Result<()> {
        let (key, base) = (self.key("bases"), base.to_string());
        self.fleet.ask(redis::cmd("HSET").arg(key).arg(run.to_string()).arg(base)).await
    }

    /// Forgets the bases of runs that are over, by whatever end.
    pub(crate) async fn forget_bases(&self) -> Result<()> {
        let mut call = self.call(&BASES);
        call.key(self.fleet.keys.of(ACTIVE));
        self.fleet.invoke::<redis::Value>(&call).await.map(drop)
    }

    /// Takes the next hint, if there is one; runs take turns.
    pub(crate) async fn take(&self) -> Result<Option<Hint>> {
        self.take_near(Holding::default(), PASSED_OVER).await
    }

    /// The same for a worker that holds a base: it passes over runs of other bases, each for so long.
    pub(crate) async fn take_near(
        &self,
        Holding { base, is_storing }: Holding,
        passed_over: Duration,
    ) -> Result<Option<Hint>> {
        let base = base.map(|base| base.to_string()).unwrap_or_default();
        let mut call = self.call(&TAKE);
        call.arg(base).arg(passed_over.as_millis()).arg(u8::from(is_storing));
        loop {
            let taken: Option<(String, String)> = self.fleet.invoke(&call).await?;
            let Some((run, entry)) = taken else { return Ok(None) };
            if let Some(hint) = Hint::parse(&run, &entry) {
                return Ok(Some(hint));
            }
            tracing::warn!(run, entry, "dropped an entry of the queue that is not a hint");
        }
    }

    /// Releases a hint whose stage was not begun: offers it again.
    pub(crate) async fn release(&self, hint: Hint) -> Result<()> {
        self.forget(hint.stage).await?;
        self.offer(hint.run, [(hint.key, hint.stage)]).await.map(drop)
    }

    /// Forgets that a stage was taken: it may be offered again at once.
    pub(crate) async fn forget(&self, stage: StageDigest) -> Result<()> {
        self.fleet.ask(redis::cmd("ZREM").arg(self.key("taken")).arg(stage.to_string())).await
    }

    /// Notes that a shard's part of an update is published, its gradient or its rewards; returns of how many shards it
    /// is.
    pub(crate) async fn join(&self, run: RunId, update: StageKey, shard: u32) -> Result<u32> {
        let key = self.key(&format!("joins:{run}:{update}"));
        let mut pipe = redis::pipe();
        pipe.atomic().sadd(&key, shard).ignore().expire(&key, JOIN_SECONDS).ignore().scard(&key);
        let (count,): (u32,) = self.fleet.ask_all(&pipe).await?;
        Ok(count)
    }

    /// Forgets the shards of an update that is done.
    pub(crate) async fn joined(&self, run: RunId, update: StageKey) -> Result<()> {
        self.delete(&format!("joins:{run}:{update}")).await
    }

    /// Removes the ready stages of a run that is done or held.
    pub(crate) async fn withdraw(&self, run: RunId) -> Result<()> {
        let (ready, name) = (self.key(&format!("ready:{run}")), run.to_string());
        let mut pipe = redis::pipe();
        pipe.atomic().del(ready).hdel(self.key("bases"), &name).zrem(self.key("passed"), &name);
        self.fleet.ask_all::<redis::Value>(&pipe).await.map(drop)
    }

    /// How many stages wait for a worker; those of runs that are held do not.
    pub(crate) async fn waiting(&self) -> Result<u64> {
        self.fleet.invoke(&self.call(&WAITING)).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        self.fleet.ask(redis::cmd("DEL").arg(self.key(name))).await
    }

    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.name)
    }

    /// A call with the keys and arguments that all scripts of the queue have.
    fn call(&self, script: &'static Script) -> ScriptInvocation<'static> {
        let mut call = script.prepare_invoke();
        call.key(self.key("turns"))
            .key(self.key("taken"))
            .key(self.fleet.keys.of(HELD))
            .key(self.key("bases"))
            .key(self.key("passed"))
            .arg(self.key("ready:"))
            .arg(self.fleet.keys.of(LEASE))
            .arg(LEASE_LASTS.as_millis())
            .arg(GRACE_SECONDS);
        call
    }
}
