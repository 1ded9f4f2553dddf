//! The retry policy: how long a service may be unavailable before the operation fails.
//!
//! Pauses grow; jitter keeps workers from reconnecting all at once. Only errors that may pass are retried.

use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use tokio::sync::watch;

use crate::Result;

/// How long an unavailable server is retried.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Since the first try.
    pub limit: Duration,
    /// Turns true when the process stops.
    pub stop: watch::Receiver<bool>,
}

impl RetryPolicy {
    pub(crate) fn lasts(&self, elapsed: Duration) -> bool {
        elapsed < self.limit && !*self.stop.borrow()
    }
}

/// The longest pause between two tries of a request.
pub(crate) const LONGEST: Duration = Duration::from_secs(5);

/// Growing pauses from a tenth of a second up to `longest`, without end.
pub fn pauses(longest: Duration) -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(100).min(longest / 2))
        // Jitter adds up to a whole pause.
        .with_max_delay(longest / 2)
        .without_max_times()
}

/// Retries while an error may be temporary, for `limit` at most and as long as `wanted` holds.
pub async fn with_retry<T, F>(
    limit: Duration,
    wanted: impl Fn() -> bool,
    operation: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let begin = Instant::now();
    operation
        .retry(pauses(LONGEST))
        .when(|error| error.may_pass() && begin.elapsed() < limit && wanted())
        .notify(|error, pause| tracing::warn!(%error, ?pause, "a service is unavailable; retrying"))
        .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::JobsError;

    async fn tries(limit: u64, error: JobsError, until: u32) -> (u32, bool) {
        let count = AtomicU32::new(0);
        let operation = || async {
            let is_last = count.fetch_add(1, Ordering::SeqCst) + 1 == until;
            if is_last { Ok(()) } else { Err(error.clone()) }
        };
        let ended = with_retry(Duration::from_millis(limit), || true, operation).await.is_ok();
        (count.into_inner(), ended)
    }

    #[tokio::test]
    async fn only_what_may_come_back_is_waited_for_and_not_for_ever() {
        let away = JobsError::Unavailable("away".into());
        assert_eq!(tries(10_000, away.clone(), 3).await, (3, true));
        assert_eq!(tries(10_000, JobsError::Data("gone".into()), 3).await, (1, false));
        let (count, ended) = tries(300, away, 100).await;
        assert!((2..20).contains(&count) && !ended, "{count}");
    }
}
