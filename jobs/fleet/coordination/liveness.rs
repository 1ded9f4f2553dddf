//! The liveness of a worker: how long ago its heartbeat last ran, for a watchdog.
//!
//! A beat counts whether or not Redis answered: a worker that waits for Redis is alive. Independent of the stage in
//! progress, which may take hours.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agrpo_store::locked;

/// When the heartbeat last ran. Clones share it.
#[derive(Clone, Debug)]
pub struct Liveness(Arc<Mutex<Instant>>);

impl Default for Liveness {
    /// Starts with the present time.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Liveness {
    /// Notes that the heartbeat ran.
    pub fn turn(&self) {
        *locked(&self.0) = Instant::now();
    }

    /// How long ago that was.
    pub fn age(&self) -> Duration {
        locked(&self.0).elapsed()
    }
}
