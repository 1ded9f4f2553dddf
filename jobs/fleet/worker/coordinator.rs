//! The coordinator of a fleet's worker: hints from the queue, leases, counted attempts, and what follows from their ends.
//!
//! Sorts errors by where another attempt may help. A stage that no worker can compute, or that was started too often,
//! ends in a failure record; other runs go on. An error returned from here means that the worker cannot go on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use agrpo_spec::{Manifest, RunId, StageKind};
use agrpo_store::{Failure, JobsError, Remedy, failpoints::fail_point, span::locked};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use super::options::WorkerOptions;
use super::shared::{FAREWELL, Worker};
use crate::Result;
use crate::coordination::attempts;
use crate::coordination::heartbeat::Heartbeat;
use crate::coordination::leases::State;
use crate::coordination::queue::{Delivery, Hint};
use crate::coordination::registry::StageInProgress;
use crate::coordination::runs::set_active;
use crate::coordinator::{Attempt, Coordinator, End};
use crate::events::Event;
use crate::executor::with_retry;
use crate::maintenance::{recompute::Recompute, retention};

/// Starts of a stage before it is given up.
const ATTEMPTS: u32 = 3;

/// Where the executor takes hints from, and since when it is idle, which it shows to the consumer.
pub(super) struct Deliveries {
    pub(super) deliveries: mpsc::Receiver<Delivery>,
    pub(super) idle: watch::Sender<Option<Instant>>,
}

impl Coordinator for Worker {
    type Source = Deliveries;
    type Taken = Delivery;

    fn recompute(&self, run: RunId) -> Recompute {
        Recompute {
            store: self.scheduler.store.clone(),
            run: Some(run),
            execute: Arc::clone(&self.execute),
            environment: self.options.environment.clone(),
            clock: Arc::clone(&self.options.clock),
            turn: Arc::default(),
        }
    }

    fn heartbeat(&self) -> Option<&Heartbeat> {
        Some(&self.heartbeat)
    }

    async fn next(&self, source: &mut Deliveries, is_idle: bool) -> Option<Delivery> {
        if is_idle {
            source.idle.send_replace(Some(Instant::now()));
        }
        let delivery = source.deliveries.recv().await;
        source.idle.send_replace(None);
        delivery
    }

    async fn begin(&self, taken: Delivery) -> Result<Option<(Attempt, Delivery)>> {
        let claimed = tokio::select! {
            biased;
            claimed = self.claim(taken.hint) => claimed?,
            // The hint is for another worker.
            () = self.stopped() => return Ok(None),
        };
        if let Some(attempt) = claimed {
            let span = attempt.span.clone();
            if let Some(attempt) = self.start(attempt).instrument(span).await? {
                self.unsettled.fetch_add(1, Ordering::SeqCst);
                return Ok(Some((attempt, taken)));
            }
        }
        self.acknowledge(taken);
        Ok(None)
    }

    fn acknowledge(&self, taken: Delivery) {
        fail_point("stage::before-ack");
        taken.done.send(()).ok();
    }

    async fn ended(&self, end: End) -> Result<()> {
        let dealt_with = match end {
            End::Published { attempt, manifest, is_reused } => {
                self.accept(&attempt, manifest, is_reused).await
            }
            End::Failed(attempt, error) => self.failed(&attempt, error).await,
            End::StoodDown(attempt) => self.give_back(&attempt).await,
        };
        self.unsettled.fetch_sub(1, Ordering::SeqCst);
        dealt_with
    }
}

