//! The exchange with the queue, built anew under a fresh name whenever it breaks.
//!
//! apalis gives up its worker at the first lost answer. The stage in hand does not depend on it: its
//! lease is renewed elsewhere, so the bench goes on, and new hints are taken once it is free.

use std::time::Duration;

use backon::BackoffBuilder;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::{FAREWELL, Worker, until};
use crate::error::JobsError;
use crate::patience::pauses;
use crate::queue::{Delivery, Pace};

/// The longest pause before an exchange is built again.
const LONGEST: Duration = Duration::from_secs(2);
/// An exchange that lasted for so long has worked: no single answer takes this time.
const WORKED: Duration = Duration::from_secs(30);

type IdleSince = watch::Receiver<Option<Instant>>;

impl Worker {
    /// Takes hints until told to stop or idle for too long. Gives up where Redis refuses what that takes, or
    /// does not do it for longer than this worker's patience, though it may answer the pulse.
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
        let sweeps = self.sweeper().take();
        if let Some(lease) = sweeps
            && let Err(error) = lease.release().await
        {
            tracing::debug!(%error, "the sweeper's lease was left to expire");
        }
        self.pulse.sign_off().await;
    }
}
