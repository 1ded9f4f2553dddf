//! A worker's own heartbeat: asks Redis for a sign of life and notes that it did.
//!
//! Decides nothing: whether a silent Redis ends the worker is the queue's business.

use std::convert::Infallible;

use super::Worker;
use crate::metrics;

impl Worker {
    /// Beats for ever.
    pub(super) async fn beat(&self) -> Infallible {
        let mut lost = false;
        loop {
            let answer =
                redis::cmd("PING").query_async::<String>(&mut self.fleet.connection()).await;
            if lost && answer.is_ok() {
                metrics::redis_reconnected();
            }
            lost = answer.is_err();
            self.options.vitals.turn();
            metrics::heartbeat((self.options.clock)());
            tokio::time::sleep(self.options.heartbeat).await;
        }
    }
}