impl Worker {
    /// Counts the start of a claimed stage, unless it has a result: the worker that offered it may have looked before
    /// that was published.
    async fn start(&self, mut attempt: Attempt) -> Result<Option<Attempt>> {
        let (store, fleet) = (&self.scheduler.store, &self.scheduler.fleet);
        let Attempt { run, key, stage, .. } = attempt;
        let since_unix_ms = (self.options.clock)();
        let settled = with_retry(self, || store.records.settled_manifest(run, stage)).await;
        if let Ok(Some(manifest)) = settled {
            return self.accept(&attempt, Arc::new(manifest), true).await.map(|()| None);
        }
        let number = with_retry(self, || attempts::begin(fleet, stage)).await?;
        attempt.begin(number, since_unix_ms);
        attempt.environment.attempt = Some(number);
        if let Err(error) = settled {
            return self.failed(&attempt, error).await.map(|()| None);
        }
        if number > ATTEMPTS {
            // Not `number - 1`: a worker that did not know yet that the stage is given up counts as well.
            attempt.number = ATTEMPTS;
            let error = JobsError::failed(format!(
                "begun {ATTEMPTS} times, and each time its worker ended without a result; see the \
                 workers' logs, then `agrpo retry {}`",
                run.short()
            ));
            self.give_up(run, self.failure(&attempt, &error)).await?;
            return self.release(&attempt).await.map(|()| None);
        }
        self.note_base(&attempt).await;
        self.scheduler.emit(Event::Started { run, key, stage });
        self.heartbeat.show(Some(StageInProgress { run, key, stage, since_unix_ms }));
        Ok(Some(attempt))
    }

    /// Notes the base whose weights a stage reads and the process keeps. It decides no more than which stage comes next,
    /// so a record that cannot be read is left to those that need it.
    async fn note_base(&self, attempt: &Attempt) {
        if !matches!(attempt.key.kind, StageKind::Sft | StageKind::Reward | StageKind::Update) {
            let base = with_retry(self, || self.scheduler.runs.base(attempt.run)).await;
            *locked(&self.base) = base.ok().flatten();
        }
    }

    /// First offers what others wait for, then brings the run's metadata up to date.
    async fn accept(
        &self,
        attempt: &Attempt,
        manifest: Arc<Manifest>,
        is_reused: bool,
    ) -> Result<()> {
        let scheduler = &self.scheduler;
        let &Attempt { run, key, stage, .. } = attempt;
        if !is_reused {
            self.heartbeat.count();
        }
        let follow = || scheduler.follow(run, key, &manifest, is_reused);
        let view = with_retry(self, follow).await;
        let is_done = view.as_ref().is_ok_and(|view| view.is_done);
        scheduler.emit(Event::Settled { run, key, manifest, is_reused });
        if let Some(view) = scheduler.readable(run, view).await? {
            fail_point("stage::before-enqueue");
            with_retry(self, || scheduler.offer(run, &view)).await?;
            fail_point("stage::after-enqueue");
        }
        if is_done {
            scheduler.emit(Event::Done { run });
            retention::at_end(&scheduler.store, run).await;
        } else {
            retention::after(&scheduler.store, run, key).await;
        }
        with_retry(self, || attempts::forget(&scheduler.fleet, stage)).await?;
        with_retry(self, || self.queue.forget(stage)).await?;
        self.release(attempt).await
    }

    /// Gives a stage back whose lease was released, so that another worker begins it at once.
    async fn give_back(&self, attempt: &Attempt) -> Result<()> {
        if attempt.lease.state() == State::Lost {
            // The heartbeat knows why.
            return Err(self.heartbeat.fatal().await);
        }
        let &Attempt { run, key, stage, .. } = attempt;
        let given_back = async {
            self.forgive(attempt).await?;
            self.queue.release(Hint { run, key, stage }).await
        };
        match timeout(FAREWELL, given_back).await {
            Ok(Ok(())) => tracing::info!("gave the stage back to the queue"),
            // Its lease expires, and the reconciler offers it.
            Ok(Err(error)) => tracing::warn!(%error, "the stage's lease is left to expire"),
            Err(_) => tracing::warn!("Redis did not answer: the stage's lease is left to expire"),
        }
        Ok(())
    }

