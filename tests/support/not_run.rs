//! Reports parts of tests that this machine cannot run: files that may not be copied into the repository, programs that
//! are not installed. A test reports what it did not check; it never passes by comparing nothing.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};

/// Parts that were not run, of all tests of this process.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Writes a line past the test harness, which would capture what a passing test prints.
pub(crate) fn not_run(what: &str) {
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    let thread = std::thread::current();
    let line = format!("not run ({count}): {}: {what}\n", thread.name().unwrap_or("a test"));
    std::io::stderr().write_all(line.as_bytes()).unwrap_or_default();
}
