//! A whole run in one process: no queue, no services but the store. Stages beside a run: `batch.rs`.
//!
//! The loop of `executor.rs` over a coordinator in memory, once for each worker; how many never changes a result.
//! Whatever is stored already is taken over, so the same call resumes a run that was stopped, killed or finished.
//! Retries nothing: what a second try could mend, the store's own connection has tried again.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use agrpo_spec::{ArtifactDigest, Environment, ExecuteFn, Manifest, Run, RunId, StageKey};
use agrpo_store::{Clock, Control, Hold, JobsError, Store};
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::coordination::leases::StageLease;
use crate::coordinator::{Attempt, Coordinator, End, LogTail};
use crate::events::Event;
use crate::executor::{joined, work};
use crate::maintenance::recompute::Recompute;
use crate::maintenance::{repair::quarantine_damage, retention};
use crate::metrics;
use crate::planning::progress::Progress;
use crate::stage::Pending;
use crate::worker::take_up;

/// From one look whether the run is paused or cancelled to the next.
const LOOK: Duration = Duration::from_secs(1);
/// The lease of a stage in one process, where no other worker takes it.
const FOREVER: Duration = Duration::from_secs(1 << 32);

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The run.
    pub run: RunId,
    /// The newest policy.
    pub policy: Option<ArtifactDigest>,
    /// Whether nothing is left to do; false where it was stopped or cancelled.
    pub done: bool,
    /// Whether it was cancelled meanwhile.
    pub cancelled: bool,
    /// Stages computed by this call.
    pub computed: u64,
    /// Stages whose results were stored before.
    pub reused: u64,
}

/// All that computing stages in this process takes.
#[derive(Clone)]
pub struct Local {
    /// Where inputs and results lie.
    pub store: Store,
    /// Computes one stage.
    pub execute: ExecuteFn,
    /// Stages at once, at least one.
    pub workers: usize,
    /// What records say of this process.
    pub environment: Environment,
    /// What they say about the time.
    pub clock: Clock,
    /// What failure records show of this process' log.
    pub log_tail: LogTail,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("workers", &self.workers).finish_non_exhaustive()
    }
}

impl Local {
    /// What computes stages of a run.
    pub(crate) fn recompute(&self, run: impl Into<Option<RunId>>) -> Recompute {
        Recompute {
            store: self.store.clone(),
            run: run.into(),
            execute: Arc::clone(&self.execute),
            environment: self.environment.clone(),
            clock: Arc::clone(&self.clock),
            turn: Arc::default(),
        }
    }

    /// Computes what a run lacks, as many stages at once as there are workers.
    ///
    /// Where `repair` is asked for, something of the run may be damaged or lost: all of it is read, what is damaged is
    /// moved to `aside/`, and every stage is looked at, those before the newest update too.
    ///
    /// Invalid where another process computes the run on a local store: both would compute everything.
    ///
    /// Events are sent as long as there is a receiver. When `stop` becomes true the stages in hand end and
    /// are stored. A run that is paused waits to be resumed; one that is cancelled meanwhile
    /// ends like a stopped one, and one that was cancelled before is taken up again. Failed or data error
    /// where a stage gives up, with a failure record in the store.
    pub async fn run(
        &self,
        run: Run,
        repair: bool,
        events: mpsc::UnboundedSender<Event>,
        stop: watch::Receiver<bool>,
    ) -> Result<Outcome> {
        let Some(_lock) = self.store.records.lock_run(run.id()).await? else {
            return Err(in_use(&self.store, run.id()));
        };
        self.store.records.put_run(&run).await?;
        if repair {
            quarantine_damage(&self.store, run.id()).await?;
        }
        self.store.records.pin_versions(run.id()).await?;
        take_up(&self.store, None, run.id()).await?;
        let progress = match repair {
            true => Progress::at_start(&self.store, run).await?,
            false => Progress::open(&self.store, run).await?,
        };
        self.follow(progress, events, stop).await
    }

