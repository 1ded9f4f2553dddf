//! Requests whose connection broke in the middle: recognised and sent again.
//!
//! Tries nothing again that a server answered, and no server that did not accept a connection: object_store does
//! that by itself.

use std::future::Future;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use object_store::Error;
use object_store::client::HttpError;

use crate::error::JobsError;

/// How often a request whose connection broke is sent again.
pub(crate) const AGAIN: usize = 4;
/// Before the first of those; it doubles.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// What failed, and whether sending it again may help.
pub(crate) struct Missed {
    pub(crate) error: JobsError,
    pub(crate) was_cut: bool,
}

/// Whether a connection broke in the middle, at whatever end. A server's own answers are none of it, and
/// nor is a server that did not accept the connection: object_store tries those again.
pub(crate) fn was_cut(error: &Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error.is::<HttpError>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// Tries again while connections break.
pub(crate) async fn persistently<T, F: Future<Output = Result<T, Missed>>>(
    attempt: impl FnMut() -> F,
) -> Result<T, JobsError> {
    let pauses = ExponentialBuilder::default().with_min_delay(PAUSE).with_max_times(AGAIN);
    let tries = attempt.retry(pauses).when(|missed: &Missed| missed.was_cut);
    let tries = tries.notify(|missed, pause| {
        tracing::debug!(error = %missed.error, ?pause, "a connection broke; once more");
    });
    tries.await.map_err(|missed| missed.error)
}
