//! Waits for a condition; fails when it does not hold after a number of tries. Measures no time.

use std::time::Duration;

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);
/// Tries before the wait fails.
const TRIES: u32 = 6_000;

/// Calls `look` until it returns a value; panics with `what` after two minutes.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..TRIES {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(PAUSE);
    }
    panic!("{what} does not come")
}
