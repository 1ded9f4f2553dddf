//! The three pipes of a program, on one thread: a row goes in, a line comes out, and stderr is read meanwhile.
//!
//! Nothing blocks beyond the deadline, whatever the program does or leaves undone. Of stderr the end is kept,
//! of stdout one line.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::quote;

/// Bytes of the longest line.
const LONGEST: usize = 1 << 20;
/// Bytes of stderr that are kept, and how many lines of them are shown.
const KEPT: usize = 8 << 10;
const SHOWN: usize = 8;
/// Bytes of one read.
const PIECE: usize = 16 << 10;

/// Why there is no line.
#[derive(Debug)]
pub(crate) enum Broken {
    Flood(usize),
    Late,
    Closed,
    System(io::Error),
}

#[derive(Debug)]
pub(crate) struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    /// Read and not taken yet.
    read: Vec<u8>,
    /// The end of stderr.
    tail: Vec<u8>,
}

/// What a read found.
enum Found {
    Bytes,
    Nothing,
    End,
}

impl Pipes {
    /// Of a child with all three.
    pub(crate) fn of(child: &mut Child) -> io::Result<Self> {
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let all = [
            stdin.as_ref().map(AsFd::as_fd),
            stdout.as_ref().map(AsFd::as_fd),
            stderr.as_ref().map(AsFd::as_fd),
        ];
        for pipe in all.into_iter().flatten() {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Self { stdin, stdout, stderr, ..Self::none() })
    }

    /// None at all.
    pub(crate) fn none() -> Self {
        Self { stdin: None, stdout: None, stderr: None, read: vec![], tail: vec![] }
    }

    /// Writes a row and reads a line, which comes without its end.
    pub(crate) fn exchange(
        &mut self,
        mut row: &[u8],
        deadline: Instant,
    ) -> Result<Vec<u8>, Broken> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let rest = self.read.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.read, rest);
                line.truncate(end);
                return Ok(line);
            }
            if self.read.len() > LONGEST {
                return Err(Broken::Flood(self.read.len()));
            }
            if !self.wait(!row.is_empty(), true, deadline).map_err(Broken::System)? {
                return Err(Broken::Late);
            }
            self.read_stderr();
            match self.read_stdout().map_err(Broken::System)? {
                // Output that comes before the row was taken is read all the same.
                Found::Bytes => continue,
                Found::End => return Err(Broken::Closed),
                Found::Nothing => {}
            }
            if let (Some(stdin), false) = (&mut self.stdin, row.is_empty()) {
                match stdin.write(row) {
                    Ok(written) => row = &row[written..],
                    Err(error) if is_later(&error) => {}
                    // It reads no more; its answer, or its end, is yet to come.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => row = &[],
                    Err(error) => return Err(Broken::System(error)),
                }
            }
        }
    }

    /// Output in stdout without a row being asked; blank lines are ignored.
    pub(crate) fn surplus(&mut self) -> Option<Vec<u8>> {
        // The next exchange reports an end or an error.
        while self.read.len() <= LONGEST && matches!(self.read_stdout(), Ok(Found::Bytes)) {}
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

    /// The last lines of stderr, quoted.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        quote::last_lines(&self.tail, SHOWN)
    }

    /// Waits until something can be done; false where the deadline came first.
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

    fn read_stdout(&mut self) -> io::Result<Found> {
        let Some(stdout) = &mut self.stdout else { return Ok(Found::End) };
        let before = self.read.len();
        self.read.resize(before + PIECE, 0);
        let found = stdout.read(&mut self.read[before..]);
        self.read.truncate(before + found.as_ref().map_or(0, |&bytes| bytes));
        match found {
            Ok(0) => Ok(Found::End),
            Ok(_) => Ok(Found::Bytes),
            Err(error) if is_later(&error) => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }

    /// One piece; the end of the pipe closes it.
    fn read_stderr(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        let mut piece = [0; PIECE];
        match stderr.read(&mut piece) {
            Ok(0) => self.stderr = None,
            Ok(bytes) => {
                self.tail.extend_from_slice(&piece[..bytes]);
                let surplus = self.tail.len().saturating_sub(KEPT);
                self.tail.drain(..surplus);
            }
            Err(error) if is_later(&error) => {}
            Err(_) => self.stderr = None,
        }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
