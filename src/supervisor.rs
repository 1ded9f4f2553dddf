//! Notifies systemd that a worker is ready, what it computes, that it is alive, and that it stops. Does nothing
//! without systemd. The watchdog is notified only while the worker's loop turns and its heartbeat runs, so systemd
//! kills a worker that hangs, and its stage goes to another one.

use std::time::Duration;

use agrpo_fleet::{Event, Liveness};
use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Notifications for each period of the watchdog.
const NOTIFICATIONS: u32 = 3;
/// How often the loop turns without a watchdog.
const WITHOUT_WATCHDOG: Duration = Duration::from_secs(60);

/// The connection to the service manager.
#[derive(Debug)]
pub(crate) struct Supervisor {
    /// The watchdog's period; none without one.
    period: Option<Duration>,
    ticks: Interval,
    liveness: Liveness,
}

impl Supervisor {
    /// Reads whether a watchdog is set; to be made where the loop runs.
    pub(crate) fn new(liveness: Liveness) -> Self {
        let period = sd_notify::watchdog_enabled();
        let mut ticks = interval(period.map_or(WITHOUT_WATCHDOG, |period| period / NOTIFICATIONS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { period, ticks, liveness }
    }

    /// Store and Redis have answered.
    pub(crate) fn ready(&self) {
        notify(&[NotifyState::Ready, NotifyState::Status("waiting for stages")]);
    }

    /// Shows the current stage.
    pub(crate) fn happened(&self, event: &Event) {
        let status = match event {
            Event::Started { run, key, stage } => {
                format!("computing {key}, stage {}, run {}", stage.short(), run.short())
            }
            Event::Settled { key, .. } => format!("waiting for stages; {key} is done"),
            Event::Failed { failure, .. } => format!("waiting for stages; {} failed", failure.key),
            _ => return,
        };
        notify(&[NotifyState::Status(&status)]);
    }

    /// The worker received a signal to stop.
    pub(crate) fn stopping(&self) {
        notify(&[NotifyState::Stopping, NotifyState::Status("finishing the stage in hand")]);
    }

    /// Waits for the next notification and sends it. May be dropped at any moment.
    pub(crate) async fn turn(&mut self) {
        self.ticks.tick().await;
        let Some(period) = self.period else { return };
        if self.liveness.age() < period {
            notify(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("the heartbeat has stopped: leaving this worker to its watchdog");
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not notified");
    }
}
