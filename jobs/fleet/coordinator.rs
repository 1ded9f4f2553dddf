//! Where executors take stages from, and to whom they hand what becomes of them.
//!
//! There are two coordinators: one in memory for a run in one process (`local.rs`), and one for the workers of a fleet
//! that meet in Redis (`worker/coordinator.rs`). The values that pass between an executor and its coordinator are here.

use std::sync::Arc;

use agrpo_spec::{Environment, Manifest, RunId, StageDigest, StageKey, StageSpec};
use agrpo_store::{Clock, Failure, JobsError};
use tracing::Span;

use crate::Result;
use crate::coordination::heartbeat::Heartbeat;
use crate::coordination::leases::StageLease;
use crate::maintenance::recompute::Recompute;
use crate::stage::Pending;

/// The last log lines since a moment, in milliseconds since 1970, oldest first.
pub type LogTail = Arc<dyn Fn(u64) -> Vec<String> + Send + Sync>;

/// A stage that an executor has to itself, and its present start.
pub(crate) struct Attempt {
    pub(crate) run: RunId,
    pub(crate) key: StageKey,
    pub(crate) stage: StageDigest,
    pub(crate) spec: StageSpec,
    /// Held until the result is published.
    pub(crate) lease: Arc<StageLease>,
    /// How often the stage was begun, with this start.
    pub(crate) number: u32,
    /// What the manifest says of this machine and of the start.
    pub(crate) environment: Environment,
    pub(crate) span: Span,
}

impl Attempt {
    /// A stage that is not begun yet.
    pub(crate) fn new(
        run: RunId,
        Pending { key, stage, spec }: Pending,
        lease: Arc<StageLease>,
        environment: Environment,
    ) -> Self {
        // An error's level, so that no filter that lets a line pass takes its ids away. Other threads get the span by
        // `agrpo_store::span::carried`, as `tracing` does not take it there.
        let span =
            tracing::error_span!("stage", %run, %stage, %key, attempt = tracing::field::Empty);
        Self { run, key, stage, spec, lease, number: 0, environment, span }
    }

    /// Notes that the stage is begun for the `number`th time, counted from 1.
    pub(crate) fn begin(&mut self, number: u32, unix_ms: u64) {
        self.span.record("attempt", number);
        (self.number, self.environment.started_unix_ms) = (number, unix_ms);
    }

    /// What is recorded where the stage is given up.
    pub(crate) fn failure(&self, error: &JobsError, clock: &Clock, log_tail: &LogTail) -> Failure {
        let environment = Environment { attempt: None, ..self.environment.clone() };
        Failure {
            key: self.key,
            stage: self.stage,
            error: error.to_string(),
            remedy: error.remedy(),
            worker: environment.worker.clone(),
            attempts: self.number,
            unix_ms: clock(),
            log: log_tail(environment.started_unix_ms),
            environment,
        }
    }
}

/// What became of an attempt.
pub(crate) enum End {
    /// The result stands in the store, and stood there before the stage was begun where it is reused.
    Published {
        attempt: Attempt,
        manifest: Arc<Manifest>,
        is_reused: bool,
    },
    Failed(Attempt, JobsError),
    /// Its lease was released or lost.
    StoodDown(Attempt),
}

/// Hands out stages, and receives what becomes of them. An error of any method ends the executor.
pub(crate) trait Coordinator: Send + Sync + 'static {
    /// Where one executor takes stages from.
    type Source: Send;
    /// A stage as it comes from there.
    type Taken: Send;

    /// What computing a stage of a run takes.
    fn recompute(&self, run: RunId) -> Recompute;

    /// What renews the leases and says whether the worker has to end.
    fn heartbeat(&self) -> Option<&Heartbeat> {
        None
    }

    /// Waits for a stage; `None` where there are no more. May be dropped at any moment.
    fn next(
        &self,
        source: &mut Self::Source,
        is_idle: bool,
    ) -> impl Future<Output = Option<Self::Taken>> + Send;

    /// Claims a stage, so that no other executor computes it, and counts its start; `None` where it is not to be computed
    /// here.
    fn begin(
        &self,
        taken: Self::Taken,
    ) -> impl Future<Output = Result<Option<(Attempt, Self::Taken)>>> + Send;

    /// Receives a stage that was dealt with: its result is being published at most.
    fn acknowledge(&self, taken: Self::Taken);

    /// Receives what became of an attempt; answers once what follows from it is offered.
    fn ended(&self, end: End) -> impl Future<Output = Result<()>> + Send;
}
