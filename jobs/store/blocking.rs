//! Work that would hold up the event loop, on a thread that may block.

use crate::error::JobsError;
use crate::span;

/// Hashing more than this at once belongs on a thread that may block.
const QUICK: usize = 1 << 20;

/// Runs work on files on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JobsError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| JobsError::Internal(format!("work on a file stopped: {error}")))
}

/// Runs work whose length follows from `bytes`, on a thread that may block where it is long.
pub(crate) async fn off_loop<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JobsError> {
    if bytes <= QUICK {
        return Ok(work());
    }
    tokio::task::spawn_blocking(span::carried(work))
        .await
        .map_err(|error| JobsError::Internal(format!("hashing stopped: {error}")))
}
