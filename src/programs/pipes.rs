//! The three pipes of a program, on one thread: a row goes in, a line comes out, and stderr is read meanwhile.
//!
//! Nothing blocks beyond the deadline. Holds the end of stderr and one line of stdout.

use std::io::{self, ErrorKind, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use std::{os::fd::AsFd, time::Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::fault::{Fault, quoted};

const LONGEST: usize = 1 << 20;
/// The last bytes of stderr that are held, and how many lines of them are shown.
const TAIL: usize = 8 << 10;
const SHOWN: usize = 8;
const PIECE: usize = 16 << 10;

#[derive(Debug, Default)]
pub(crate) struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    /// Read and not taken yet.
    read: Vec<u8>,
    tail: Vec<u8>,
}

impl Pipes {
    pub(crate) fn of(child: &mut Child) -> io::Result<Self> {
        let pipes = Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            ..Self::default()
        };
        let all = [
            pipes.stdin.as_ref().map(AsFd::as_fd),
            pipes.stdout.as_ref().map(AsFd::as_fd),
            pipes.stderr.as_ref().map(AsFd::as_fd),
        ];
        all.into_iter().flatten().try_for_each(|pipe| rustix::io::ioctl_fionbio(pipe, true))?;
        Ok(pipes)
    }

    /// Writes a row and reads a line, without its line break; `None` if the program closed its output.
    pub(crate) fn exchange(
        &mut self,
        mut row: &[u8],
        deadline: Instant,
    ) -> Result<Option<Vec<u8>>, Fault> {
        let refused = |error: io::Error| Fault::System(error.to_string());
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let rest = self.read.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.read, rest);
                line.truncate(end);
                return Ok(Some(line));
            }
            if self.read.len() > LONGEST {
                return Err(Fault::Flood(self.read.len()));
            }
            if !self.wait(!row.is_empty(), true, deadline).map_err(refused)? {
                return Err(Fault::Late);
            }
            self.read_stderr();
            match self.read_stdout().map_err(refused)? {
                Some(0) => return Ok(None),
                // Output is read even before the program has read the row.
                Some(_) => continue,
                None => {}
            }
            if let (Some(stdin), false) = (&mut self.stdin, row.is_empty()) {
                match stdin.write(row) {
                    Ok(written) => row = &row[written..],
                    Err(error) if is_later(&error) => {}
                    // It reads no more input; its answer or its end follows.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => row = &[],
                    Err(error) => return Err(refused(error)),
                }
            }
        }
    }

    /// Output on stdout that answers no row; blank lines are ignored.
    pub(crate) fn surplus(&mut self) -> Option<Vec<u8>> {
        // The next exchange reports an end or an error.
        while self.read.len() <= LONGEST && matches!(self.read_stdout(), Ok(Some(1..))) {}
        if self.read.iter().all(u8::is_ascii_whitespace) {
            self.read.clear();
            return None;
        }
        Some(std::mem::take(&mut self.read))
    }

    /// Reads stderr to its end, or until the deadline.
    pub(crate) fn drain_stderr(&mut self, deadline: Instant) {
        while self.stderr.is_some() && matches!(self.wait(false, false, deadline), Ok(true)) {
            self.read_stderr();
        }
    }

    pub(crate) fn last_lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.tail);
        let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
        let lines: Vec<_> = lines.collect();
        lines[lines.len().saturating_sub(SHOWN)..].iter().map(|line| quoted(line)).collect()
    }

    /// Waits until a pipe is ready; returns false at the deadline.
    fn wait(&mut self, writes: bool, reads: bool, deadline: Instant) -> io::Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let mut all: Vec<PollFd<'_>> = vec![];
            let stdin = self.stdin.as_ref().filter(|_| writes);
            all.extend(stdin.map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
            let stdout = self.stdout.as_ref().filter(|_| reads);
            all.extend(stdout.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            all.extend(self.stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
            match poll(&mut all, Some(&left)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read_stdout(&mut self) -> io::Result<Option<usize>> {
        self.stdout.as_mut().map_or(Ok(Some(0)), |stdout| read_piece(stdout, &mut self.read))
    }

    /// Closes the pipe at its end.
    fn read_stderr(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        if matches!(read_piece(stderr, &mut self.tail), Ok(Some(0)) | Err(_)) {
            self.stderr = None;
        }
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
    }
}

/// Reads one piece and returns its number of bytes, 0 at the end; `None` if nothing can be read yet.
fn read_piece(pipe: &mut impl Read, into: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut piece = [0; PIECE];
    match pipe.read(&mut piece) {
        Ok(bytes) => {
            into.extend_from_slice(&piece[..bytes]);
            Ok(Some(bytes))
        }
        Err(error) if is_later(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