    /// An attempt failed: again, elsewhere, or never.
    pub(super) async fn failed(&self, attempt: &Attempt, error: JobsError) -> Result<()> {
        let after = if error.is_of_services() {
            self.forgive(attempt).await
        } else {
            self.after_failure(attempt, &error).await
        };
        // Every later stage of this process would meet the same services or the same device.
        let ends = error.is_of_services() || matches!(error, JobsError::Device(_));
        match after {
            Err(second) if ends => tracing::warn!(error = %second, "the stage was not released"),
            Err(second) => {
                let stage = attempt.stage.short();
                tracing::error!(stage, %error, "the stage failed, and so did what the worker does about it");
                return Err(second);
            }
            Ok(()) => {}
        }
        if ends { Err(error) } else { Ok(()) }
    }

    /// Lets a stage that failed be tried again, or gives it up.
    async fn after_failure(&self, attempt: &Attempt, error: &JobsError) -> Result<()> {
        let scheduler = &self.scheduler;
        let &Attempt { run, stage, .. } = attempt;
        if let JobsError::Incompatible(why) = error {
            // The run waits for a program that knows the record; no attempt was made at the stage.
            self.forgive(attempt).await?;
            scheduler.runs.forget(run).await;
            scheduler.leave(run, why.to_string()).await;
            return with_retry(self, || self.queue.forget(stage)).await;
        }
        let (failure, remedy) = (self.failure(attempt, error), error.remedy());
        if attempt.number >= ATTEMPTS || remedy == Remedy::Never {
            self.give_up(run, failure).await?;
            return self.release(attempt).await;
        }
        scheduler.emit(Event::Failed { run, failure: Box::new(failure), is_given_up: false });
        if remedy == Remedy::Elsewhere {
            let until = Instant::now() + self.options.elsewhere;
            self.backed_off.lock().await.insert(stage, until);
        } else {
            // An input is gone: a plan from scratch finds the stage that has to make it again.
            scheduler.runs.forget(run).await;
        }
        self.release(attempt).await?;
        with_retry(self, || self.queue.forget(stage)).await?;
        if let Some(view) = with_retry(self, || scheduler.view(run)).await? {
            with_retry(self, || scheduler.offer(run, &view)).await?;
        }
        if remedy == Remedy::Elsewhere {
            // This worker asks for its next stage as soon as this one ends: idle workers ask before it does.
            sleep(2 * self.options.poll).await;
        }
        Ok(())
    }

    fn failure(&self, attempt: &Attempt, error: &JobsError) -> Failure {
        let WorkerOptions { name, clock, log_tail, .. } = &self.options;
        Failure { worker: name.clone(), ..attempt.failure(error, clock, log_tail) }
    }

    async fn give_up(&self, run: RunId, failure: Failure) -> Result<()> {
        let scheduler = &self.scheduler;
        match with_retry(self, || scheduler.store.records.put_failure(run, &failure)).await {
            Err(JobsError::Incompatible(why)) => scheduler.leave(run, why.to_string()).await,
            put => put?,
        }
        scheduler.runs.note_failed(run, failure.stage).await;
        with_retry(self, || set_active(&scheduler.fleet, run, false)).await?;
        scheduler.emit(Event::Failed { run, failure: Box::new(failure), is_given_up: true });
        Ok(())
    }

    /// Releases the lease of a stage; its expiry does the same where Redis is away.
    async fn release(&self, attempt: &Attempt) -> Result<()> {
        match self.heartbeat.release(&attempt.lease).await {
            Err(error) if error.may_pass() => {
                tracing::warn!(%error, "cannot release the lease of a stage: it expires");
                Ok(())
            }
            released => released,
        }
    }

    /// Releases a stage whose start does not count.
    async fn forgive(&self, attempt: &Attempt) -> Result<()> {
        attempts::forgive(&self.scheduler.fleet, attempt.stage).await?;
        self.release(attempt).await
    }
}
