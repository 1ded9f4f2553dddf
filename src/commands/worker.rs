//! `agrpo worker`: computes queued stages until a signal stops it. Queue and store decide which stages it computes;
//! this file only names the worker, sets its numerics class and handles signals.

use std::time::Duration;

use agrpo_fleet::{Event, Fleet, WorkerOptions};
use agrpo_spec::Numerics;
use agrpo_store::JobsError;
use tokio::sync::{mpsc, watch};

use super::prelude::{ComputeDevice, Exit, Result, Session, machine, output};
use crate::signals::{end_at_once, on_signals};
use crate::{args::WorkerArgs, metrics::Metrics, numerics, supervisor::Supervisor, telemetry};

/// How long a worker without a fixed class waits before it checks the other queues.
const CHECK_OTHERS: Duration = Duration::from_secs(2);
/// How long the release of the current stage may take.
const RELEASE: Duration = Duration::from_secs(5);

pub(super) fn worker(args: &WorkerArgs, session: &Session) -> Result<Exit> {
    let device = ComputeDevice::find(args.device.id, &session.settings)?;
    let fixed = args.numerics.or(device.class());
    let entered = numerics::entered(&session.settings).filter(|class| !class.is_cuda());
    let class = fixed.or(entered).unwrap_or_default();
    device.enter(&session.settings, class, None)?;
    let wanted = session.block_on(async {
        work(args, session, &device, class, fixed.is_none()).await.inspect_err(|failure| {
            output::talk(failure.to_string());
            end_at_once(failure.exit)
        })
    })?;
    let Some(other) = wanted else { return Ok(Exit::Done) };
    tracing::info!(numerics = %other, "starting again for the stages of another class");
    device.enter(&session.settings, other, None).map(|()| Exit::Done)
}

/// Serves one class; returns another one if only that has stages.
async fn work(
    args: &WorkerArgs,
    session: &Session,
    device: &ComputeDevice,
    class: Numerics,
    may_change: bool,
) -> Result<Option<Numerics>> {
    let store = session.cached_store(&args.cache).await?;
    let fleet = session.fleet().await?;
    let environment = device.environment();
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
    let execute = device.execute();
    #[cfg(debug_assertions)]
    let execute = crate::failpoints::witness(execute, &session.settings)?;
    let (events, mut happened) = mpsc::unbounded_channel();
    let serving = agrpo_fleet::serve(store, fleet.clone(), execute, options, events, stopped);
    tokio::pin!(serving);
    let (mut wanted, mut in_hand) = (None, false);
    let worked = loop {
        let check_others = async {
            tokio::time::sleep(CHECK_OTHERS).await;
            elsewhere(&fleet, class).await
        };
        tokio::select! {
            worked = &mut serving => break worked,
            Some(event) = happened.recv() => {
                in_hand = matches!(event, Event::Started { .. });
                supervisor.happened(&event);
            }
            () = supervisor.turn() => {}
            Ok(()) = signals.changed(), if !*stop.borrow() => {
                supervisor.stopping();
                stop.send_replace(true);
            }
            found = check_others, if may_change && !in_hand && !*stop.borrow() => {
                wanted = found?;
                stop.send_replace(wanted.is_some());
            }
        }
    };
    worked?;
    tracing::info!("stopped; nothing is in hand");
    if *signals.borrow() {
        // A stage that was released may still be computing on its thread: the end does not wait for it.
        end_at_once(Exit::Done);
    }
    Ok(wanted)
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

/// Another class that has queued stages, if this one has none.
async fn elsewhere(fleet: &Fleet, class: Numerics) -> Result<Option<Numerics>> {
    let waiting = async |class| match fleet.waiting(class).await {
        // Whether Redis was away too long is decided by the worker itself.
        Err(JobsError::Unavailable(_) | JobsError::Misconfigured { .. }) => Ok(0),
        waiting => waiting,
    };
    if waiting(class).await? > 0 {
        return Ok(None);
    }
    for other in Numerics::OF_CPU {
        if other != class && waiting(other).await? > 0 {
            return Ok(Some(other));
        }
    }
    Ok(None)
}
