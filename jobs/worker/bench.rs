//! The bench: hints one by one, each to the end of its computing; publishing goes on beside the next.
//!
//! At most one result is on its way to the store while another is being computed. Ends when there are no
//! more hints, when one cannot be dealt with, or when the worker has to end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};

use super::Worker;
use crate::error::JobsError;
use crate::failpoints::reach;
use crate::queue::Delivery;

/// How long a result that is being published may take when the worker has to end.
const LAST: Duration = Duration::from_secs(60);

/// Results on their way to the store.
pub(super) type Desk = JoinSet<Result<(), JobsError>>;

impl Worker {
    /// Deals with hints one by one.
    pub(super) async fn work(
        self: Arc<Self>,
        mut deliveries: mpsc::Receiver<Delivery>,
        idle: watch::Sender<Option<Instant>>,
    ) -> Result<(), JobsError> {
        let mut desk = Desk::new();
        let worked = self.take_up(&mut deliveries, &idle, &mut desk).await;
        // Others must not be told that we are idle while something is published.
        idle.send_replace(None);
        drop(deliveries);
        let ended = match worked {
            Ok(()) => clear(&mut desk).await,
            Err(_) => timeout(LAST, clear(&mut desk)).await.unwrap_or(Ok(())),
        };
        first_of(worked, ended)
    }

    async fn take_up(
        self: &Arc<Self>,
        deliveries: &mut mpsc::Receiver<Delivery>,
        idle: &watch::Sender<Option<Instant>>,
        desk: &mut Desk,
    ) -> Result<(), JobsError> {
        loop {
            tokio::select! {
                error = self.pulse.fatal() => return Err(error),
                Some(published) = desk.join_next() => told(published)?,
                delivery = deliveries.recv() => {
                    let Some(Delivery { hint, done }) = delivery else { return Ok(()) };
                    idle.send_replace(None);
                    let dealt_with = tokio::select! {
                        error = self.pulse.fatal() => return Err(error),
                        handled = self.handle(hint, desk) => handled?,
                    };
                    reach("stage::before-ack");
                    if dealt_with {
                        done.send(()).ok();
                    }
                }
            }
            if desk.is_empty() {
                idle.send_replace(Some(Instant::now()));
            }
        }
    }
}

/// Waits for everything that is being published; the first error.
pub(super) async fn clear(desk: &mut Desk) -> Result<(), JobsError> {
    let mut first = Ok(());
    while let Some(published) = desk.join_next().await {
        first = first_of(first, told(published));
    }
    first
}

/// Of two ends the first error is the one that is told; the second is logged.
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

fn told(published: Result<Result<(), JobsError>, JoinError>) -> Result<(), JobsError> {
    published
        .unwrap_or_else(|error| Err(JobsError::Internal(format!("publishing broke off: {error}"))))
}