    async fn follow(
        &self,
        mut progress: Progress,
        events: mpsc::UnboundedSender<Event>,
        stop: watch::Receiver<bool>,
    ) -> Result<Outcome> {
        let run = progress.plan.run().id();
        let opened = Event::Opened { done: progress.done, total: progress.total() };
        events.send(opened).ok();
        for (key, manifest) in progress.catch_up(&self.store).await? {
            events.send(Event::Settled { run, key, manifest, is_reused: true }).ok();
        }
        let coordinator = Arc::new(InMemory {
            recompute: self.recompute(run),
            log_tail: Arc::clone(&self.log_tail),
            run,
            events,
            stop,
            state: Mutex::new(State {
                progress,
                taken: BTreeSet::new(),
                computed: 0,
                hold: None,
                looked: None,
                error: None,
            }),
            changed: Notify::new(),
        });
        let mut executors = JoinSet::new();
        for _ in 0..self.workers.max(1) {
            executors.spawn(work(Arc::clone(&coordinator), ()));
        }
        while let Some(ended) = executors.join_next().await {
            if let Err(error) = joined(ended) {
                coordinator.fail(error).await;
            }
        }
        let mut state = coordinator.state.lock().await;
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        let (plan, computed) = (&state.progress.plan, state.computed);
        if plan.is_done() {
            retention::at_end(&self.store, run).await;
        }
        Ok(Outcome {
            run,
            policy: plan.policy(),
            done: plan.is_done(),
            cancelled: state.hold == Some(Hold::Cancelled),
            computed,
            reused: state.progress.done - computed,
        })
    }
}

fn in_use(store: &Store, run: RunId) -> JobsError {
    let (run, url) = (run.short(), store.url());
    JobsError::invalid(format!(
        "run {run} is being computed by another process in {url}: wait for its end, or stop it and start this one again; \
         `agrpo status {run}` shows how far it is"
    ))
}

/// Hands out the stages of one run to the executors of this process.
struct InMemory {
    recompute: Recompute,
    log_tail: LogTail,
    run: RunId,
    events: mpsc::UnboundedSender<Event>,
    stop: watch::Receiver<bool>,
    state: Mutex<State>,
    /// Wakes the executors that wait for a stage.
    changed: Notify,
}

/// Where the run stands.
struct State {
    progress: Progress,
    /// Stages that an executor has.
    taken: BTreeSet<StageKey>,
    /// Stages computed here.
    computed: u64,
    /// Whether the run is paused or cancelled, as the store said when it was last asked.
    hold: Option<Hold>,
    looked: Option<Instant>,
    /// The first error: no further stage is begun, and those in hand end, so that their work is not lost.
    error: Option<JobsError>,
}

impl State {
    fn free(&self) -> Option<Pending> {
        let mut pending = self.progress.plan.pending().iter();
        let (&key, spec) = pending.find(|(key, _)| !self.taken.contains(*key))?;
        Some(Pending::new(key, spec))
    }
}

impl InMemory {
    fn emit(&self, event: Event) {
        event.count();
        // A display that has gone away must not end the run.
        self.events.send(event).ok();
    }

    /// Ends the run; the first error counts.
    async fn fail(&self, error: JobsError) {
        self.state.lock().await.error.get_or_insert(error);
        self.changed.notify_waiters();
    }

