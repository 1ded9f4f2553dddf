//! The reconciler: offers again what the queue has lost, whatever the reason.
//!
//! One worker at a time reconciles, under a lease, for all classes of numerics; one for each set of versions, since none
//! plans for another. It goes through the runs that Redis lists as active, and at times, or after Redis was emptied,
//! through all runs of the store, which is what makes Redis disposable. It alone looks at all pending stages, so it sees
//! what a worker left undone that died between two steps. The others only look which runs are incompatible with them, as
//! no hint would say so. Errors are logged and retried at the next turn; whether the worker lives is decided elsewhere.

use agrpo_spec::{Numerics, RunId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};
use tokio::time::{Instant, interval};

use super::events::WorkerEvent;
use super::runs::View;
use super::shared::Worker;
use crate::coordination::keys::{ACTIVE, HELD, SURVEYED};
use crate::coordination::leases::Lease;
use crate::coordination::runs::{self, set_active};
use agrpo_store::Hold;
use agrpo_store::JobsError;

/// The lease lasts this many sweeps.
const SWEEPS: u32 = 3;

/// What the reconciler remembers from one turn to the next.
#[derive(Default)]
struct Memory {
    /// Runs that are done or failed: the store is not searched for them again.
    settled: BTreeSet<RunId>,
    surveyed: Option<Instant>,
    /// How many sweeps there were: each begins with another run, so that none always comes last.
    sweeps: usize,
    /// The classes of the runs that were swept: their queues have to be tidied too.
    classes: BTreeSet<Numerics>,
    /// Active runs that were looked at while another worker sweeps.
    glanced: BTreeSet<RunId>,
}

/// What Redis says of all runs.
struct Known {
    active: BTreeSet<RunId>,
    /// By a person, as the store says.
    held: BTreeMap<RunId, Hold>,
    is_surveyed: bool,
}

