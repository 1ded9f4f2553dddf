//! Takes the present log span along to another thread, as `tracing` does not. Opens no span.

use tracing::Span;

/// Work that takes the present span along to the thread that does it.
pub fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let span = Span::current();
    move || span.in_scope(work)
}
