//! One process: its folder, its environment, its limits, and its end.
//!
//! It runs in its own process group and, where possible, in a control group. A fault, drop and [`crate::end_all`] kill
//! it with everything that it started. Memory is limited before the first row, processor time from row to row, so that
//! a program that outlives this process cannot spin for ever. Asks no row twice.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use std::{collections::BTreeMap, os::unix::process::ExitStatusExt, process::Child};

use agrpo_grading::program_answer;
use agrpo_spec::{Program, Score};
use bytes::Bytes;
use rustix::process::{Pid, Resource, Rlimit, WaitId, WaitIdOptions, getrlimit, prlimit, waitid};

use crate::group::{Group, Groups};
use crate::running::{self, Running};
use crate::{family, fault::Fault, folder::Folder, launch, pipes::Pipes};

/// How long a process may take to end by itself after it closed its output.
const GRACE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) pid: Pid,
    pipes: Pipes,
    timeout: Duration,
    /// Whether it was killed and waited for.
    is_ended: bool,
    /// The limit that it exceeded, set by the watch thread.
    excess: Arc<OnceLock<String>>,
    // Dropped after the process, in this order.
    group: Option<Arc<Group>>,
    _folder: Folder,
}

impl Process {
    /// Starts a program in a new folder. The error is the reason, as the predicate of a sentence.
    pub(crate) fn start(
        program: &Program,
        files: &BTreeMap<String, Bytes>,
        path: &str,
    ) -> Result<Self, String> {
        let folder = Folder::new(&std::env::temp_dir());
        let folder = folder.map_err(|error| format!("has no folder to run in: {error}"))?;
        for (name, bytes) in files {
            folder
                .write(name, bytes)
                .map_err(|why| format!("cannot have its file {name}: {why}"))?;
        }
        let command = launch::command(program, &folder.files(), path)?;
        let group = Groups::of_this_process().and_then(|groups| {
            let made = groups.make(folder.name(), program.memory);
            made.inspect_err(|error| tracing::warn!("a reward program has no group: {error}")).ok()
        });
        let (group, excess) = (group.map(Arc::new), Arc::default());
        let running = Running {
            files: folder.files(),
            mark: folder.mark,
            memory: program.memory,
            group: group.clone(),
            excess: Arc::clone(&excess),
        };
        let child = {
            // Locked until the new process is in the table: the watch would take it for a stray.
            let mut all = running::all();
            let child = launch::start(command, (program.memory, folder.mark));
            let child = child.map_err(|error| format!("cannot be started: {error}"))?;
            all.add(Pid::from_child(&child).as_raw_pid(), running);
            child
        };
        // From here on, dropping the value ends the process.
        let mut process = Self {
            pid: Pid::from_child(&child),
            child,
            pipes: Pipes::default(),
            timeout: Duration::from_secs_f64(program.timeout_seconds),
            is_ended: false,
            excess,
            group,
            _folder: folder,
        };
        if let Some(group) = &process.group
            && let Err(error) = group.add(process.pid.as_raw_pid())
        {
            return Err(format!("cannot be put into its control group: {error}"));
        }
        process.pipes = Pipes::of(&mut process.child)
            .map_err(|error| format!("cannot be written to or read from: {error}"))?;
        Ok(process)
    }

    /// Writes a row and waits for its answer.
    pub(crate) fn ask(&mut self, row: &[u8], id: &str) -> Result<Score, Fault> {
        if let Some(fault) = self.surplus() {
            return Err(fault);
        }
        self.allow_processor_time();
        let deadline = Instant::now() + self.timeout;
        let Some(line) = self.pipes.exchange(row, deadline)? else {
            return Err(Fault::Ended(self.how_it_ended()));
        };
        program_answer(&line, id).map_err(Fault::Answer)
    }

    pub(crate) fn surplus(&mut self) -> Option<Fault> {
        self.pipes.surplus().map(Fault::Surplus)
    }

    /// Ends it, and returns the last lines that it wrote to stderr, quoted.
    pub(crate) fn end(mut self) -> Vec<String> {
        // A program that rejects its input may be writing the reason.
        self.pipes.drain_stderr(Instant::now() + GRACE / 5);
        self.kill();
        self.pipes.drain_stderr(Instant::now() + GRACE / 5);
        self.pipes.last_lines()
    }

    /// Limits processor time to the seconds used so far plus those of one row on every core.
    fn allow_processor_time(&self) {
        let Some(process) = family::look(self.pid.as_raw_pid()) else { return };
        let used = process.ticks / rustix::param::clock_ticks_per_second().max(1);
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let most = getrlimit(Resource::Cpu).maximum;
        let wanted = used + (self.timeout.as_secs() + 2) * cores;
        let current = Some(most.map_or(wanted, |most| most.min(wanted)));
        // Without this limit the deadline still holds.
        let _old = prlimit(Some(self.pid), Resource::Cpu, Rlimit { current, maximum: most });
    }

    pub(crate) fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(self.pid), options), Ok(None))
    }

    /// Waits a moment before the kill, so that the exit code is the program's.
    fn how_it_ended(&mut self) -> String {
        let deadline = Instant::now() + GRACE;
        self.pipes.drain_stderr(deadline);
        while !self.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if !self.has_ended() {
            return "closed its output".to_owned();
        }
        self.kill();
        if let Some(excess) = self.excess.get() {
            return excess.clone();
        }
        if self.group.as_ref().is_some_and(|group| group.ran_out_of_memory()) {
            return "was killed for lack of memory, with what it started,".to_owned();
        }
        match self.child.wait() {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("ended with code {code}"),
                (None, Some(signal)) => format!("was ended by signal {signal}"),
                (None, None) => "ended".to_owned(),
            },
            Err(error) => format!("ended with an unknown status: {error}"),
        }
    }

    /// Kills it with everything that it started, and waits for it. A second call does nothing.
    fn kill(&mut self) {
        if !self.is_ended {
            self.is_ended = true;
            let pid = self.pid.as_raw_pid();
            running::end(pid);
            let _status = self.child.wait();
            running::all().forget(pid);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
