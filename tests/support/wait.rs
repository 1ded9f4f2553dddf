//! Waiting for what a program of ours does next. Measures no time: a wait without an end becomes a failure.

use std::time::Duration;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// Looks before a wait counts as endless.
const LOOKS: u32 = 6_000;

/// Looks until there is something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..LOOKS {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(PAUSE);
    }
    panic!("{what} does not come")
}
