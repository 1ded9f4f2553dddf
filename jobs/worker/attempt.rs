//! One attempt at a stage: its lease, its start, its computing, and what becomes of an error.
//!
//! Errors are sorted by where another try may help. A stage that nobody can compute, or that was begun
//! too often, ends in a failure record; other runs go on. An error from here means that the worker
//! cannot go on.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use agrpo_spec::{Environment, RunId, StageDigest};
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use super::bench::{Desk, clear};
use super::publish::Made;
use super::runs::Pending;
use super::{FAREWELL, Worker, WorkerEvent, attempts, set_active};
use crate::error::{JobsError, Remedy};
use crate::hand::{Hand, State};
use crate::lease::stages::Acquired;
use crate::metrics;
use crate::registry::{InHand, workers};
use crate::rewind::{Hands, patience};
use crate::span;
use crate::stage::{self, Computed};
use crate::store::Failure;

impl Worker {
    /// Takes a stage's lease; `None` where somebody else is at it, or should be.
    pub(super) async fn take(
        &self,
        run: RunId,
        stage: StageDigest,
    ) -> Result<Option<Arc<Hand>>, JobsError> {
        if self.is_better_elsewhere(stage).await? {
            return Ok(None);
        }
        let name = run.to_string();
        let mut waits = false;
        loop {
            match self.patiently(|| self.pulse.acquire(stage, &name)).await? {
                Ok(hand) => return Ok(Some(hand)),
                Err(Acquired::Wait(pause)) => {
                    if !std::mem::replace(&mut waits, true) {
                        tracing::info!(
                            stage = stage.short(),
                            seconds = pause.as_secs_f64(),
                            "Redis is new, was started again or stood still: whoever has a stage in hand \
                             may come back before others take stages"
                        );
                    }
                    sleep(pause).await;
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Computes a stage that is in hand, and leaves its result to the desk.
    pub(super) async fn attempt(
        self: &Arc<Self>,
        run: RunId,
        pending: &Pending,
        hand: &Arc<Hand>,
        desk: &mut Desk,
    ) -> Result<(), JobsError> {
        let &Pending { key, stage, .. } = pending;
        let since_unix_ms = (self.options.clock)();
        if self.is_settled(run, pending, hand).await? {
            return Ok(());
        }
        let begun = self.patiently(|| attempts::begin(&self.fleet, stage)).await?;
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
            return self.put_down(hand).await;
        }
        metrics::attempt(key.kind, begun);
        let _in_hand = metrics::stage_begun(since_unix_ms);
        self.tell(WorkerEvent::Started { run, key, stage });
        self.pulse.show(Some(InHand { run, key, stage, since_unix_ms }));
        let environment = Environment {
            started_unix_ms: since_unix_ms,
            attempt: Some(begun),
            ..self.options.environment.clone()
        };
        let attempted = tokio::select! {
            biased;
            ended = hand.ended() => {
                self.pulse.show(None);
                return self.stand_down(run, pending, hand, ended).await;
            }
            attempted = self.compute(run, pending) => attempted,
        };
        self.pulse.show(None);
        match attempted {
            Ok(computed) => {
                hand.computed();
                clear(desk).await?;
                let (pending, hand) = (pending.clone(), Arc::clone(hand));
                let made = Made { run, pending, hand, computed, environment, begun };
                desk.spawn(Arc::clone(self).publish(made).in_current_span());
                Ok(())
            }
            Err(error) => self.failed(run, pending, hand, error, (begun, since_unix_ms)).await,
        }
    }

    /// Whether a stage in hand needs no attempt: it has a result, which is taken over, since whoever offered it
    /// had looked before that was published; or its record is one that this worker cannot go on from.
    async fn is_settled(
        &self,
        run: RunId,
        pending: &Pending,
        hand: &Hand,
    ) -> Result<bool, JobsError> {
        let &Pending { key, stage, .. } = pending;
        match self.patiently(|| self.store.settled_manifest(run, stage)).await {
            Ok(None) => return Ok(false),
            Ok(Some(manifest)) => {
                self.accept(run, key, manifest, true).await?;
                self.put_down(hand).await?;
            }
            Err(error) => {
                let begun = self.patiently(|| attempts::begin(&self.fleet, stage)).await?;
                let since_unix_ms = (self.options.clock)();
                self.failed(run, pending, hand, error, (begun, since_unix_ms)).await?;
            }
        }
        Ok(true)
    }

    async fn compute(
        &self,
        run: RunId,
        Pending { spec, .. }: &Pending,
    ) -> Result<Computed, JobsError> {
        let hands = self.hands(run);
        let mut patience = patience(spec);
        loop {
            let fetched = self.patiently(|| hands.fetch(spec)).await?;
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
    fn hands(&self, run: RunId) -> Hands {
        Hands {
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
        hand: &Hand,
        ended: State,
    ) -> Result<(), JobsError> {
        if ended == State::Lost {
            // The pulse knows why, and lets it go no further.
            return Err(self.pulse.fatal().await);
        }
        let given_back = async {
            attempts::forgive(&self.fleet, hand.stage).await?;
            self.put_down(hand).await?;
            self.queue.forget(hand.stage).await?;
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
    pub(super) async fn put_down(&self, hand: &Hand) -> Result<(), JobsError> {
        match self.pulse.put_down(hand).await {
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
        hand: &Hand,
        error: JobsError,
        begun: (u32, u64),
    ) -> Result<(), JobsError> {
        let after = if error.is_of_services() {
            async {
                attempts::forgive(&self.fleet, pending.stage).await?;
                self.put_down(hand).await
            }
            .await
        } else {
            self.after_failure(run, pending, hand, &error, begun).await
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
        hand: &Hand,
        error: &JobsError,
        (begun, since_unix_ms): (u32, u64),
    ) -> Result<(), JobsError> {
        let &Pending { key, stage, .. } = pending;
        if let JobsError::Incompatible(why) = error {
            // The run waits for a program that knows the record; no attempt was made at the stage.
            attempts::forgive(&self.fleet, stage).await?;
            self.put_down(hand).await?;
            self.runs.forget(run).await;
            self.leave(run, why.clone()).await;
            return self.patiently(|| self.queue.forget(stage)).await;
        }
        let remedy = error.remedy();
        if begun >= self.options.attempts || remedy == Remedy::Never {
            let failure = self.failure(pending, error.to_string(), remedy, begun, since_unix_ms);
            self.give_up(run, failure).await?;
            self.put_down(hand).await?;
        } else {
            let text = error.to_string();
            self.tell(WorkerEvent::Failed {
                run,
                key,
                stage,
                error: text,
                attempts: begun,
                given_up: false,
            });
            if remedy == Remedy::Elsewhere {
                self.shunned().insert(stage, Instant::now() + self.options.elsewhere);
            } else {
                // An input is gone: a plan from scratch finds the stage that has to make it again.
                self.runs.forget(run).await;
            }
            self.put_down(hand).await?;
            self.patiently(|| self.queue.forget(stage)).await?;
            if let Some(view) = self.patiently(|| self.look(run)).await? {
                self.patiently(|| self.offer(run, &view)).await?;
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
        match self.patiently(|| self.store.put_failure(run, &failure)).await {
            Err(JobsError::Incompatible(why)) => self.leave(run, why).await,
            put => put?,
        }
        self.runs.note_failed(run, stage).await;
        self.patiently(|| set_active(&self.fleet, run, false)).await?;
        let error = failure.error;
        self.tell(WorkerEvent::Failed { run, key, stage, error, attempts, given_up: true });
        Ok(())
    }

    fn shunned(&self) -> MutexGuard<'_, BTreeMap<StageDigest, Instant>> {
        self.shunned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the stage failed here a while ago and somebody else of our class is there to try it.
    async fn is_better_elsewhere(&self, stage: StageDigest) -> Result<bool, JobsError> {
        let shunned = {
            let mut shunned = self.shunned();
            shunned.retain(|_, until| Instant::now() < *until);
            shunned.contains_key(&stage)
        };
        if !shunned {
            return Ok(false);
        }
        let all = self.patiently(|| workers(&self.fleet)).await?;
        let (class, name) = (self.options.numerics, &self.options.name);
        Ok(all.iter().any(|worker| worker.class == class && worker.name != *name))
    }
}
