//! The reconciler: offers again what the queue has lost, whatever the reason.
//!
//! One worker at a time reconciles, under a lease, for all classes of numerics; one for each set of versions, since none
//! plans for another. It goes through the runs that Redis lists as active, and at times, or after Redis was emptied,
//! through all runs of the store, which is what makes Redis disposable. It alone looks at all pending stages, so it sees
//! what a worker left undone that died between two steps. The others only look which runs are incompatible with them, as
//! no hint would say so, and each forgets the bases of runs that are over in its own queue. Errors are logged and
//! retried at the next turn; whether the worker lives is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::RunId;
use agrpo_store::{Hold, JobsError};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::runs::View;
use super::scheduler::Scheduler;
use super::shared::Worker;
use crate::Result;
use crate::coordination::keys::{ACTIVE, HELD, SURVEYED};
use crate::coordination::leases::Lease;
use crate::coordination::runs::{set_active, set_held};
use crate::events::Event;

/// The lease lasts this many turns.
const TURNS: u32 = 3;

/// The reconciler, and what it remembers from one turn to the next.
struct Reconciler<'a> {
    worker: &'a Worker,
    scheduler: &'a Scheduler,
    /// Runs that are done or failed: the store is not searched for them again.
    settled: BTreeSet<RunId>,
    surveyed: Option<Instant>,
    /// How many turns there were: each begins with another run, so that none always comes last.
    turns: usize,
    /// Active runs that were looked at while another worker reconciles.
    glanced: BTreeSet<RunId>,
}

/// Reconciles until a service refuses it for good, or for longer than it is retried.
pub(super) async fn reconcile(worker: &Worker) -> JobsError {
    let options = &worker.options;
    let mut reconciler = Reconciler {
        worker,
        scheduler: &worker.scheduler,
        settled: BTreeSet::new(),
        surveyed: None,
        turns: 0,
        glanced: BTreeSet::new(),
    };
    let mut ticks = interval(options.reconcile);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = None;
    loop {
        ticks.tick().await;
        let Err(error) = reconciler.turn().await else {
            failing = None;
            continue;
        };
        let since: &mut Instant = failing.get_or_insert_with(Instant::now);
        let for_good = matches!(error, JobsError::Misconfigured { may_pass: false, .. });
        let over = error.is_of_services() && since.elapsed() >= options.retry_for;
        if for_good || over {
            return error;
        }
        tracing::warn!(%error, "the reconciler could not compare queue and store; it retries at its next turn");
    }
}

