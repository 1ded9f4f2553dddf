//! One process: its folder, its environment, its limits, and its end.
//!
//! It runs in a process group of its own and, where there may be one, in a control group; what it started ends
//! with it: on a fault, on drop, and by [`crate::end_all`] where this process ends without dropping anything.
//! Memory is limited before the first row; processor time from row to row, so that what outlives this process
//! cannot spin for ever.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use agrpo_grading::{AnswerError, program_answer};
use agrpo_spec::{Program, Score};
use bytes::Bytes;
use rustix::process::{Pid, Resource, Rlimit, WaitId, WaitIdOptions, getrlimit, prlimit, waitid};

use crate::folder::Folder;
use crate::group::{Group, Groups};
use crate::launch;
use crate::pipes::{Broken, Pipes};
use crate::quote::quoted;
use crate::running::{self, Running};

/// How long a process that closed its output may take to end by itself.
const GRACE: Duration = Duration::from_millis(500);

/// Why a row has no score.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A line that is no answer to it.
    Answer(AnswerError),
    /// More than one line for a row.
    Surplus(Vec<u8>),
    /// A line without end.
    Flood(usize),
    /// The program closed its output; how it ended, if it did.
    Ended(String),
    /// No answer in time.
    Late,
    /// The system refused.
    System(String),
}

impl Fault {
    /// Whether another process may do better. What was answered would be answered again.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Ended(_) | Self::Late | Self::System(_))
    }

    /// What the program did, as the predicate of a sentence.
    pub(crate) fn describe(&self, program: &Program) -> String {
        match self {
            Self::Answer(error) => error.to_string(),
            Self::Surplus(bytes) => format!(
                "wrote {} beside its answer: expected one line for each row, and everything else on stderr",
                quoted(String::from_utf8_lossy(bytes).trim_end())
            ),
            Self::Flood(bytes) => format!(
                "wrote {bytes} bytes without the end of a line: expected one line of JSON for each row"
            ),
            Self::Ended(how) => format!(
                "{how} before it answered (it may take {} MiB of memory, reward.memory_mib)",
                program.memory >> 20
            ),
            Self::Late => format!(
                "gave no answer within {} s (reward.timeout_seconds): expected a line for each row, flushed",
                program.timeout_seconds
            ),
            Self::System(why) => format!("cannot be talked to: {why}"),
        }
    }
}

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    pipes: Pipes,
    timeout: Duration,
    /// Whether it was killed and waited for.
    is_ended: bool,
    /// What it took too much of, once that was seen.
    excess: Arc<OnceLock<String>>,
    // These go with the process, in this order.
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
                .map_err(|error| format!("cannot have its file {name}: {error}"))?;
        }
        let command = command(program, &folder, path)?;
        let group = Groups::of_this_process().and_then(|groups| {
            let made = groups.make(folder.name(), program.memory);
            made.inspect_err(|error| tracing::warn!("a reward program has no group: {error}")).ok()
        });
        Self::launch(command, program, folder, group.map(Arc::new))
    }

    fn launch(
        command: Command,
        program: &Program,
        folder: Folder,
        group: Option<Arc<Group>>,
    ) -> Result<Self, String> {
        let excess = Arc::default();
        let running = Running {
            files: folder.files(),
            mark: folder.mark,
            memory: program.memory,
            group: group.clone(),
            excess: Arc::clone(&excess),
        };
        let child = {
            // Held until this process is known: the watch would take it for a stray.
            let mut all = running::all();
            let child = launch::start(command, (program.memory, folder.mark));
            let child = child.map_err(|error| format!("cannot be started: {error}"))?;
            all.add(Pid::from_child(&child).as_raw_pid(), running);
            child
        };
        // From here on all of it ends with the value.
        let mut process = Self {
            pid: Pid::from_child(&child),
            child,
            pipes: Pipes::none(),
            timeout: Duration::from_secs_f64(program.timeout_seconds),
            is_ended: false,
            excess,
            group,
            _folder: folder,
        };
        if let Some(group) = &process.group
            && let Err(error) = group.take(process.pid.as_raw_pid())
        {
            return Err(format!("cannot be put into its control group: {error}"));
        }
        process.pipes = Pipes::of(&mut process.child)
            .map_err(|error| format!("cannot be talked to: {error}"))?;
        Ok(process)
    }

    /// Its number.
    #[cfg(test)]
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_pid()
    }

    /// Whether it has not ended.
    pub(crate) fn is_alive(&self) -> bool {
        !self.has_ended()
    }

    /// Hands over a row and waits for its answer.
    pub(crate) fn ask(&mut self, row: &[u8], id: &str) -> Result<Score, Fault> {
        if let Some(fault) = self.surplus() {
            return Err(fault);
        }
        self.allow_processor_time();
        let deadline = Instant::now() + self.timeout;
        let line = self.pipes.exchange(row, deadline).map_err(|broken| match broken {
            Broken::Flood(bytes) => Fault::Flood(bytes),
            Broken::Late => Fault::Late,
            Broken::Closed => Fault::Ended(self.how_it_ended()),
            Broken::System(error) => Fault::System(error.to_string()),
        })?;
        program_answer(&line, id).map_err(Fault::Answer)
    }

    /// Output that was written without a row being asked.
    pub(crate) fn surplus(&mut self) -> Option<Fault> {
        self.pipes.surplus().map(Fault::Surplus)
    }

    /// Ends it, and returns the last lines that it wrote to stderr, quoted.
    pub(crate) fn end(mut self) -> Vec<String> {
        // A program that rejects its input may be writing why.
        self.pipes.drain_stderr(Instant::now() + GRACE / 5);
        self.kill();
        self.pipes.drain_stderr(Instant::now() + GRACE / 5);
        self.pipes.last_lines()
    }

    /// As many seconds as it has used, and those of a row on every core.
    fn allow_processor_time(&self) {
        let Some(used) = processor_seconds(self.pid) else { return };
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let most = getrlimit(Resource::Cpu).maximum;
        let wanted = used + (self.timeout.as_secs() + 2) * cores;
        let current = Some(most.map_or(wanted, |most| most.min(wanted)));
        // A limit that cannot be set limits nothing: the clock still does.
        let _old = prlimit(Some(self.pid), Resource::Cpu, Rlimit { current, maximum: most });
    }

    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(self.pid), options), Ok(None))
    }

    /// Waits a moment for the end, so that its code is its own and not that of being killed.
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
            return "was ended for want of memory, with what it started,".to_owned();
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

    /// Kills it with all that it started, and waits for it. May be done twice.
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

/// A program's command, in its folder and with an environment of its own.
fn command(program: &Program, folder: &Folder, path: &str) -> Result<Command, String> {
    let files = folder.files();
    let mut command = launch::command(&program.command, &files, path)?;
    command.envs([("LANG", "C.UTF-8"), ("TZ", "UTC")]);
    command.envs([("HOME", &files), ("TMPDIR", &files)]);
    // Python: hashes that do not vary, lines that leave at once, no files of its own.
    command.envs([("PYTHONHASHSEED", "0"), ("PYTHONUNBUFFERED", "1")]);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Seconds of processor time that a process has used, rounded down.
fn processor_seconds(pid: Pid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    // The name, in brackets, may hold anything; utime and stime are 12th and 13th behind it.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / rustix::param::clock_ticks_per_second().max(1))
}