impl Worker {
    /// Sweeps until a service refuses it for good, or for longer than this worker's patience.
    pub(super) async fn reconcile(&self) -> JobsError {
        let mut ticks = interval(self.options.sweep);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut memory, mut failing) = (Memory::default(), None);
        loop {
            ticks.tick().await;
            let Err(error) = self.reconcile_once(&mut memory).await else {
                failing = None;
                continue;
            };
            let since: &mut Instant = failing.get_or_insert_with(Instant::now);
            let for_good = matches!(error, JobsError::Misconfigured { may_pass: false, .. });
            let over = error.is_of_services() && since.elapsed() >= self.options.patience;
            if for_good || over {
                return error;
            }
            tracing::warn!(%error, "sweep broken off");
        }
    }

    async fn reconcile_once(&self, memory: &mut Memory) -> Result<(), JobsError> {
        if !self.is_reconciler().await? {
            return self.glance(&mut memory.glanced).await;
        }
        memory.classes.insert(self.options.numerics);
        let mut lost = 0;
        for &numerics in &memory.classes {
            lost += self.queue_of(numerics).tidy().await?;
        }
        if lost > 0 {
            tracing::warn!(lost, "tasks were lost in Redis and are offered again");
        }
        let mut known = self.known().await?;
        let is_due = |last: Instant| last.elapsed() >= self.options.survey;
        let surveys = !known.is_surveyed || memory.surveyed.is_none_or(is_due);
        let mut unknown = vec![];
        if surveys {
            memory.settled.retain(|_| known.is_surveyed);
            unknown = self.store.runs().await?;
            unknown.retain(|run| !known.active.contains(run) && !memory.settled.contains(run));
            self.restore_held(&unknown, &mut known).await?;
        }
        for &run in &known.active {
            memory.settled.remove(&run);
        }
        let mut order: Vec<RunId> = known.active.iter().chain(&unknown).copied().collect();
        let first = memory.sweeps % order.len().max(1);
        order.rotate_left(first);
        memory.sweeps += 1;
        for run in order {
            self.reconcile_run(run, &known, memory).await?;
        }
        if surveys {
            self.note_survey().await?;
            memory.surveyed = Some(Instant::now());
        }
        Ok(())
    }

    async fn is_reconciler(&self) -> Result<bool, JobsError> {
        let held = self.reconciler().clone();
        if let Some(held) = held
            && held.renew().await?
        {
            return Ok(true);
        }
        let key = self.fleet.keys.sweeper(&self.options.versions);
        let ttl = self.options.sweep * SWEEPS;
        let lease = Lease::acquire(&self.fleet, key, &self.options.name, ttl).await?;
        let is_reconciler = lease.is_some();
        *self.reconciler() = lease;
        Ok(is_reconciler)
    }

    /// The lease of the one who sweeps, while it is this worker.
    pub(super) fn reconciler(&self) -> MutexGuard<'_, Option<Lease>> {
        self.reconciler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says of runs that have become active that they are for other workers, if they are.
    async fn glance(&self, glanced: &mut BTreeSet<RunId>) -> Result<(), JobsError> {
        let key = self.fleet.keys.of(ACTIVE);
        let active: Vec<String> = self.fleet.ask(redis::cmd("SMEMBERS").arg(key)).await?;
        let active: BTreeSet<RunId> = active.iter().filter_map(|name| name.parse().ok()).collect();
        for run in glanced.difference(&active) {
            self.runs.forget(*run).await;
        }
        glanced.retain(|run| active.contains(run));
        for run in active {
            if glanced.contains(&run) {
                continue;
            }
            match self.runs.incompatible(run).await {
                Ok(Some(why)) => self.leave(run, why).await,
                Err(error) if error.is_of_services() => return Err(error),
                // The reconciler reports what cannot be read.
                Ok(None) | Err(_) => {}
            }
            glanced.insert(run);
        }
        Ok(())
    }

    async fn known(&self) -> Result<Known, JobsError> {
        let keys = [ACTIVE, HELD, SURVEYED].map(|name| self.fleet.keys.of(name));
        let mut pipe = redis::pipe();
        pipe.smembers(&keys[0]).hkeys(&keys[1]).exists(&keys[2]);
        let (active, held, is_surveyed): (Vec<String>, Vec<String>, bool) =
            self.fleet.ask_all(&pipe).await?;
        let mut holds = BTreeMap::new();
        for run in held.iter().filter_map(|name| name.parse().ok()) {
            match self.hold_of(run).await? {
                Some(hold) => drop(holds.insert(run, hold)),
                // Resumed from a machine that could not reach Redis.
                None => runs::set_held(&self.fleet, run, None).await?,
            }
        }
        let active = active.iter().filter_map(|name| name.parse().ok());
        Ok(Known { active: active.collect(), held: holds, is_surveyed })
    }

    async fn note_survey(&self) -> Result<(), JobsError> {
        self.fleet.ask(redis::cmd("SET").arg(self.fleet.keys.of(SURVEYED)).arg(1)).await
    }

    /// How the store says that a run is held. A damaged record holds nothing; one of another version holds
    /// until a program that knows it lets the run go.
    async fn hold_of(&self, run: RunId) -> Result<Option<Hold>, JobsError> {
        match self.store.control(run).await {
            Ok(control) => Ok(control.map(|control| control.state)),
            Err(JobsError::Incompatible(why)) => {
                self.leave(run, why).await;
                Ok(Some(Hold::Paused))
            }
            Err(JobsError::Data(why)) => {
                tracing::warn!(run = run.short(), why);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Tells Redis of runs that a person holds, if it has forgotten them.
    async fn restore_held(&self, runs: &[RunId], known: &mut Known) -> Result<(), JobsError> {
        let Known { active, held, .. } = known;
        for &run in runs.iter().chain(active.iter()) {
            if held.contains_key(&run) {
                continue;
            }
            let control = match self.store.control(run).await {
                Err(JobsError::Data(_)) => None,
                Err(JobsError::Incompatible(why)) => {
                    self.leave(run, why).await;
                    held.insert(run, Hold::Paused);
                    None
                }
                control => control?,
            };
            let Some(control) = control else { continue };
            runs::set_held(&self.fleet, run, Some(&control)).await?;
            held.insert(run, control.state);
        }
        Ok(())
    }

    async fn reconcile_run(
        &self,
        run: RunId,
        known: &Known,
        memory: &mut Memory,
    ) -> Result<(), JobsError> {
        if let Some(&hold) = known.held.get(&run) {
            if hold == Hold::Cancelled {
                self.runs.forget(run).await;
                set_active(&self.fleet, run, false).await?;
            }
            return Ok(());
        }
        match self.runs.incompatible(run).await {
            Ok(None) => {}
            Ok(Some(why)) => {
                self.leave(run, why).await;
                return Ok(());
            }
            // A record that cannot be read is reported with the run's others.
            Err(error) => return self.readable::<()>(run, Err(error)).await.map(drop),
        }
        let Some(view) = self.look(run).await? else { return Ok(()) };
        memory.classes.insert(view.numerics);
        let failed = self.runs.has_failed(run, view.stages()).await;
        let Some(failed) = self.readable(run, failed).await? else { return Ok(()) };
        if view.is_done() || failed {
            memory.settled.insert(run);
            self.runs.forget(run).await;
            self.queue_of(view.numerics).withdraw(run).await?;
            let was_active = set_active(&self.fleet, run, false).await?;
            if view.is_done() && was_active {
                self.emit(WorkerEvent::Done { run });
            }
            return Ok(());
        }
        if !known.active.contains(&run) {
            set_active(&self.fleet, run, true).await?;
        }
        self.offer_news(run, view).await
    }

    /// Offers what Redis does not know of; for what it knows, no spec need be looked for.
    async fn offer_news(&self, run: RunId, view: View) -> Result<(), JobsError> {
        let news = self.queue_of(view.numerics).unknown(run, view.stages()).await?;
        if news.is_empty() {
            return Ok(());
        }
        // What was published since the first look is as unknown as what was lost.
        let Some(mut view) = self.look(run).await? else { return Ok(()) };
        if view.is_done() {
            // The next sweep says so.
            return Ok(());
        }
        view.pending.retain(|pending| news.contains(&pending.stage));
        self.offer(run, &view).await
    }
}
