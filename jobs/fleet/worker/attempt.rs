//! One attempt at a stage: its lease, its start, its computing, and what follows from an error.
//!
//! Sorts errors by where another attempt may help. A stage that no worker can compute, or that was started too often,
//! ends in a failure record; other runs go on. An error returned from here means that the worker cannot go on.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use agrpo_spec::{Environment, RunId, StageDigest};
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use super::events::WorkerEvent;
use super::executor::{Publisher, clear};
use super::publish::Made;
use super::runs::Pending;
use super::shared::{FAREWELL, Worker};
use crate::coordination::attempts;
use crate::coordination::leases::stages::Acquired;
use crate::coordination::leases::{StageLease, State};
use crate::coordination::registry::{InHand, workers};
use crate::coordination::runs::set_active;
use crate::maintenance::recompute::{Recompute, patience};
use crate::metrics;
use crate::span;
use crate::stage::{self, Computed};
use agrpo_store::Failure;
use agrpo_store::{JobsError, Remedy};

impl Worker {
    /// Takes a stage's lease; `None` where another worker computes it, or should.
    pub(super) async fn take(
        &self,
        run: RunId,
        stage: StageDigest,
    ) -> Result<Option<Arc<StageLease>>, JobsError> {
        if self.is_better_elsewhere(stage).await? {
            return Ok(None);
        }
        let name = run.to_string();
        let mut waits = false;
        loop {
            match self.with_retry(|| self.heartbeat.acquire(stage, &name)).await? {
                Ok(lease) => return Ok(Some(lease)),
                Err(Acquired::Wait(pause)) => {
                    if !std::mem::replace(&mut waits, true) {
                        tracing::info!(
                            stage = stage.short(),
                            seconds = pause.as_secs_f64(),
                            "Redis is new, was started again or stood still: holders of leases may come back \
                             before other workers take their stages"
                        );
                    }
                    sleep(pause).await;
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Computes a stage whose lease is held, and leaves its result to the publisher.
    pub(super) async fn attempt(
        self: &Arc<Self>,
        run: RunId,
        pending: &Pending,
        lease: &Arc<StageLease>,
        publisher: &mut Publisher,
    ) -> Result<(), JobsError> {
        let &Pending { key, stage, .. } = pending;
        let since_unix_ms = (self.options.clock)();
        if self.is_settled(run, pending, lease).await? {
            return Ok(());
        }
        let begun = self.with_retry(|| attempts::begin(&self.fleet, stage)).await?;
        span::note_attempt(begun);
        if begun > self.options.attempts {
            // Not `begun - 1`: a worker that did not know yet that the stage is given up counts as well.
            let starts = self.options.attempts;
            let error = format!(
                "begun {starts} times, and each time its worker ended without a result; see the \
                 workers' logs, then `agrpo retry {}`",
                run.short()
            );
            let failure = self.failure(pending, error, Remedy::Elsewhere, starts, since_unix_ms);
            self.give_up(run, failure).await?;
            return self.release(lease).await;
        }
        metrics::attempt(key.kind, begun);
        let _in_hand = metrics::stage_begun(since_unix_ms);
        self.emit(WorkerEvent::Started { run, key, stage });
        self.heartbeat.show(Some(InHand { run, key, stage, since_unix_ms }));
        let environment = Environment {
            started_unix_ms: since_unix_ms,
            attempt: Some(begun),
            ..self.options.environment.clone()
        };
        let attempted = tokio::select! {
            biased;
            ended = lease.ended() => {
                self.heartbeat.show(None);
                return self.stand_down(run, pending, lease, ended).await;
            }
            attempted = self.compute(run, pending) => attempted,
        };
        self.heartbeat.show(None);
        match attempted {
            Ok(computed) => {
                lease.computed();
                clear(publisher).await?;
                let (pending, lease) = (pending.clone(), Arc::clone(lease));
                let made = Made { run, pending, lease, computed, environment, begun };
                publisher.spawn(Arc::clone(self).publish(made).in_current_span());
                Ok(())
            }
            Err(error) => self.failed(run, pending, lease, error, (begun, since_unix_ms)).await,
        }
    }

    /// Whether a stage needs no attempt: it has a result, which is taken over, since the worker that offered it
    /// had looked before that was published; or its record is one that this worker cannot go on from.
    async fn is_settled(
        &self,
        run: RunId,
        pending: &Pending,
        lease: &StageLease,
    ) -> Result<bool, JobsError> {
        let &Pending { key, stage, .. } = pending;
        match self.with_retry(|| self.store.settled_manifest(run, stage)).await {
            Ok(None) => return Ok(false),
            Ok(Some(manifest)) => {
                self.accept(run, key, manifest, true).await?;
                self.release(lease).await?;
            }
            Err(error) => {
                let begun = self.with_retry(|| attempts::begin(&self.fleet, stage)).await?;
                let since_unix_ms = (self.options.clock)();
                self.failed(run, pending, lease, error, (begun, since_unix_ms)).await?;
            }
        }
        Ok(true)
    }

    async fn compute(
        &self,
        run: RunId,
        Pending { spec, .. }: &Pending,
    ) -> Result<Computed, JobsError> {
        let recompute = self.recompute(run);
        let mut patience = patience(spec);
        loop {
            let fetched = self.with_retry(|| recompute.fetch(spec)).await?;
            match stage::calculate(spec, fetched, &self.execute).await {
                // It was sound when it was fetched: the next fetch finds out, and mends it.
                Err(JobsError::Lost { message, .. }) if patience > 0 => {
                    tracing::warn!(message, "fetching the stage's inputs again");
                    patience -= 1;
                }
                computed => return computed,
            }
        }
    }

    /// What computing a stage of a run takes; what it lacks is made again under the same lease.
    fn recompute(&self, run: RunId) -> Recompute {
        Recompute {
            store: self.store.clone(),
            run: Some(run),
            execute: Arc::clone(&self.execute),
            environment: self.options.environment.clone(),
            clock: Arc::clone(&self.options.clock),
            turn: Arc::default(),
        }
    }

    /// The stage was given back or lost: nothing of it is published.
    pub(super) async fn stand_down(
        &self,
        run: RunId,
        pending: &Pending,
        lease: &StageLease,
        ended: State,
    ) -> Result<(), JobsError> {
        if ended == State::Lost {
            // The heartbeat knows why.
            return Err(self.heartbeat.fatal().await);
        }
        let given_back = async {
            attempts::forgive(&self.fleet, lease.stage).await?;
            self.release(lease).await?;
            self.queue.forget(lease.stage).await?;
            self.queue.offer(run, [(pending.key, pending.stage)]).await
        };
        match timeout(FAREWELL, given_back).await {
            Ok(Ok(_)) => tracing::info!("given back"),
            // Its lease expires, and a sweep offers it.
            Ok(Err(error)) => tracing::warn!(%error, "left to expire"),
            Err(_) => tracing::warn!("left to expire: no answer from Redis"),
        }
        Ok(())
    }

    /// Gives the lease back; its expiry does the same where Redis is away.
    pub(super) async fn release(&self, lease: &StageLease) -> Result<(), JobsError> {
        match self.heartbeat.release(lease).await {
            Err(error) if error.may_pass() => {
                tracing::warn!(%error, "a lease was left to expire");
                Ok(())
            }
            put => put,
        }
    }

    /// An attempt failed: again, elsewhere, or never.
    pub(super) async fn failed(
        &self,
        run: RunId,
        pending: &Pending,
        lease: &StageLease,
        error: JobsError,
        begun: (u32, u64),
    ) -> Result<(), JobsError> {
        let after = if error.is_of_services() {
            async {
                attempts::forgive(&self.fleet, pending.stage).await?;
                self.release(lease).await
            }
            .await
        } else {
            self.after_failure(run, pending, lease, &error, begun).await
        };
        // Every later stage of this process would meet the same services or the same device.
        let ends = error.is_of_services() || matches!(error, JobsError::Device(_));
        match after {
            Err(second) if ends => tracing::warn!(error = %second, "the stage was not put down"),
            Err(second) => {
                tracing::error!(stage = pending.stage.short(), %error, "failed, and so did what follows");
                return Err(second);
            }
            Ok(()) => {}
        }
        if ends { Err(error) } else { Ok(()) }
    }

    /// Lets a stage that failed be tried again, or gives it up.
    async fn after_failure(
        &self,
        run: RunId,
        pending: &Pending,
        lease: &StageLease,
        error: &JobsError,
        (begun, since_unix_ms): (u32, u64),
    ) -> Result<(), JobsError> {
        let &Pending { key, stage, .. } = pending;
        if let JobsError::Incompatible(why) = error {
            // The run waits for a program that knows the record; no attempt was made at the stage.
            attempts::forgive(&self.fleet, stage).await?;
            self.release(lease).await?;
            self.runs.forget(run).await;
            self.leave(run, why.clone()).await;
            return self.with_retry(|| self.queue.forget(stage)).await;
        }
        let remedy = error.remedy();
        if begun >= self.options.attempts || remedy == Remedy::Never {
            let failure = self.failure(pending, error.to_string(), remedy, begun, since_unix_ms);
            self.give_up(run, failure).await?;
            self.release(lease).await?;
        } else {
            let text = error.to_string();
            self.emit(WorkerEvent::Failed {
                run,
                key,
                stage,
                error: text,
                attempts: begun,
                given_up: false,
            });
            if remedy == Remedy::Elsewhere {
                self.backed_off().insert(stage, Instant::now() + self.options.elsewhere);
            } else {
                // An input is gone: a plan from scratch finds the stage that has to make it again.
                self.runs.forget(run).await;
            }
            self.release(lease).await?;
            self.with_retry(|| self.queue.forget(stage)).await?;
            if let Some(view) = self.with_retry(|| self.look(run)).await? {
                self.with_retry(|| self.offer(run, &view)).await?;
            }
        }
        Ok(())
    }

    fn failure(
        &self,
        &Pending { key, stage, .. }: &Pending,
        error: String,
        remedy: Remedy,
        attempts: u32,
        since_unix_ms: u64,
    ) -> Failure {
        Failure {
            key,
            stage,
            error,
            remedy,
            worker: self.options.name.clone(),
            attempts,
            unix_ms: (self.options.clock)(),
            environment: Environment {
                started_unix_ms: since_unix_ms,
                ..self.options.environment.clone()
            },
            log: (self.options.log_tail)(since_unix_ms),
        }
    }

    async fn give_up(&self, run: RunId, failure: Failure) -> Result<(), JobsError> {
        let Failure { key, stage, attempts, .. } = failure;
        match self.with_retry(|| self.store.put_failure(run, &failure)).await {
            Err(JobsError::Incompatible(why)) => self.leave(run, why).await,
            put => put?,
        }
        self.runs.note_failed(run, stage).await;
        self.with_retry(|| set_active(&self.fleet, run, false)).await?;
        let error = failure.error;
        self.emit(WorkerEvent::Failed { run, key, stage, error, attempts, given_up: true });
        Ok(())
    }

    fn backed_off(&self) -> MutexGuard<'_, BTreeMap<StageDigest, Instant>> {
        self.backed_off.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the stage failed here a while ago and another worker of our class is there to try it.
    async fn is_better_elsewhere(&self, stage: StageDigest) -> Result<bool, JobsError> {
        let backs_off = {
            let mut backed_off = self.backed_off();
            backed_off.retain(|_, until| Instant::now() < *until);
            backed_off.contains_key(&stage)
        };
        if !backs_off {
            return Ok(false);
        }
        let all = self.with_retry(|| workers(&self.fleet)).await?;
        let (class, name) = (self.options.numerics, &self.options.name);
        Ok(all.iter().any(|worker| worker.class == class && worker.name != *name))
    }
}
