//! One process: its folder, its environment, its limits, and its end.
//!
//! It runs in a process group of its own, and the group is killed as a whole: on a fault, on drop, and by
//! [`end_all`] where this process ends without dropping anything. Memory is limited before the first row;
//! processor time from row to row, so that what outlives this process cannot spin for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use agrpo_protocols::{AnswerError, program_answer};
use agrpo_spec::{Program, Score};
use bytes::Bytes;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getrlimit, kill_process_group, prlimit,
    waitid,
};
use tempfile::TempDir;

use crate::pipes::{Broken, Pipes};
use crate::{quoted, shortened};

/// How long a process that closed its output may take to end by itself.
const GRACE: Duration = Duration::from_millis(500);

/// Process groups that run.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn running() -> std::sync::MutexGuard<'static, BTreeSet<i32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills every program: for who ends this process at once.
pub fn end_all() {
    for group in running().iter().filter_map(|&pid| Pid::from_raw(pid)) {
        // One that is gone needs no end.
        let _gone = kill_process_group(group, Signal::KILL);
    }
}

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

    /// What the program did.
    pub(crate) fn told(&self, program: &Program) -> String {
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
    /// Goes with the process.
    _folder: TempDir,
}

impl Process {
    /// Starts a program in a new folder. The error says why that cannot be.
    pub(crate) fn start(
        program: &Program,
        files: &BTreeMap<String, Bytes>,
        path: &str,
    ) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("agrpo-reward-").tempdir();
        let folder = folder.map_err(|error| format!("has no folder to run in: {error}"))?;
        for (name, bytes) in files {
            write(folder.path(), name, bytes)
                .map_err(|error| format!("cannot have its file {name}: {error}"))?;
        }
        let (name, arguments) = program.command.split_first().ok_or("has no name")?;
        let mut command = Command::new(name);
        command.args(arguments).current_dir(folder.path()).env_clear().process_group(0);
        command.envs([("PATH", path), ("LANG", "C.UTF-8"), ("TZ", "UTC")]);
        command.envs([("HOME", folder.path()), ("TMPDIR", folder.path())]);
        // Python: hashes that do not vary, lines that leave at once, no files of its own.
        command.envs([("PYTHONHASHSEED", "0"), ("PYTHONUNBUFFERED", "1")]);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!("cannot be started: there is no {name:?} on PATH, nor in reward.files")
            }
            _ => format!("cannot be started: {error}"),
        })?;
        let pid = Pid::from_child(&child);
        running().insert(pid.as_raw_pid());
        let pipes = Pipes::of(&mut child);
        let timeout = Duration::from_secs_f64(program.timeout_seconds);
        // From here on the group ends with the value.
        let process = |pipes| Self { child, pid, pipes, timeout, _folder: folder };
        let process = match pipes {
            Ok(pipes) => process(pipes),
            Err(error) => {
                drop(process(Pipes::none()));
                return Err(format!("cannot be talked to: {error}"));
            }
        };
        let limit = Rlimit { current: Some(program.memory), maximum: Some(program.memory) };
        match prlimit(Some(pid), Resource::As, limit) {
            // One that has ended by now is told when it is asked.
            Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(process),
            Err(error) => Err(format!("cannot be held to its memory: {error}")),
        }
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

    /// What it has written that nobody asked for.
    pub(crate) fn surplus(&mut self) -> Option<Fault> {
        self.pipes.surplus().map(Fault::Surplus)
    }

    /// Ends it, and answers with the last lines that it wrote to stderr, quoted.
    pub(crate) fn end(mut self) -> Vec<String> {
        // A program that was asked wrongly may be telling why.
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
        // Not before its group was told, or its number could be another's by then.
        self.kill();
        match self.child.wait() {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("ended with code {code}"),
                (None, Some(signal)) => format!("was ended by signal {signal}"),
                (None, None) => "ended".to_owned(),
            },
            Err(error) => format!("ended, and nobody knows how: {error}"),
        }
    }

    /// Kills the group and waits for its first process. May be done twice.
    fn kill(&mut self) {
        if running().remove(&self.pid.as_raw_pid()) {
            let _gone = kill_process_group(self.pid, Signal::KILL);
            let _status = self.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A file in the folder, which its owner may also run.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let place = folder.join(name);
    if let Some(parent) = place.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&place, bytes)?;
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o700))
}

/// Seconds of processor time that a process has used, rounded down.
fn processor_seconds(pid: Pid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    // The name, in brackets, may hold anything; utime and stime are 12th and 13th behind it.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / rustix::param::clock_ticks_per_second().max(1))
}

/// The last lines of what a program wrote, each on one line and quoted.
pub(crate) fn last_lines(bytes: &[u8], most: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let first = lines.len().saturating_sub(most);
    lines[first..].iter().map(|line| format!("{:?}", shortened(line))).collect()
}
