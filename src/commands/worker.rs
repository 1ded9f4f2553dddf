//! `agrpo worker`: computes queued stages until told to stop.
//!
//! One log line an event. What it takes, and from whom, is decided by the queue and the store; this
//! file only names the worker, fixes its numerics and listens for signals.

use std::sync::Arc;
use std::time::Duration;

use agrpo_jobs::{Fleet, WorkerEvent, WorkerOptions};
use tokio::sync::mpsc;

use crate::cli::{Device, WorkerArgs};
use crate::commands::{block_on, create_store, stop_signal};
use crate::exit::{Exit, Failure};
use crate::machine;
use crate::numerics;
use crate::settings::Settings;

/// Works until stopped or idle for too long.
pub(super) fn worker(args: &WorkerArgs, settings: &Settings) -> Result<Exit, Failure> {
    let class = args.numerics.0;
    match args.device {
        Device::Cpu => numerics::enter(settings, class, None)?,
    }
    block_on(async {
        let store = create_store(settings, args.store.store.as_deref()).await?;
        let fleet = Fleet::connect(&settings.redis(args.redis.redis.as_deref()).value).await?;
        let environment = machine::environment();
        let name = environment.worker.clone();
        let options = WorkerOptions {
            exit_when_idle: args.exit_when_idle.map(Duration::from_secs),
            ..WorkerOptions::new(class, name.clone(), environment, machine::clock())
        };
        let stop = stop_signal(|| tracing::info!("told to stop; finishing the stage in hand"))?;
        tracing::info!(
            worker = name,
            numerics = %class,
            store = store.url(),
            redis = fleet.place(),
            "waiting for stages"
        );
        let (events, mut happened) = mpsc::unbounded_channel();
        let work =
            agrpo_jobs::serve(store, fleet, Arc::new(agrpo_stages::execute), options, events, stop);
        let log = async {
            while let Some(event) = happened.recv().await {
                log(&event);
            }
        };
        let (worked, ()) = tokio::join!(work, log);
        worked?;
        tracing::info!("stopped; nothing is in hand");
        Ok(Exit::Done)
    })
}

fn log(event: &WorkerEvent) {
    match event {
        WorkerEvent::Started { run, key, stage } => {
            tracing::debug!(run = run.short(), %key, %stage, "started");
        }
        WorkerEvent::Finished { run, key, manifest } => tracing::info!(
            run = run.short(),
            %key,
            stage = manifest.stage.short(),
            fetch_ms = rounded(manifest.phases.fetch_ms),
            compute_ms = rounded(manifest.phases.compute_ms),
            store_ms = rounded(manifest.phases.store_ms),
            "finished"
        ),
        WorkerEvent::Reused { run, key, manifest } => tracing::info!(
            run = run.short(),
            %key,
            stage = manifest.stage.short(),
            "already computed by {}",
            manifest.environment.worker
        ),
        WorkerEvent::Failed { run, key, stage, error, attempts, given_up } => tracing::error!(
            run = run.short(),
            %key,
            stage = stage.short(),
            attempts,
            given_up,
            "{error}"
        ),
        WorkerEvent::Unreadable { run, error } => tracing::error!(run = run.short(), "{error}"),
        WorkerEvent::Done { run } => tracing::info!(run = run.short(), "run is done"),
    }
}

/// A tenth of a millisecond is enough for people.
fn rounded(ms: f64) -> f64 {
    (ms * 10.0).round() / 10.0
}
