//! What systemd is told: ready, what is in hand, alive, stopping. Without systemd nobody is told.
//!
//! The program vouches for itself only while its loop turns and the heartbeat has its turns: what
//! hangs is killed by the watchdog, and its stage goes to another worker.

use std::time::Duration;

use agrpo_jobs::{Vitals, WorkerEvent};
use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Signs of life for each period of the watchdog.
const SIGNS: u32 = 3;
/// How often the loop turns where no watchdog looks.
const UNWATCHED: Duration = Duration::from_secs(60);

/// The way to the service manager.
#[derive(Debug)]
pub(crate) struct Supervisor {
    /// The watchdog's period.
    watched: Option<Duration>,
    ticks: Interval,
    vitals: Vitals,
}

impl Supervisor {
    /// Asks whether a watchdog looks; to be made where the loop runs.
    pub(crate) fn new(vitals: Vitals) -> Self {
        let watched = sd_notify::watchdog_enabled();
        let mut ticks = interval(watched.map_or(UNWATCHED, |period| period / SIGNS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { watched, ticks, vitals }
    }

    /// The services have answered.
    pub(crate) fn ready(&self) {
        tell(&[NotifyState::Ready, NotifyState::Status("waiting for stages")]);
    }

    /// Shows the stage in hand.
    pub(crate) fn happened(&self, event: &WorkerEvent) {
        match event {
            WorkerEvent::Started { run, key, stage } => {
                let status =
                    format!("computing {key}, stage {}, run {}", stage.short(), run.short());
                tell(&[NotifyState::Status(&status)]);
            }
            WorkerEvent::Finished { key, .. } | WorkerEvent::Reused { key, .. } => {
                tell(&[NotifyState::Status(&format!("waiting for stages; {key} is done"))]);
            }
            WorkerEvent::Failed { key, .. } => {
                tell(&[NotifyState::Status(&format!("waiting for stages; {key} failed"))]);
            }
            _ => {}
        }
    }

    /// The worker was told to stop.
    pub(crate) fn stopping(&self) {
        tell(&[NotifyState::Stopping, NotifyState::Status("finishing the stage in hand")]);
    }

    /// Waits for the next sign of life and gives it. May be dropped at any moment.
    pub(crate) async fn turn(&mut self) {
        self.ticks.tick().await;
        let Some(period) = self.watched else { return };
        if self.vitals.age() < period {
            tell(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("the heartbeat has stopped: leaving this worker to its watchdog");
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