    /// Whether the run is paused or cancelled; asks the store at most once in a while.
    async fn hold(&self, state: &mut State) -> Result<Option<Hold>> {
        if state.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            let control = self.recompute.store.records.control(self.run).await?;
            state.looked = Some(Instant::now());
            let hold = control.as_ref().map(|control| control.state);
            if std::mem::replace(&mut state.hold, hold) != hold {
                self.emit(match control {
                    Some(Control { state, by, .. }) => Event::Held { state, by },
                    None => Event::Resumed,
                });
            }
        }
        Ok(state.hold)
    }

    async fn accept(&self, key: StageKey, manifest: Arc<Manifest>, is_reused: bool) -> Result<()> {
        let (store, run) = (&self.recompute.store, self.run);
        store.records.record_stage(run, key, manifest.stage).await?;
        store.records.note_policy(run, key, &manifest).await?;
        retention::after(store, run, key).await;
        self.emit(Event::Settled { run, key, manifest: Arc::clone(&manifest), is_reused });
        let mut state = self.state.lock().await;
        state.progress.finished(key, &manifest)?;
        state.taken.remove(&key);
        state.computed += u64::from(!is_reused);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Records the failure of a stage; services that are out of reach are none, nor is a record of another version.
    async fn record(&self, attempt: &Attempt, error: &JobsError) {
        let key = attempt.key;
        metrics::count_stage(key.kind, metrics::Outcome::GivenUp, 1);
        if error.is_of_services() || matches!(error, JobsError::Incompatible(_)) {
            return;
        }
        let failure = attempt.failure(error, &self.recompute.clock, &self.log_tail);
        if let Err(second) = self.recompute.store.records.put_failure(self.run, &failure).await {
            tracing::warn!(%key, error = %second, "cannot record the failure of a stage");
        }
    }
}

impl Coordinator for InMemory {
    type Source = ();
    type Taken = Pending;

    fn recompute(&self, _run: RunId) -> Recompute {
        self.recompute.clone()
    }

    async fn next(&self, (): &mut (), _is_idle: bool) -> Option<Pending> {
        let mut stop = self.stop.clone();
        loop {
            // From before the look on, so that no change is missed.
            let changed = self.changed.notified();
            let mut state = self.state.lock().await;
            if state.error.is_some() || state.progress.plan.is_done() || *stop.borrow() {
                return None;
            }
            if let Some(pending) = state.free() {
                match self.hold(&mut state).await {
                    Ok(None) => {
                        state.taken.insert(pending.key);
                        return Some(pending);
                    }
                    // While a stage is in hand, the run may be resumed: every executor waits to go on.
                    Ok(Some(Hold::Cancelled)) if state.taken.is_empty() => return None,
                    Ok(Some(_)) => {}
                    Err(error) => {
                        state.error = Some(error);
                        self.changed.notify_waiters();
                        return None;
                    }
                }
            }
            drop(state);
            tokio::select! {
                () = changed => {}
                Ok(_) = stop.wait_for(|&stop| stop) => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    async fn begin(&self, pending: Pending) -> Result<Option<(Attempt, Pending)>> {
        let Recompute { store, environment, clock, .. } = &self.recompute;
        let none = String::new();
        let lease = StageLease::new(pending.stage, none.clone(), none, Instant::now(), FOREVER);
        let (lease, environment) = (Arc::new(lease), environment.clone());
        let mut attempt = Attempt::new(self.run, pending.clone(), lease, environment);
        let Attempt { run, key, stage, .. } = attempt;
        match store.records.settled_manifest(run, stage).await {
            Ok(None) => {
                attempt.begin(1, clock());
                self.emit(Event::Started { run, key, stage });
                return Ok(Some((attempt, pending)));
            }
            Ok(Some(manifest)) => {
                let manifest = Arc::new(manifest);
                self.ended(End::Published { attempt, manifest, is_reused: true }).await?;
            }
            Err(error) => self.fail(error).await,
        }
        Ok(None)
    }

    fn acknowledge(&self, _taken: Pending) {}

    async fn ended(&self, end: End) -> Result<()> {
        let error = match end {
            End::Published { attempt, manifest, is_reused } => {
                self.accept(attempt.key, manifest, is_reused).await.err()
            }
            End::Failed(attempt, error) => {
                self.record(&attempt, &error).await;
                Some(error)
            }
            End::StoodDown(_) => None,
        };
        if let Some(error) = error {
            self.fail(error).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
