//! The retry policy: how long a service may be away before the work in hand is given up.
//!
//! Pauses grow; jitter keeps workers from reconnecting all at once. Only errors that may pass are retried.

use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use tokio::sync::watch;

use crate::Result;

/// How long a server that is away is asked again.
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

/// The longest pause between two tries of an exchange.
pub(crate) const LONGEST: Duration = Duration::from_secs(5);

/// Pauses from a tenth of a second up to `longest`, without an end.
pub fn pauses(longest: Duration) -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(100).min(longest / 2))
        // Jitter adds up to a whole pause.
        .with_max_delay(longest / 2)
        .without_max_times()
}

/// Tries again while an error may pass by itself, for `limit` at most and as long as `wanted` holds.
pub async fn with_retry<T, F>(
    limit: Duration,
    wanted: impl Fn() -> bool,
    exchange: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let begin = Instant::now();
    exchange
        .retry(pauses(LONGEST))
        .when(|error| error.may_pass() && begin.elapsed() < limit && wanted())
        .notify(|error, pause| tracing::warn!(%error, ?pause, "trying again"))
        .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::JobsError;

    async fn tries(limit: u64, error: JobsError, until: u32) -> (u32, bool) {
        let count = AtomicU32::new(0);
        let result = with_retry(
            Duration::from_millis(limit),
            || true,
            || async {
                if count.fetch_add(1, Ordering::SeqCst) + 1 == until {
                    Ok(())
                } else {
                    Err(error.clone())
                }
            },
        );
        let ended = result.await.is_ok();
        (count.into_inner(), ended)
    }

    #[tokio::test]
    async fn only_what_may_come_back_is_waited_for_and_not_for_ever() {
        let away = JobsError::Unavailable("away".to_owned());
        assert_eq!(tries(10_000, away.clone(), 3).await, (3, true));
        assert_eq!(tries(10_000, JobsError::Data("gone".to_owned()), 3).await, (1, false));
        let (count, ended) = tries(300, away, 100).await;
        assert!((2..20).contains(&count) && !ended, "{count}");
    }
}
