//! A whole run in one process: no queue, no services but the store. Stages beside a run: `batch.rs`.
//!
//! As many stages at once as there are workers; how many never changes a result. Whatever is stored
//! already is taken over, so the same call resumes a run that was stopped, killed or finished. Retries
//! nothing: what a second try could mend, the store's own connection has tried again.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use agrpo_spec::{
    ArtifactDigest, Environment, ExecuteFn, Manifest, Run, RunId, StageDigest, StageKey, StageSpec,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use crate::maintenance::recompute::Recompute;
use crate::maintenance::repair::quarantine_damage;
use crate::maintenance::retention;
use crate::metrics::{self, Outcome as End};
use crate::planning::progress::Progress;
use crate::span;
use crate::worker::LogTail;
use agrpo_store::Clock;
use agrpo_store::JobsError;
use agrpo_store::{Control, Failure, Hold, Store};

/// From one look whether the run is paused or cancelled to the next.
const LOOK: Duration = Duration::from_secs(1);

/// What happens while a run goes on.
#[derive(Clone, Debug)]
pub enum Event {
    /// The run was opened; the first event.
    Opened {
        /// Stages that need no look any more, as a later update is stored.
        done: u64,
        /// All stages of the run.
        total: u64,
    },
    /// A stage's result was in the store.
    Reused {
        /// Its place in the run.
        key: StageKey,
        /// Its record.
        manifest: Arc<Manifest>,
    },
    /// A stage is being computed.
    Started {
        /// Its place in the run.
        key: StageKey,
        /// Its name.
        stage: StageDigest,
    },
    /// The run is paused or cancelled: no stage is begun until it is resumed.
    Held {
        /// How.
        state: Hold,
        /// Who, as they call themselves.
        by: String,
    },
    /// The run was let go again.
    Resumed,
    /// A stage was computed and stored.
    Finished {
        /// Its place in the run.
        key: StageKey,
        /// Its record.
        manifest: Arc<Manifest>,
    },
}

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

/// What every stage in hand needs.
#[derive(Clone)]
struct Shop {
    store: Store,
    run: RunId,
    recompute: Recompute,
    log_tail: LogTail,
    events: mpsc::UnboundedSender<Event>,
}

impl Local {
    /// What computes stages of a run.
    pub(crate) fn recompute(&self, run: RunId) -> Recompute {
        Recompute {
            store: self.store.clone(),
            run: Some(run),
            execute: Arc::clone(&self.execute),
            environment: self.environment.clone(),
            clock: Arc::clone(&self.clock),
            turn: Arc::default(),
        }
    }

    /// Computes what a run lacks, as many stages at once as there are workers.
    ///
    /// Events are sent as long as there is a receiver. When `stop` becomes true the stages in hand end and
    /// are stored. A run that is paused waits to be resumed; one that is cancelled meanwhile
    /// ends like a stopped one, and one that was cancelled before is taken up again. Failed or data error
    /// where a stage gives up, with a failure record in the store.
    pub async fn run(
        &self,
        run: Run,
        events: mpsc::UnboundedSender<Event>,
        stop: watch::Receiver<bool>,
    ) -> Result<Outcome, JobsError> {
        self.store.put_run(&run).await?;
        self.begin(run.id()).await?;
        let progress = Progress::open(&self.store, run).await?;
        self.follow(progress, events, stop).await
    }

    /// The same for a run of which something may be damaged or lost: all of it is read, what is damaged is moved
    /// to `aside/`, and every stage is looked at, those before the newest update too.
    pub async fn repair(
        &self,
        run: Run,
        events: mpsc::UnboundedSender<Event>,
        stop: watch::Receiver<bool>,
    ) -> Result<Outcome, JobsError> {
        self.store.put_run(&run).await?;
        quarantine_damage(&self.store, run.id()).await?;
        self.begin(run.id()).await?;
        let progress = Progress::at_start(&self.store, run).await?;
        self.follow(progress, events, stop).await
    }

    /// A person asks for the run: failures are forgotten, and it is no longer cancelled.
    async fn begin(&self, id: RunId) -> Result<(), JobsError> {
        let store = &self.store;
        store.pin_versions(id).await?;
        for failure in store.failures(id).await? {
            store.clear_failure(id, failure.stage).await?;
        }
        if store.control(id).await?.is_some_and(|control| control.state == Hold::Cancelled) {
            store.clear_control(id).await?;
        }
        Ok(())
    }

    async fn follow(
        &self,
        mut progress: Progress,
        events: mpsc::UnboundedSender<Event>,
        stop: watch::Receiver<bool>,
    ) -> Result<Outcome, JobsError> {
        let (id, store) = (progress.plan().run().id(), &self.store);
        let (recompute, log_tail) = (self.recompute(id), Arc::clone(&self.log_tail));
        let shop = Shop { store: store.clone(), run: id, recompute, log_tail, events };
        shop.tell(Event::Opened { done: progress.done(), total: progress.total() });
        for (key, manifest) in progress.catch_up(store).await? {
            shop.tell(Event::Reused { key, manifest });
        }
        let mut held = Held::default();
        let computed = drive(&mut progress, &shop, self.workers.max(1), stop, &mut held).await?;
        if progress.plan().is_done() {
            retention::at_end(store, id).await;
        }
        Ok(Outcome {
            run: id,
            policy: progress.plan().policy(),
            done: progress.plan().is_done(),
            cancelled: held.state == Some(Hold::Cancelled),
            computed,
            reused: progress.done() - computed,
        })
    }
}

