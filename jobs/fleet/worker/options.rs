//! How a worker behaves, and its usual pace.
//!
//! None of it changes a result. Nothing is read from the environment here.

use std::sync::Arc;
use std::time::Duration;

use agrpo_spec::{Environment, Numerics};
use agrpo_store::{Clock, Versions};
use tokio::sync::watch;

use crate::coordination::leases::LEASE;
use crate::coordination::{Liveness, WorkerInfo, heartbeat};
use crate::coordinator::LogTail;

/// How a worker behaves; none of it changes a result.
#[derive(Clone)]
pub struct WorkerOptions {
    /// The class of numerics that this process honours; it takes stages of no other.
    pub numerics: Numerics,
    /// The versions of the stages that this process computes; it takes stages of no others.
    pub versions: Versions,
    /// Unique to this start, say host, process and time.
    pub name: String,
    /// What manifests say about this machine.
    pub environment: Environment,
    /// The time of day.
    pub clock: Clock,
    /// Ends the worker after this long without work; `None` waits for ever.
    pub exit_when_idle: Option<Duration>,
    /// From one look for work to the next; half of it is an idle worker's mean delay.
    pub poll: Duration,
    /// Until the lease of a dead worker's stage expires; the reconciler then offers it to others.
    pub lease: Duration,
    /// From one turn of the reconciler to the next.
    pub reconcile: Duration,
    /// From one look through the store for runs that Redis does not know to the next.
    pub survey: Duration,
    /// How long Redis or the store is retried while it is unavailable; then the worker ends.
    pub retry_for: Duration,
    /// How long a stage that failed here is left to others, if there are any.
    pub elsewhere: Duration,
    /// How long a worker that was stopped may finish the stage in hand; then it is given back.
    /// `None`: as long as it takes.
    pub grace: Option<Duration>,
    /// Turns true where the stage in hand is to be given back at once.
    pub hurry: watch::Receiver<bool>,
    /// What was logged last, for failure records.
    pub log_tail: LogTail,
    /// What it computes on, for people.
    pub device: String,
    /// Its process, for people.
    pub pid: u32,
    /// Has its turn with the heartbeat, for a watchdog.
    pub liveness: Liveness,
}

impl WorkerOptions {
    /// The usual pace.
    pub fn new(numerics: Numerics, name: String, environment: Environment, clock: Clock) -> Self {
        Self {
            numerics,
            versions: Versions::own(),
            name,
            environment,
            clock,
            exit_when_idle: None,
            poll: Duration::from_millis(100),
            lease: LEASE,
            reconcile: Duration::from_secs(2),
            survey: Duration::from_secs(30),
            retry_for: Duration::from_secs(300),
            elsewhere: Duration::from_secs(60),
            grace: None,
            hurry: watch::channel(false).1,
            log_tail: Arc::new(|_| vec![]),
            device: "cpu".to_owned(),
            pid: 0,
            liveness: Liveness::default(),
        }
    }

    /// What the heartbeat's thread needs.
    pub(super) fn heartbeat_settings(&self) -> heartbeat::Settings {
        let about = WorkerInfo {
            name: self.name.clone(),
            host: self.environment.host.clone(),
            pid: self.pid,
            device: self.device.clone(),
            class: self.numerics,
            version: self.environment.agrpo.clone(),
            since_unix_ms: (self.clock)(),
            computing: None,
            stages_done: 0,
            seen_unix_ms: 0,
            seen_ms_ago: 0,
        };
        heartbeat::Settings {
            about,
            clock: Arc::clone(&self.clock),
            lease: self.lease,
            retry_for: self.retry_for,
            liveness: self.liveness.clone(),
        }
    }
}

impl std::fmt::Debug for WorkerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerOptions")
            .field("numerics", &self.numerics)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
