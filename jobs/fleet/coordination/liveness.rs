//! The liveness of a worker: how long ago its heartbeat last ran, for a watchdog.
//!
//! A beat counts whether Redis answered or not: a worker that waits for its Redis is alive. Says nothing about the stage
//! in progress, which may take hours.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When the heartbeat last had its turn. Clones share it.
#[derive(Clone, Debug)]
pub struct Liveness(Arc<Mutex<Instant>>);

impl Default for Liveness {
    /// As if it had its first turn now.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Liveness {
    /// The heartbeat had its turn.
    pub fn turn(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago that was.
    pub fn age(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}