/// Keeps `workers` stages in hand until none is left, or one failed, or `stop` says so. Answers with
/// how many were computed.
async fn drive(
    progress: &mut Progress,
    shop: &Shop,
    workers: usize,
    mut stop: watch::Receiver<bool>,
    held: &mut Held,
) -> Result<u64, JobsError> {
    let mut in_hand = BTreeSet::new();
    let mut tasks = JoinSet::new();
    let mut computed = 0;
    let mut failed = None;
    loop {
        if failed.is_none() && !*stop.borrow() && !progress.plan().is_done() {
            match held.look(shop).await {
                Ok(()) => {}
                Err(error) => failed = Some(error),
            }
        }
        if failed.is_none() && !*stop.borrow() && held.state.is_none() {
            let free = progress.plan().pending().iter().filter(|(key, _)| !in_hand.contains(*key));
            let taken: Vec<_> = free
                .take(workers - in_hand.len())
                .map(|(key, spec)| (*key, spec.clone()))
                .collect();
            for (key, spec) in taken {
                in_hand.insert(key);
                let shop = shop.clone();
                let span = span::of_stage(shop.run, key, spec.digest());
                let work = async move { (key, shop.settle(key, &spec).await) };
                tasks.spawn(work.instrument(span));
            }
        }
        let Some(joined) = tasks.join_next().await else {
            let waits = failed.is_none() && !*stop.borrow();
            if !waits || held.state != Some(Hold::Paused) {
                break;
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                Ok(_) = stop.wait_for(|&stop| stop) => {}
            }
            continue;
        };
        let (key, result) =
            joined.map_err(|error| JobsError::Internal(format!("a task ended early: {error}")))?;
        in_hand.remove(&key);
        let taken_over = result.and_then(|(manifest, reused)| {
            progress.finished(key, &manifest)?;
            computed += u64::from(!reused);
            Ok(())
        });
        if let Err(error) = taken_over {
            // The others in hand are nearly done: let them end, so that their work is not lost.
            failed.get_or_insert(error);
        }
    }
    failed.map_or(Ok(computed), Err)
}

/// Whether the run is paused or cancelled, as the store said at the last look.
#[derive(Default)]
struct Held {
    state: Option<Hold>,
    looked: Option<Instant>,
}

impl Held {
    /// Looks into the store, at most once in a while.
    async fn look(&mut self, shop: &Shop) -> Result<(), JobsError> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return Ok(());
        }
        let control = shop.store.control(shop.run).await?;
        self.looked = Some(Instant::now());
        let state = control.as_ref().map(|control| control.state);
        if state != self.state {
            shop.tell(match control {
                Some(Control { state, by, .. }) => Event::Held { state, by },
                None => Event::Resumed,
            });
            self.state = state;
        }
        Ok(())
    }
}

impl Shop {
    fn tell(&self, event: Event) {
        // A display that has gone away must not end the run.
        drop(self.events.send(event));
    }

    /// Finds or computes one stage; says whether it was found.
    async fn settle(
        &self,
        key: StageKey,
        spec: &StageSpec,
    ) -> Result<(Arc<Manifest>, bool), JobsError> {
        let (stage, since) = (spec.digest(), (self.recompute.clock)());
        let found = self.store.settled_manifest(self.run, stage).await?;
        let reused = found.is_some();
        let manifest = match found {
            Some(manifest) => manifest,
            None => {
                span::note_attempt(1);
                let _in_hand = metrics::stage_begun(since);
                self.tell(Event::Started { key, stage });
                let worker = &self.recompute.environment.worker;
                match self.recompute.compute_anew(spec).await {
                    Ok(manifest) if manifest.environment.worker != *worker => {
                        self.store.record_twice(self.run, stage).await?;
                        manifest
                    }
                    Ok(manifest) => manifest,
                    Err(error) => {
                        return Err(self.record_failure((key, stage), since, error).await);
                    }
                }
            }
        };
        let manifest = Arc::new(manifest);
        self.store.record_stage(self.run, key, stage).await?;
        self.store.note_policy(self.run, key, &manifest).await?;
        retention::after(&self.store, self.run, key).await;
        self.tell(if reused {
            metrics::stage_ended(key.kind, End::Reused);
            Event::Reused { key, manifest: Arc::clone(&manifest) }
        } else {
            metrics::stage_finished(key.kind, &manifest.phases);
            Event::Finished { key, manifest: Arc::clone(&manifest) }
        });
        Ok((manifest, reused))
    }

    /// Leaves word of a stage that was begun at a time, in Unix milliseconds, and gave up; a store that is
    /// out of reach is no stage's failure, nor is a record of another version.
    async fn record_failure(
        &self,
        (key, stage): (StageKey, StageDigest),
        since: u64,
        error: JobsError,
    ) -> JobsError {
        metrics::stage_ended(key.kind, End::GivenUp);
        if !error.is_of_services() && !matches!(error, JobsError::Incompatible(_)) {
            let failure = Failure {
                key,
                stage,
                error: error.to_string(),
                remedy: error.remedy(),
                worker: self.recompute.environment.worker.clone(),
                attempts: 1,
                unix_ms: (self.recompute.clock)(),
                environment: self.recompute.environment.clone(),
                log: (self.log_tail)(since),
            };
            if let Err(second) = self.store.put_failure(self.run, &failure).await {
                tracing::warn!(%key, %second, "the failure could not be recorded");
            }
        }
        error
    }
}

#[cfg(test)]
mod tests;
