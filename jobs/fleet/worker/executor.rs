//! The executor: takes hints one by one and computes each stage to its end, while the result before is published.
//!
//! At most one result is being stored while another one is computed. Ends when there are no more hints, when a hint
//! cannot be handled, or when the worker has to end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};

use super::shared::Worker;
use crate::coordination::queue::Delivery;
use agrpo_store::JobsError;
use agrpo_store::failpoints::fail_point;

/// How long a result that is being published may take when the worker has to end.
const LAST: Duration = Duration::from_secs(60);

/// Results on their way to the store.
pub(super) type Publisher = JoinSet<Result<(), JobsError>>;

impl Worker {
    /// Deals with hints one by one.
    pub(super) async fn work(
        self: Arc<Self>,
        mut deliveries: mpsc::Receiver<Delivery>,
        idle: watch::Sender<Option<Instant>>,
    ) -> Result<(), JobsError> {
        let mut publisher = Publisher::new();
        let worked = self.take_up(&mut deliveries, &idle, &mut publisher).await;
        // The worker does not count as idle while something is published.
        idle.send_replace(None);
        drop(deliveries);
        let ended = match worked {
            Ok(()) => clear(&mut publisher).await,
            Err(_) => timeout(LAST, clear(&mut publisher)).await.unwrap_or(Ok(())),
        };
        first_of(worked, ended)
    }

    async fn take_up(
        self: &Arc<Self>,
        deliveries: &mut mpsc::Receiver<Delivery>,
        idle: &watch::Sender<Option<Instant>>,
        publisher: &mut Publisher,
    ) -> Result<(), JobsError> {
        loop {
            tokio::select! {
                error = self.heartbeat.fatal() => return Err(error),
                Some(published) = publisher.join_next() => finished(published)?,
                delivery = deliveries.recv() => {
                    let Some(Delivery { hint, done }) = delivery else { return Ok(()) };
                    idle.send_replace(None);
                    let dealt_with = tokio::select! {
                        error = self.heartbeat.fatal() => return Err(error),
                        handled = self.handle(hint, publisher) => handled?,
                    };
                    fail_point("stage::before-ack");
                    if dealt_with {
                        done.send(()).ok();
                    }
                }
            }
            if publisher.is_empty() {
                idle.send_replace(Some(Instant::now()));
            }
        }
    }
}

/// Waits for everything that is being published; the first error.
pub(super) async fn clear(publisher: &mut Publisher) -> Result<(), JobsError> {
    let mut first = Ok(());
    while let Some(published) = publisher.join_next().await {
        first = first_of(first, finished(published));
    }
    first
}

/// Of two ends the first error is returned; the second is logged.
pub(super) fn first_of(
    first: Result<(), JobsError>,
    second: Result<(), JobsError>,
) -> Result<(), JobsError> {
    match (first, second) {
        (Err(first), Err(second)) => {
            tracing::warn!(error = %second, "and one more thing failed");
            Err(first)
        }
        (first, second) => first.and(second),
    }
}

fn finished(published: Result<Result<(), JobsError>, JoinError>) -> Result<(), JobsError> {
    published
        .unwrap_or_else(|error| Err(JobsError::Internal(format!("publishing broke off: {error}"))))
}
