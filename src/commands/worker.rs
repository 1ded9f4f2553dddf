//! `agrpo worker`: computes queued stages until told to stop.
//!
//! What it takes, and from whom, is decided by the queue and the store; this
//! file only names the worker, fixes its numerics and listens for signals.

use std::time::Duration;

use agrpo_jobs::{Fleet, JobsError, WorkerEvent, WorkerOptions};
use agrpo_spec::Numerics;
use tokio::sync::{mpsc, watch};

use crate::cli::WorkerArgs;
use crate::commands::{block_on, cached_store, on_signals};
use crate::exit::{Exit, Failure};
use crate::machine;
use crate::metrics::Metrics;
use crate::numerics;
use crate::output;
use crate::place::Place;
use crate::settings::Settings;
use crate::supervisor::Supervisor;
use crate::telemetry;

/// How long a worker without a class of its own waits before it looks at the other queue.
const RESTLESS: Duration = Duration::from_secs(2);
/// How long giving back what is in hand may take.
const SOON: Duration = Duration::from_secs(5);

/// Works until stopped or idle for too long.
pub(super) fn worker(args: &WorkerArgs, settings: &Settings) -> Result<Exit, Failure> {
    let place = Place::find(args.device.device, settings)?;
    let fixed = args.numerics.or(place.class());
    let entered = numerics::entered(settings).filter(|class| !class.is_cuda());
    let class = fixed.or(entered).unwrap_or_default();
    place.enter(settings, class, None)?;
    let worked = block_on(async {
        match work(args, settings, &place, class, fixed.is_none()).await {
            Ok(Worked { wanted, stopped: false }) => Ok(wanted),
            // A stage that was given up may still be computing on its thread: nobody waits for it.
            Ok(Worked { stopped: true, .. }) => Exit::Done.at_once(),
            Err(failure) => {
                output::talk(failure.to_string());
                failure.exit().at_once()
            }
        }
    })?;
    match worked {
        Some(other) => {
            tracing::info!(numerics = %other, "starting again for the stages of another class");
            place.enter(settings, other, None).map(|()| Exit::Done)
        }
        None => Ok(Exit::Done),
    }
}

/// How a worker ended.
struct Worked {
    /// Another class, if that is where the work is.
    wanted: Option<Numerics>,
    /// It was told to, so a stage may have been given back.
    stopped: bool,
}

/// Serves one class.
async fn work(
    args: &WorkerArgs,
    settings: &Settings,
    place: &Place,
    class: Numerics,
    may_change: bool,
) -> Result<Worked, Failure> {
    let flag = args.store.store.as_deref();
    let store = cached_store(settings, flag, &args.cache).await?;
    let fleet = Fleet::connect(&settings.redis(args.redis.redis.as_deref()).value).await?;
    let environment = place.environment();
    let name = environment.worker.clone();
    agrpo_jobs::require(&fleet, &name).await?;
    let mut metrics = Metrics::listen(args.metrics.metrics, settings, &name, class).await?;
    metrics.watch(fleet.clone(), class);
    let (stop, stopped) = watch::channel(false);
    let (hurry, hurrying) = watch::channel(false);
    let (told, mut heard) = watch::channel(false);
    let options = WorkerOptions {
        exit_when_idle: args.exit_when_idle.map(Duration::from_secs),
        patience: Duration::from_secs(args.patience),
        grace: Some(Duration::from_secs(args.grace)),
        hurry: hurrying,
        log_tail: telemetry::log_tail(),
        device: place.device.to_string(),
        pid: std::process::id(),
        ..WorkerOptions::new(class, name.clone(), environment, machine::clock())
    };
    heed_signals(told, hurry)?;
    tracing::info!(
        worker = name,
        numerics = %class,
        device = %place.device,
        store = store.url(),
        redis = fleet.place(),
        "waiting for stages"
    );
    let mut supervisor = Supervisor::new(options.vitals.clone());
    supervisor.ready();
    let execute = place.execute();
    #[cfg(feature = "failpoints")]
    let execute = crate::failpoints::witness(execute, settings)?;
    let (events, mut happened) = mpsc::unbounded_channel();
    let serving = agrpo_jobs::serve(store, fleet.clone(), execute, options, events, stopped);
    tokio::pin!(serving);
    let (mut wanted, mut in_hand) = (None, false);
    let worked = loop {
        let look_around = async {
            tokio::time::sleep(RESTLESS).await;
            elsewhere(&fleet, class).await
        };
        tokio::select! {
            worked = &mut serving => break worked,
            Some(event) = happened.recv() => {
                in_hand = matches!(event, WorkerEvent::Started { .. });
                supervisor.happened(&event);
            }
            () = supervisor.turn() => {}
            Ok(()) = heard.changed(), if !*stop.borrow() => {
                supervisor.stopping();
                stop.send_replace(true);
            }
            found = look_around, if may_change && !in_hand && !*stop.borrow() => {
                wanted = found?;
                stop.send_replace(wanted.is_some());
            }
        }
    };
    worked?;
    tracing::info!("stopped; nothing is in hand");
    let stopped = *heard.borrow();
    Ok(Worked { wanted: wanted.filter(|_| !stopped), stopped })
}

/// The first signal lets the stage in hand be finished, the second has it given back, the third ends the program.
fn heed_signals(told: watch::Sender<bool>, hurry: watch::Sender<bool>) -> Result<(), Failure> {
    on_signals(move |first| {
        if first {
            tracing::info!("told to stop; finishing the stage in hand");
            told.send_replace(true);
        } else if hurry.send_replace(true) {
            Exit::Done.at_once();
        } else {
            tracing::info!("told to stop at once; giving the stage in hand back");
            end_soon();
        }
    })
}

/// Ends the program before long, whatever it waits for: a service may not answer any more. What is in hand
/// is then left to expire.
fn end_soon() {
    let ending = || {
        std::thread::sleep(SOON);
        tracing::warn!("ended without having given the stage in hand back");
        Exit::Done.at_once()
    };
    let thread = std::thread::Builder::new().name("ending".to_owned());
    if thread.spawn(ending).is_err() {
        Exit::Done.at_once();
    }
}

/// Another class that has stages waiting, if this one has none.
async fn elsewhere(fleet: &Fleet, class: Numerics) -> Result<Option<Numerics>, Failure> {
    let waiting = async |class| match fleet.waiting(class).await {
        // How long Redis may be away is decided where the stage in hand is.
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
