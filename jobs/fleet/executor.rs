//! The executor: takes stages one by one and computes each, while the result before it is stored and published.
//!
//! One loop for a run in one process and for a worker of a fleet; the [`Coordinator`] decides about attempts and about
//! what follows. At most one result is being stored while another one is computed. Nothing is published of a stage whose
//! lease was released or lost.

use std::sync::Arc;
use std::time::Duration;

use agrpo_spec::Manifest;
use agrpo_store::{JobsError, failpoints::fail_point, retry};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tracing::Instrument;

use crate::Result;
use crate::coordination::heartbeat::Heartbeat;
use crate::coordination::leases::{Gate, StageLease};
use crate::coordinator::{Attempt, Coordinator, End};
use crate::metrics;
use crate::stage::Computed;

/// How long a result that is being published may take when the executor ends with an error.
const LAST: Duration = Duration::from_secs(60);
/// How often a lease that may have expired is asked for again.
const ASK: Duration = Duration::from_millis(200);

/// Deals with stages one by one until there are no more, or until the worker has to end.
pub(crate) async fn work<C: Coordinator>(coordinator: Arc<C>, mut source: C::Source) -> Result<()> {
    let mut executor = Executor { coordinator, publishing: JoinSet::new() };
    let worked = executor.take_all(&mut source).await;
    drop(source);
    let cleared = match worked {
        Ok(()) => executor.clear().await,
        Err(_) => timeout(LAST, executor.clear()).await.unwrap_or(Ok(())),
    };
    first_of(worked, cleared)
}

struct Executor<C> {
    coordinator: Arc<C>,
    /// Results on their way to the store.
    publishing: JoinSet<Result<()>>,
}

impl<C: Coordinator> Executor<C> {
    async fn take_all(&mut self, source: &mut C::Source) -> Result<()> {
        let coordinator = Arc::clone(&self.coordinator);
        let fatal = async || match coordinator.heartbeat() {
            Some(heartbeat) => heartbeat.fatal().await,
            None => std::future::pending().await,
        };
        loop {
            let is_idle = self.publishing.is_empty();
            let taken = tokio::select! {
                error = fatal() => return Err(error),
                Some(published) = self.publishing.join_next() => {
                    joined(published)?;
                    continue;
                }
                taken = coordinator.next(source, is_idle) => taken,
            };
            let Some(taken) = taken else { return Ok(()) };
            tokio::select! {
                error = fatal() => return Err(error),
                handled = self.handle(taken) => handled?,
            }
        }
    }

    async fn handle(&mut self, taken: C::Taken) -> Result<()> {
        if let Some((attempt, taken)) = self.coordinator.begin(taken).await? {
            let span = attempt.span.clone();
            let ended = self.attempt(attempt).instrument(span).await;
            // Also after an error: what becomes of the stage is decided.
            self.coordinator.acknowledge(taken);
            return ended;
        }
        Ok(())
    }

    /// Computes a stage, and leaves its outputs to a task of their own.
    async fn attempt(&mut self, attempt: Attempt) -> Result<()> {
        let coordinator = &self.coordinator;
        metrics::attempt(attempt.key.kind, attempt.number);
        let _in_hand = metrics::stage_begun(attempt.environment.started_unix_ms);
        let recompute = coordinator.recompute(attempt.run);
        let calculate = || recompute.calculate(&attempt.spec);
        let computed = tokio::select! {
            biased;
            _ = attempt.lease.ended() => None,
            computed = with_retry(&**coordinator, calculate) => Some(computed),
        };
        if let Some(heartbeat) = coordinator.heartbeat() {
            heartbeat.show(None);
        }
        match computed {
            Some(Ok(computed)) => {
                attempt.lease.computed();
                self.clear().await?;
                let publish = publish(Arc::clone(&self.coordinator), attempt, computed);
                self.publishing.spawn(publish.in_current_span());
                Ok(())
            }
            Some(Err(error)) => coordinator.ended(End::Failed(attempt, error)).await,
            None => coordinator.ended(End::StoodDown(attempt)).await,
        }
    }

    /// Waits for everything that is being published; the first error.
    async fn clear(&mut self) -> Result<()> {
        let mut first = Ok(());
        while let Some(published) = self.publishing.join_next().await {
            first = first_of(first, joined(published));
        }
        first
    }
}

async fn publish<C: Coordinator>(
    coordinator: Arc<C>,
    attempt: Attempt,
    computed: Computed,
) -> Result<()> {
    let published = store_result(&*coordinator, &attempt, computed).await;
    let end = match published.transpose() {
        None => End::StoodDown(attempt),
        Some(Err(error)) => End::Failed(attempt, error),
        Some(Ok(manifest)) => {
            End::Published { attempt, manifest: Arc::new(manifest), is_reused: false }
        }
    };
    coordinator.ended(end).await
}

/// Stores the outputs of a stage, then its manifest; the manifest that stands may be of another worker who was faster,
/// which the run notes. `None` where the stage is no longer ours.
async fn store_result(
    coordinator: &impl Coordinator,
    attempt: &Attempt,
    computed: Computed,
) -> Result<Option<Manifest>> {
    let Attempt { run, spec, environment, .. } = attempt;
    let recompute = coordinator.recompute(*run);
    let put = || recompute.put(spec, &computed, environment);
    let manifest = tokio::select! {
        stored = with_retry(coordinator, put) => stored?,
        _ = attempt.lease.ended() => return Ok(None),
    };
    let store = &recompute.store;
    if !may_publish(coordinator, &attempt.lease).await {
        return Ok(None);
    }
    fail_point("stage::before-manifest");
    let standing = with_retry(coordinator, || store.records.publish(&manifest)).await;
    fail_point("stage::after-manifest");
    let standing = standing?;
    if standing.environment.worker != environment.worker {
        with_retry(coordinator, || store.records.record_twice(*run, standing.stage)).await?;
    }
    Ok(Some(standing))
}

/// Retries while a service is unavailable, unless the worker has to end; without a heartbeat, tries once.
pub(crate) async fn with_retry<T, F: Future<Output = Result<T>>>(
    coordinator: &impl Coordinator,
    mut exchange: impl FnMut() -> F,
) -> Result<T> {
    let Some(heartbeat) = coordinator.heartbeat() else { return exchange().await };
    retry::with_retry(heartbeat.retry_for(), || !heartbeat.is_fatal(), exchange).await
}

/// Whether the stage is still ours; waits for an answer where that is not sure.
async fn may_publish(coordinator: &impl Coordinator, lease: &StageLease) -> bool {
    loop {
        let is_fatal = coordinator.heartbeat().is_some_and(Heartbeat::is_fatal);
        match lease.publish(is_fatal) {
            Gate::Open => return true,
            Gate::Closed => return false,
            Gate::Unsure => drop(timeout(ASK, lease.changed()).await),
        }
    }
}

/// Of two ends the first error is returned; the second is logged.
pub(crate) fn first_of(first: Result<()>, second: Result<()>) -> Result<()> {
    match (first, second) {
        (Err(first), Err(second)) => {
            tracing::warn!(error = %second, "another error while the worker ends");
            Err(first)
        }
        (first, second) => first.and(second),
    }
}

pub(crate) fn joined(ended: Result<Result<()>, JoinError>) -> Result<()> {
    ended.unwrap_or_else(|error| Err(JobsError::internal(format!("a task ended early: {error}"))))
}
