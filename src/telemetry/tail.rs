//! The last log lines of this process, in memory, for failure records.
//!
//! Holds a bounded number of lines, as they were logged, without secrets in addresses. Knows nothing of stages.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use agrpo_fleet::LogTail;
use agrpo_store::{Clock, redact};
use tracing_subscriber::fmt::MakeWriter;

/// As many lines as a failure record shows.
const LINES: usize = 50;

/// The lines; clones share them.
#[derive(Clone)]
pub(crate) struct Tail {
    clock: Clock,
    lines: Arc<Mutex<VecDeque<(u64, String)>>>,
}

impl Tail {
    /// No lines yet.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, lines: Arc::default() }
    }

    /// Reads the lines that were logged since a time.
    pub(crate) fn reader(&self) -> LogTail {
        let lines = Arc::clone(&self.lines);
        Arc::new(move |since| {
            let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.iter().filter(|(at, _)| *at >= since).map(|(_, line)| line.clone()).collect()
        })
    }
}

impl Write for Tail {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = (self.clock)();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for line in redact::text(&String::from_utf8_lossy(bytes)).lines() {
            if lines.len() == LINES {
                lines.pop_front();
            }
            lines.push_back((now, line.to_owned()));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Tail {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn the_last_lines_since_a_moment_are_kept_and_no_more() {
        let time = Arc::new(AtomicU64::new(1));
        let now = Arc::clone(&time);
        let mut tail = Tail::new(Arc::new(move || now.load(Ordering::SeqCst)));
        for line in 0..60 {
            time.store(line, Ordering::SeqCst);
            tail.write_all(format!("line {line}\n").as_bytes()).unwrap();
        }
        let read = tail.reader();
        assert_eq!((read(0).len(), &*read(0)[0]), (LINES, "line 10"));
        assert_eq!(read(58), ["line 58", "line 59"]);
    }
}
