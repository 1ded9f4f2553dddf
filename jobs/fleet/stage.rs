//! One stage from spec to manifest: the same path for a run in one process and for a fleet.
//!
//! The manifest is written after every output is stored, so a death anywhere leaves either a whole result
//! or none. Decides nothing about retries, and makes no lost input again: `recompute.rs` does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use agrpo_spec::{
    Environment, ExecuteFn, Inputs, Manifest, Outputs, Phases, StageError, StageSpec,
};

use agrpo_store::Clock;
use agrpo_store::JobsError;
use agrpo_store::Store;
use agrpo_store::failpoints::fail_point;
use agrpo_store::span;

/// Computes a stage without looking for its result first, and publishes it.
pub(crate) async fn compute_anew(
    store: &Store,
    spec: &StageSpec,
    execute: &ExecuteFn,
    environment: &Environment,
    clock: &Clock,
) -> Result<Manifest, JobsError> {
    let environment = Environment { started_unix_ms: clock(), ..environment.clone() };
    let fetched = fetch(store, spec).await?;
    finish(store, spec, fetched, execute, &environment).await
}

/// All that comes after the first part.
pub(crate) async fn finish(
    store: &Store,
    spec: &StageSpec,
    fetched: Fetched,
    execute: &ExecuteFn,
    environment: &Environment,
) -> Result<Manifest, JobsError> {
    let computed = calculate(spec, fetched, execute).await?;
    let manifest = put(store, spec, &computed, environment).await?;
    store.publish(&manifest).await
}

/// A stage's inputs, all of them checked.
pub(crate) struct Fetched {
    inputs: Inputs,
    ms: f64,
}

/// What a stage made, not stored yet.
pub(crate) struct Computed {
    outputs: Outputs,
    fetch_ms: f64,
    compute_ms: f64,
}

/// First part: reads the inputs. May be tried again.
pub(crate) async fn fetch(store: &Store, spec: &StageSpec) -> Result<Fetched, JobsError> {
    let begin = Instant::now();
    let inputs = store.load_inputs(spec).await?;
    Ok(Fetched { inputs, ms: milliseconds(begin) })
}

/// Second part: the stage itself.
pub(crate) async fn calculate(
    spec: &StageSpec,
    fetched: Fetched,
    execute: &ExecuteFn,
) -> Result<Computed, JobsError> {
    let begin = Instant::now();
    let outputs = run_blocking(spec, fetched.inputs, execute).await?;
    let compute_ms = milliseconds(begin);
    check_metrics(spec, &outputs.metrics)?;
    Ok(Computed { outputs, fetch_ms: fetched.ms, compute_ms })
}

/// Third part: stores the outputs; the manifest is for the caller to publish. May be tried again.
pub(crate) async fn put(
    store: &Store,
    spec: &StageSpec,
    computed: &Computed,
    environment: &Environment,
) -> Result<Manifest, JobsError> {
    let begin = Instant::now();
    fail_point("stage::before-blobs");
    let records = store.put_outputs(&computed.outputs).await?;
    fail_point("stage::after-blobs");
    let &Computed { fetch_ms, compute_ms, .. } = computed;
    let phases = Phases { fetch_ms, compute_ms, store_ms: milliseconds(begin) };
    Ok(Manifest {
        stage: spec.digest(),
        spec: spec.clone(),
        outputs: records,
        metrics: computed.outputs.metrics.clone(),
        environment: environment.clone(),
        phases,
    })
}

/// Runs a stage where blocking is allowed. Whatever it makes of an input that turned out to be damaged
/// while it was read, the answer is the loss of that input.
pub(crate) async fn run_blocking(
    spec: &StageSpec,
    inputs: Inputs,
    execute: &ExecuteFn,
) -> Result<Outputs, JobsError> {
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
    let name = || format!("{} stage {}", spec.kind(), spec.digest().short());
    match result {
        Ok(Ok(outputs)) => Ok(outputs),
        // Another release may compute what this one refuses.
        Ok(Err(StageError::Invalid(why))) if spec.version() == spec.kind().version() => {
            Err(JobsError::Refused(format!("{} failed: {why}", name())))
        }
        Ok(Err(StageError::Invalid(why) | StageError::Internal(why))) => {
            Err(JobsError::Failed(format!("{} failed: {why}", name())))
        }
        Ok(Err(StageError::Device(why))) => {
            Err(JobsError::Device(format!("{} failed: {why}", name())))
        }
        Ok(Err(StageError::Data(why))) => {
            Err(JobsError::Data(format!("{} cannot use an input: {why}", name())))
        }
        Err(panic) => Err(JobsError::Failed(format!("{} panicked: {panic}", name()))),
    }
}

/// JSON has no NaN: a metric that is not finite would make the manifest unreadable.
fn check_metrics(spec: &StageSpec, metrics: &BTreeMap<String, f64>) -> Result<(), JobsError> {
    match metrics.iter().find(|(_, value)| !value.is_finite()) {
        Some((name, value)) => Err(JobsError::Refused(format!(
            "{} stage {} failed: its metric {name} is {value}, expected a finite number",
            spec.kind(),
            spec.digest().short()
        ))),
        None => Ok(()),
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
