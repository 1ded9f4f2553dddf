//! One stage from spec to manifest: the same path for a run in one process and for a fleet.
//!
//! The manifest is written after every output is stored, so a death anywhere leaves either a whole result
//! or none. Decides nothing about retries, and makes no lost input again: `recompute.rs` does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use agrpo_spec::{
    Environment, ExecuteFn, Inputs, Manifest, Message, Outputs, Phases, StageDigest, StageError,
    StageKey, StageSpec,
};
use agrpo_store::{JobsError, Store, failpoints::fail_point, span};

use crate::Result;

/// A stage of a run that can be computed now.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) key: StageKey,
    pub(crate) stage: StageDigest,
    pub(crate) spec: StageSpec,
}

impl Pending {
    pub(crate) fn new(key: StageKey, spec: &StageSpec) -> Self {
        Self { key, stage: spec.digest(), spec: spec.clone() }
    }
}

/// The inputs of a stage, all of them checked, and the milliseconds that it took.
pub(crate) type Fetched = (Inputs, f64);

/// The outputs of a stage, not stored yet.
pub(crate) struct Computed {
    outputs: Outputs,
    phases: Phases,
}

/// First part: reads the inputs. May be tried again.
pub(crate) async fn fetch(store: &Store, spec: &StageSpec) -> Result<Fetched> {
    let begin = Instant::now();
    let inputs = store.cas.load_inputs(spec).await?;
    Ok((inputs, milliseconds(begin)))
}

/// Second part: the stage itself.
pub(crate) async fn calculate(
    spec: &StageSpec,
    (inputs, fetch_ms): Fetched,
    execute: &ExecuteFn,
) -> Result<Computed> {
    let begin = Instant::now();
    let outputs = run_blocking(spec, inputs, execute).await?;
    let phases = Phases { fetch_ms, compute_ms: milliseconds(begin), store_ms: 0.0 };
    check_metrics(spec, &outputs.metrics)?;
    Ok(Computed { outputs, phases })
}

/// Third part: stores the outputs; the manifest is for the caller to publish. May be tried again.
pub(crate) async fn put(
    store: &Store,
    spec: &StageSpec,
    computed: &Computed,
    environment: &Environment,
) -> Result<Manifest> {
    let begin = Instant::now();
    fail_point("stage::before-blobs");
    let outputs = store.cas.put_outputs(&computed.outputs).await?;
    fail_point("stage::after-blobs");
    Ok(Manifest {
        stage: spec.digest(),
        spec: spec.clone(),
        outputs,
        metrics: computed.outputs.metrics.clone(),
        environment: environment.clone(),
        phases: Phases { store_ms: milliseconds(begin), ..computed.phases },
    })
}

/// Runs a stage where blocking is allowed. An input that turned out to be damaged while it was read is reported as
/// lost, whatever the stage made of it.
pub(crate) async fn run_blocking(
    spec: &StageSpec,
    inputs: Inputs,
    execute: &ExecuteFn,
) -> Result<Outputs> {
    let (execute, shared) = (Arc::clone(execute), spec.clone());
    let inputs = Arc::new(inputs);
    let read = Arc::clone(&inputs);
    let work = span::carried(move || {
        tracing::debug!("computing");
        execute(&shared, &inputs)
    });
    let result = tokio::task::spawn_blocking(work).await;
    if let Some(digest) = read.damaged() {
        return Err(JobsError::damaged(digest));
    }
    let error = match result {
        Ok(Ok(outputs)) => return Ok(outputs),
        Ok(Err(error)) => error,
        Err(panic) => return Err(JobsError::failed(format!("{} panicked: {panic}", name(spec)))),
    };
    // Another release may compute what this one refuses.
    let is_current = spec.version() == spec.kind().version();
    let (meaning, verb): (fn(Message) -> JobsError, _) = match error {
        StageError::Invalid(_) if is_current => (JobsError::Refused, "failed"),
        StageError::Invalid(_) | StageError::Internal(_) => (JobsError::Failed, "failed"),
        StageError::Device(_) => (JobsError::Device, "failed"),
        StageError::Data(_) => (JobsError::Data, "cannot use an input"),
    };
    Err(meaning(Message::caused_by(format!("{} {verb}: {error}", name(spec)), error)))
}

/// JSON has no NaN: a metric that is not finite would make the manifest unreadable.
fn check_metrics(spec: &StageSpec, metrics: &BTreeMap<String, f64>) -> Result<()> {
    match metrics.iter().find(|(_, value)| !value.is_finite()) {
        Some((metric, value)) => Err(JobsError::refused(format!(
            "{} failed: its metric {metric} is {value}, expected a finite number",
            name(spec)
        ))),
        None => Ok(()),
    }
}

fn name(spec: &StageSpec) -> String {
    format!("{} stage {}", spec.kind(), spec.digest().short())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
