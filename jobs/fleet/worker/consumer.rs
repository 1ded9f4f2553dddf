//! The consumer of the queue, rebuilt under a fresh name whenever it breaks.
//!
//! apalis ends its worker at the first lost answer. The stage in progress does not depend on it: the heartbeat renews its
//! lease, the executor goes on, and the consumer takes new hints once the executor is free.

use std::time::Duration;

use backon::BackoffBuilder;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::shared::{FAREWELL, Worker};
use crate::coordination::queue::{Delivery, Pace};
use agrpo_store::JobsError;
use agrpo_store::retry::pauses;

/// The longest pause before an exchange is built again.
const LONGEST: Duration = Duration::from_secs(2);
/// An exchange that lasted for so long has worked: no single answer takes this time.
const WORKED: Duration = Duration::from_secs(30);

type IdleSince = watch::Receiver<Option<Instant>>;

impl Worker {
    /// Takes hints until the worker is stopped or idle for too long. Gives up where Redis refuses what that takes, or
    /// does not do it for longer than this worker's patience, though it may answer the heartbeat.
    pub(super) async fn exchange(
        &self,
        work: mpsc::Sender<Delivery>,
        stop: watch::Receiver<bool>,
        mut idle_since: IdleSince,
    ) -> Result<(), JobsError> {
        let options = &self.options;
        let pace = Pace {
            poll: options.poll,
            heartbeat: options.heartbeat,
            missed_heartbeats: options.missed_heartbeats as usize,
        };
        let mut delays = pauses(LONGEST).build();
        let mut failing: Option<Instant> = None;
        for life in 0_u64.. {
            let name = self.name(life);
            let begin = Instant::now();
            let halted = self.halt.subscribe();
            let ending = until(stop.clone(), halted, idle_since.clone(), options.exit_when_idle);
            let consumed = self.queue.consume(pace, &name, work.clone(), ending).await;
            // A name that stays behind would hold a hint until its heartbeats are missed.
            match timeout(FAREWELL, self.queue.leave(&name)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "not signed off"),
                Err(_) => tracing::debug!("not signed off in time"),
            }
            if begin.elapsed() > WORKED {
                delays = pauses(LONGEST).build();
                failing = None;
            }
            match consumed {
                Err(error) if error.may_pass() => {
                    let since = failing.get_or_insert_with(Instant::now);
                    if since.elapsed() >= options.patience {
                        return Err(error);
                    }
                    tracing::warn!(%error, "taking hints again under a new name");
                }
                ended => return ended,
            }
            tokio::select! {
                () = sleep(delays.next().unwrap_or(LONGEST)) => {}
                () = self.stopped() => {}
            }
            // A busy worker takes no hint that it could only keep from others.
            tokio::select! {
                idle = idle_since.wait_for(Option::is_some) => if idle.is_err() { return Ok(()) },
                () = self.stopped() => return Ok(()),
            }
        }
        Ok(())
    }

    /// A name that the queue has not seen.
    fn name(&self, life: u64) -> String {
        match life {
            0 => self.options.name.clone(),
            life => format!("{}.{life}", self.options.name),
        }
    }

    /// Says good-bye: another worker may sweep at once.
    pub(super) async fn sign_off(&self) {
        let sweeps = self.reconciler().take();
        if let Some(lease) = sweeps
            && let Err(error) = lease.release().await
        {
            tracing::debug!(%error, "the sweeper's lease was left to expire");
        }
        self.heartbeat.sign_off().await;
    }
}

/// Resolves when the worker is to end: stopped, unable to go on, idle for too long, or its executor is gone.
async fn until(
    mut stop: watch::Receiver<bool>,
    mut halted: watch::Receiver<Option<JobsError>>,
    mut idle_since: watch::Receiver<Option<Instant>>,
    patience: Option<Duration>,
) {
    let stopped = async {
        if stop.wait_for(|&stop| stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let idled = async {
        loop {
            let since = *idle_since.borrow_and_update();
            let enough = async {
                match since.zip(patience) {
                    Some((since, patience)) => sleep_until(since + patience).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = enough => return,
                changed = idle_since.changed() => if changed.is_err() { return },
            }
        }
    };
    let halted = async {
        if halted.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = stopped => {}
        () = halted => {}
        () = idled => {}
    }
}
