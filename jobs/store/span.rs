//! Work on another thread, which takes the present log span along, as `tracing` does not. Opens no span.

use tracing::Span;

use crate::{JobsError, Result};

/// Work that takes the present span along to the thread that does it.
pub fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let span = Span::current();
    move || span.in_scope(work)
}

/// Work that would hold up the event loop, on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(carried(work))
        .await
        .map_err(|error| JobsError::Internal(format!("work on a file stopped: {error}")))
}
