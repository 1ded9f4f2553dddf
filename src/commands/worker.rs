//! `agrpo worker`: computes queued stages of its device's numerics class until a signal stops it. Queue and store decide
//! which stages it computes; this file only names the worker and handles signals.

use std::time::Duration;

use agrpo_fleet::WorkerOptions;
use agrpo_spec::Numerics;
use tokio::sync::{mpsc, watch};

use super::prelude::{ComputeDevice, Exit, Result, Session, machine, output};
use crate::signals::{end_at_once, on_signals};
use crate::{args::WorkerArgs, metrics::Metrics, supervisor::Supervisor, telemetry};

/// Stages that a worker computes at the same time.
const AT_ONCE: usize = 1;

/// How long the release of the current stage may take.
const RELEASE: Duration = Duration::from_secs(5);

pub(super) fn worker(args: &WorkerArgs, session: &Session) -> Result<Exit> {
    let device = ComputeDevice::find(args.device.id, args.threads.count, &session.settings)?;
    let class = args.numerics.or(device.class()).unwrap_or_default();
    device.enter(&session.settings, class, None)?;
    session.block_on(async {
        work(args, session, &device, class).await.inspect_err(|failure| {
            output::talk(failure.to_string());
            end_at_once(failure.exit)
        })
    })
}

async fn work(
    args: &WorkerArgs,
    session: &Session,
    device: &ComputeDevice,
    class: Numerics,
) -> Result<Exit> {
    let store = session.cached_store(&args.cache).await?;
    let fleet = session.fleet().await?;
    let environment = device.environment(AT_ONCE);
    let name = environment.worker.clone();
    agrpo_fleet::require(&fleet, &name).await?;
    let mut metrics =
        Metrics::listen(args.metrics.metrics, &session.settings, &name, class).await?;
    metrics.watch(fleet.clone(), class);
    let (stop, stopped) = watch::channel(false);
    let (hurry, hurrying) = watch::channel(false);
    let (signalled, mut signals) = watch::channel(false);
    let options = WorkerOptions {
        exit_when_idle: args.exit_when_idle.map(Duration::from_secs),
        retry_for: Duration::from_secs(args.patience),
        grace: Some(Duration::from_secs(args.grace)),
        hurry: hurrying,
        log_tail: telemetry::log_tail(),
        device: device.id.to_string(),
        pid: std::process::id(),
        ..WorkerOptions::new(class, name.clone(), environment, machine::clock())
    };
    handle_signals(signalled, hurry)?;
    tracing::info!(
        worker = name,
        numerics = %class,
        device = %device.id,
        store = store.url(),
        redis = fleet.address(),
        "waiting for stages"
    );
    let mut supervisor = Supervisor::new(options.liveness.clone());
    supervisor.ready();
    let execute = device.execute(AT_ONCE);
    #[cfg(debug_assertions)]
    let execute = crate::failpoints::witness(execute, &session.settings)?;
    let (events, mut happened) = mpsc::unbounded_channel();
    let serving = agrpo_fleet::serve(store, fleet, execute, options, events, stopped);
    tokio::pin!(serving);
    let worked = loop {
        tokio::select! {
            worked = &mut serving => break worked,
            Some(event) = happened.recv() => supervisor.happened(&event),
            () = supervisor.turn() => {}
            Ok(()) = signals.changed(), if !*stop.borrow() => {
                supervisor.stopping();
                stop.send_replace(true);
            }
        }
    };
    worked?;
    tracing::info!("stopped; nothing is in hand");
    if *signals.borrow() {
        // A stage that was released may still be computing on its threads: the end does not wait for them.
        end_at_once(Exit::Done);
    }
    Ok(Exit::Done)
}

/// The first signal finishes the current stage, the second releases it, the third ends the program.
fn handle_signals(signalled: watch::Sender<bool>, hurry: watch::Sender<bool>) -> Result<()> {
    on_signals(move |first| {
        if first {
            tracing::info!("stopping; finishing the stage in hand");
            signalled.send_replace(true);
        } else if hurry.send_replace(true) {
            end_at_once(Exit::Done);
        } else {
            tracing::info!("stopping at once; giving the stage in hand back");
            end_soon();
        }
    })
}

/// Ends the program soon, even if a service no longer answers. The lease of the current stage then expires.
fn end_soon() {
    let ending = || {
        std::thread::sleep(RELEASE);
        tracing::warn!("ended without having given the stage in hand back");
        end_at_once(Exit::Done)
    };
    let thread = std::thread::Builder::new().name("ending".to_owned());
    if thread.spawn(ending).is_err() {
        end_at_once(Exit::Done);
    }
}