impl Reconciler<'_> {
    async fn turn(&mut self) -> Result<()> {
        self.worker.queue.forget_bases().await?;
        if !self.is_reconciler().await? {
            return self.glance().await;
        }
        let (fleet, store) = (&self.scheduler.fleet, &self.scheduler.store);
        let keys = [ACTIVE, HELD, SURVEYED].map(|name| fleet.keys.of(name));
        let mut pipe = redis::pipe();
        pipe.smembers(&keys[0]).hkeys(&keys[1]).exists(&keys[2]);
        let (active, noted, is_surveyed): (_, _, bool) = fleet.ask_all(&pipe).await?;
        let (active, noted) = (parsed(active), parsed(noted));
        let is_due = |last: Instant| last.elapsed() >= self.worker.options.survey;
        let surveys = !is_surveyed || self.surveyed.is_none_or(is_due);
        let (mut unknown, mut asked) = (vec![], noted.clone());
        if surveys {
            self.settled.retain(|_| is_surveyed);
            unknown = store.records.runs().await?;
            unknown.retain(|run| !active.contains(run) && !self.settled.contains(run));
            asked.extend(active.iter().chain(&unknown));
        }
        let held = self.held(asked, &noted).await?;
        self.settled.retain(|run| !active.contains(run));
        let mut order: Vec<RunId> = active.iter().chain(&unknown).copied().collect();
        let first = self.turns % order.len().max(1);
        order.rotate_left(first);
        self.turns += 1;
        for run in order {
            self.reconcile_run(run, held.get(&run).copied(), active.contains(&run)).await?;
        }
        if surveys {
            fleet.ask::<()>(redis::cmd("SET").arg(&keys[2]).arg(1)).await?;
            self.surveyed = Some(Instant::now());
        }
        Ok(())
    }

    async fn is_reconciler(&self) -> Result<bool> {
        // Not locked meanwhile: the worker may end, and sign off, at any await of the reconciler.
        let held = self.worker.reconciler.lock().await.clone();
        if let Some(held) = held
            && held.renew().await?
        {
            return Ok(true);
        }
        let (fleet, options) = (&self.scheduler.fleet, &self.worker.options);
        let key = fleet.keys.reconciler(&options.versions);
        let ttl = options.reconcile * TURNS;
        let lease = Lease::acquire(fleet, key, &options.name, ttl).await?;
        let is_reconciler = lease.is_some();
        *self.worker.reconciler.lock().await = lease;
        Ok(is_reconciler)
    }

    /// Reports runs that have become active and are for other workers.
    async fn glance(&mut self) -> Result<()> {
        let fleet = &self.scheduler.fleet;
        let active = fleet.ask(redis::cmd("SMEMBERS").arg(fleet.keys.of(ACTIVE))).await?;
        let active = parsed(active);
        for run in self.glanced.difference(&active) {
            self.scheduler.runs.forget(*run).await;
        }
        self.glanced.retain(|run| active.contains(run));
        for run in active {
            if self.glanced.contains(&run) {
                continue;
            }
            match self.scheduler.runs.incompatible(run).await {
                Ok(Some(why)) => self.scheduler.leave(run, why).await,
                Err(error) if error.is_of_services() => return Err(error),
                // The reconciler reports what cannot be read.
                Ok(None) | Err(_) => {}
            }
            self.glanced.insert(run);
        }
        Ok(())
    }

    /// Which of these runs the store says are held, and how. What Redis has noted is corrected: it may have forgotten
    /// one, or one was resumed from a machine that could not reach it.
    async fn held(
        &self,
        runs: BTreeSet<RunId>,
        noted: &BTreeSet<RunId>,
    ) -> Result<BTreeMap<RunId, Hold>> {
        let mut held = BTreeMap::new();
        for run in runs {
            let hold = self.hold_of(run).await?;
            if hold.is_some() != noted.contains(&run) {
                set_held(&self.scheduler.fleet, run, hold).await?;
            }
            held.extend(hold.map(|hold| (run, hold)));
        }
        Ok(held)
    }

    /// How the store says that a run is held. A damaged record holds nothing; one of another version holds
    /// until a program that knows it resumes the run.
    async fn hold_of(&self, run: RunId) -> Result<Option<Hold>> {
        match self.scheduler.store.records.control(run).await {
            Ok(control) => Ok(control.map(|control| control.state)),
            Err(JobsError::Incompatible(why)) => {
                self.scheduler.leave(run, why.to_string()).await;
                Ok(Some(Hold::Paused))
            }
            Err(JobsError::Data(why)) => {
                tracing::warn!(
                    run = run.short(),
                    why = why.as_str(),
                    "ignoring a damaged control record"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn reconcile_run(&mut self, run: RunId, hold: Option<Hold>, active: bool) -> Result<()> {
        let scheduler = self.scheduler;
        if let Some(hold) = hold {
            if hold == Hold::Cancelled {
                scheduler.runs.forget(run).await;
                set_active(&scheduler.fleet, run, false).await?;
            }
            return Ok(());
        }
        if !scheduler.is_ours(run).await? {
            return Ok(());
        }
        let Some(view) = scheduler.view(run).await? else { return Ok(()) };
        let failed = scheduler.runs.has_failed(run, view.stages()).await;
        let Some(failed) = scheduler.readable(run, failed).await? else { return Ok(()) };
        if view.is_done || failed {
            self.settled.insert(run);
            scheduler.runs.forget(run).await;
            scheduler.queue_of(view.numerics).withdraw(run).await?;
            let was_active = set_active(&scheduler.fleet, run, false).await?;
            if view.is_done && was_active {
                scheduler.emit(Event::Done { run });
            }
            return Ok(());
        }
        if !active {
            set_active(&scheduler.fleet, run, true).await?;
        }
        self.offer_unknown(run, &view).await
    }

    /// Offers what Redis does not know of; for what it knows, no spec need be looked for.
    async fn offer_unknown(&self, run: RunId, view: &View) -> Result<()> {
        let queue = self.scheduler.queue_of(view.numerics);
        let unknown = queue.unknown(run, view.stages()).await?;
        if unknown.is_empty() {
            return Ok(());
        }
        // What was published since the first look is as unknown as what was lost.
        match self.scheduler.view(run).await? {
            // The next turn takes note of a run that is done by now.
            Some(mut view) if !view.is_done => {
                view.pending.retain(|pending| unknown.contains(&pending.stage));
                self.scheduler.offer(run, &view).await
            }
            _ => Ok(()),
        }
    }
}

/// The runs among names that Redis holds.
fn parsed(names: Vec<String>) -> BTreeSet<RunId> {
    names.iter().filter_map(|name| name.parse().ok()).collect()
}
