//! Runs work on another thread in the current log span, which `tracing` does not carry over, and locks what threads
//! share. Opens no span.

use agrpo_spec::Message;
use tracing::Span;

use crate::{JobsError, Result};

/// Work that runs in the current span on whichever thread calls it.
pub fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let span = Span::current();
    move || span.in_scope(work)
}

/// Runs work that would block the event loop on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(carried(work)).await.map_err(|error| {
        JobsError::Internal(Message::caused_by(format!("work on a file stopped: {error}"), error))
    })
}

/// Locks what every change leaves whole, so that a panic elsewhere does not spoil it.
pub fn locked<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
