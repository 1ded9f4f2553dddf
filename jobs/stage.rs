//! One stage from spec to manifest: the same path for a run in one process and for a fleet.
//!
//! A result that the store already has is taken as it is. The manifest is written after every output
//! is stored, so a death anywhere leaves either a whole result or none. Decides nothing about retries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use agrpo_spec::{
    Environment, ExecuteFn, Inputs, Manifest, Outputs, Phases, StageError, StageSpec,
};

use crate::clock::Clock;
use crate::error::JobsError;
use crate::store::Store;

/// Gives a stage's manifest, and whether it was there already. Failed where the stage itself gives
/// up, data error where an input is not what it should be.
pub async fn compute(
    store: &Store,
    spec: &StageSpec,
    execute: &ExecuteFn,
    environment: &Environment,
    clock: &Clock,
) -> Result<(Manifest, bool), JobsError> {
    match store.complete_manifest(spec.digest()).await? {
        Some(manifest) => Ok((manifest, true)),
        None => Ok((compute_anew(store, spec, execute, environment, clock).await?, false)),
    }
}

/// Computes a stage without looking for its result first, and publishes it.
pub async fn compute_anew(
    store: &Store,
    spec: &StageSpec,
    execute: &ExecuteFn,
    environment: &Environment,
    clock: &Clock,
) -> Result<Manifest, JobsError> {
    let environment = Environment { started_unix_ms: clock(), ..environment.clone() };
    let fetching = Instant::now();
    let inputs = store.load_inputs(spec).await?;
    let fetch_ms = milliseconds(fetching);
    let computing = Instant::now();
    let outputs = run_blocking(spec, inputs, execute).await?;
    let compute_ms = milliseconds(computing);
    check_metrics(spec, &outputs.metrics)?;
    let storing = Instant::now();
    let records = store.put_outputs(&outputs).await?;
    let phases = Phases { fetch_ms, compute_ms, store_ms: milliseconds(storing) };
    let manifest = Manifest {
        stage: spec.digest(),
        spec: spec.clone(),
        outputs: records,
        metrics: outputs.metrics,
        environment,
        phases,
    };
    store.publish(&manifest).await
}

/// Runs a stage where blocking is allowed.
pub(crate) async fn run_blocking(
    spec: &StageSpec,
    inputs: Inputs,
    execute: &ExecuteFn,
) -> Result<Outputs, JobsError> {
    let (execute, shared) = (Arc::clone(execute), spec.clone());
    let result = tokio::task::spawn_blocking(move || execute(&shared, &inputs)).await;
    let name = || format!("{} stage {}", spec.kind(), spec.digest().short());
    match result {
        Ok(Ok(outputs)) => Ok(outputs),
        Ok(Err(StageError::Invalid(why) | StageError::Internal(why))) => {
            Err(JobsError::Failed(format!("{} failed: {why}", name())))
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
        Some((name, value)) => Err(JobsError::Failed(format!(
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
