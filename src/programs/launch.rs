//! Starts programs so that they end when this process does.
//!
//! One thread starts them, as the death signal follows the thread that started a program. setpriv (util-linux) sets
//! the signal; where it is absent, the next start ends a program that outlived a killed agrpo.

use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, OnceLock};
use std::{io, os::unix::process::CommandExt, path::Path};

use agrpo_spec::Program;
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, getpid, getrlimit, prlimit, set_child_subreaper,
    set_dumpable_behavior,
};

/// Memory that a program may take, in bytes, and its mark.
type Limits = (u64, u64);

/// A program to be started, and where its process goes.
type Order = (Command, Limits, Sender<io::Result<Child>>);

static STARTER: LazyLock<Sender<Order>> = LazyLock::new(|| {
    let (sender, orders) = channel::<Order>();
    let started = std::thread::Builder::new().name("programs".to_owned()).spawn(move || {
        for (mut command, limits, answer) in orders {
            let child = command.spawn().and_then(|mut child| match limit(&child, limits) {
                Ok(()) => Ok(child),
                Err(error) => {
                    child.kill().and_then(|()| child.wait())?;
                    Err(error)
                }
            });
            // The caller of `start` waits for it.
            let _gone = answer.send(child);
        }
    });
    // Without the thread the channel is closed, and `start` returns an error.
    drop(started);
    sender
});

/// Capabilities by which root could read this process; and the same without a name that older setprivs lack.
const LOOKS: [&str; 2] = ["-sys_ptrace,-sys_admin,-perfmon", "-sys_ptrace,-sys_admin"];

fn before(path: &str) -> &'static [&'static str] {
    static FOUND: OnceLock<Vec<&str>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let with_signal = ["setpriv", "--pdeathsig", "KILL", "--"];
        let without = |looks| [&with_signal[..3], &["--bounding-set", looks, "--"]].concat();
        let works = |words: &Vec<&str>| {
            let mut probe = Command::new(words[0]);
            probe.args(&words[1..]).arg("true").env_clear().env("PATH", path);
            probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            probe.status().is_ok_and(|status| status.success())
        };
        let mut all = LOOKS.map(without).into_iter().chain([with_signal.to_vec()]);
        all.find(works).unwrap_or_default()
    })
}

/// Done before the first program: this process becomes unreadable to others, and the parent of orphans.
static PREPARED: LazyLock<()> = LazyLock::new(|| {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!("a reward program may read this process's environment: {error}");
    }
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        tracing::warn!("what a reward program starts may outlive it: {error}");
    }
});

/// A program's command in a process group of its own and in its folder, which sees no environment but for `PATH`. The
/// error is the reason why there is none, as the predicate of a sentence.
pub(crate) fn command(program: &Program, folder: &Path, path: &str) -> Result<Command, String> {
    let words = program.command.iter().map(String::as_str);
    let name = words.clone().next().ok_or("has no name")?;
    // As it is named, from its folder, or on `PATH`.
    let is_there = match name.contains('/') {
        true => folder.join(name).exists(),
        false => path.split(':').any(|place| folder.join(place).join(name).exists()),
    };
    if !is_there {
        return Err(format!(
            "cannot be started: there is no {name:?} on PATH, nor in reward.files"
        ));
    }
    let mut all = before(path).iter().copied().chain(words);
    let mut command = Command::new(all.next().unwrap_or(name));
    command.args(all).current_dir(folder).process_group(0).env_clear().env("PATH", path);
    command.envs([("LANG", "C.UTF-8"), ("TZ", "UTC")]);
    command.envs([("HOME", folder), ("TMPDIR", folder)]);
    // Python: hashes that do not vary, lines that leave at once, no files of its own.
    command.envs([("PYTHONHASHSEED", "0"), ("PYTHONUNBUFFERED", "1")]);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Limits a process before it has become its program.
fn limit(child: &Child, (memory, mark): Limits) -> io::Result<()> {
    let pid = Pid::from_child(child);
    let set = |resource, value| {
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        match prlimit(Some(pid), resource, limit) {
            // If it has ended by now, the first row that is asked reports it.
            Ok(_) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error),
        }
    };
    set(Resource::As, memory)?;
    // Where files are limited already there is no mark.
    if getrlimit(Resource::Fsize).maximum.is_none() {
        set(Resource::Fsize, mark)?;
    }
    Ok(())
}

pub(crate) fn start(command: Command, limits: Limits) -> io::Result<Child> {
    LazyLock::force(&PREPARED);
    let (answer, answered) = channel();
    let gone = || io::Error::other("there is no thread to start it");
    STARTER.send((command, limits, answer)).map_err(|_gone| gone())?;
    answered.recv().map_err(|_gone| gone())?
}
