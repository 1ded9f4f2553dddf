//! The processes of a program, the memory that they take together, and their end.
//!
//! Read from /proc: a process belongs to the program that it descends from, whose process group or session it is in,
//! or whose mark it carries. This process is a subreaper: orphans become its children. A process is signalled
//! through a handle that is checked first, never by its number, which the system may have given to another process.
//!
//! The mark is a limit on the size of files, unique to the program and larger than any file. Processes inherit it
//! through new sessions, empty environments and the loss of their parents.

use std::{collections::BTreeMap, time::Duration};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpgrp, getpid, pidfd_open, pidfd_send_signal,
    waitid,
};

/// Most reads of /proc until no process is left, and the pause between them.
const LOOKS: u32 = 500;
const PAUSE: Duration = Duration::from_millis(2);

pub(crate) type Marks = BTreeMap<i32, u64>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    parent: i32,
    group: i32,
    session: i32,
    /// When it was started. Number and start time together identify a process.
    start: u64,
    /// Processor time that it has taken so far.
    pub(crate) ticks: u64,
    has_ended: bool,
}

#[derive(Debug)]
pub(crate) struct Table {
    entries: BTreeMap<i32, Entry>,
    own: i32,
    own_group: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Program(i32),
    /// A descendant of this process whose program is unknown.
    Stray,
    Other,
}

impl Table {
    pub(crate) fn read() -> Self {
        let found = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = found.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let entries = pids.filter_map(|pid| Some((pid, look(pid)?))).collect();
        let (own, own_group) = (getpid().as_raw_pid(), getpgrp().as_raw_pid());
        Self { entries, own, own_group }
    }

    fn owner(&self, pid: i32, programs: &Marks) -> Owner {
        let mut at = pid;
        // The table is read while processes start and end, so it may contain a cycle.
        for _ in 0..=self.entries.len() {
            let Some(entry) = self.entries.get(&at) else { break };
            let known = [at, entry.group, entry.session];
            if let Some(program) = known.into_iter().find(|known| programs.contains_key(known)) {
                return Owner::Program(program);
            }
            if entry.parent == self.own {
                if entry.group == self.own_group || entry.has_ended {
                    break;
                }
                let marked = programs.iter().find(|&(_, &mark)| is_marked(at, mark));
                return marked.map_or(Owner::Stray, |(&program, _)| Owner::Program(program));
            }
            at = entry.parent;
        }
        Owner::Other
    }

    /// The processes of a program: itself, its descendants and, if asked for, strays that may be its descendants.
    pub(crate) fn members(&self, program: i32, programs: &Marks, strays: bool) -> Vec<i32> {
        let is_member = |pid| match self.owner(pid, programs) {
            Owner::Program(owner) => owner == program,
            Owner::Stray => strays,
            Owner::Other => false,
        };
        let lives = |(&pid, entry): (&i32, &Entry)| (!entry.has_ended).then_some(pid);
        self.entries.iter().filter_map(lives).filter(|&pid| is_member(pid)).collect()
    }

    /// Collects orphans that have ended.
    pub(crate) fn reap(&self, programs: &Marks) {
        for (&pid, entry) in &self.entries {
            let is_orphan = entry.parent == self.own && entry.group != self.own_group;
            if entry.has_ended
                && is_orphan
                && !programs.contains_key(&pid)
                && let Some(pid) = Pid::from_raw(pid)
            {
                // Another thread may have collected it already.
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
                let _gone = waitid(WaitId::Pid(pid), options);
            }
        }
    }

    pub(crate) fn end(&self, pids: &[i32]) {
        for &pid in pids {
            if let Some(entry) = self.entries.get(&pid) {
                end(pid, |now| now.start == entry.start);
            }
        }
    }
}

/// Calls `is_done` until it returns true, for about a second.
pub(crate) fn until_none(mut is_done: impl FnMut() -> bool) {
    for _ in 0..LOOKS {
        if is_done() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

pub(crate) fn end_marked(mark: u64) -> usize {
    let mut ended = 0;
    until_none(|| {
        let mut found = Table::read().entries;
        found.retain(|&pid, _| is_marked(pid, mark));
        let is_target = |pid| move |now: Entry| !now.has_ended && is_marked(pid, mark);
        ended += found.keys().filter(|&&pid| end(pid, is_target(pid))).count();
        found.is_empty()
    });
    ended
}

/// Kills a process through a handle if its entry, read while the handle is open, is the expected one.
fn end(pid: i32, is_target: impl Fn(Entry) -> bool) -> bool {
    let handle = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let Some(handle) = handle else { return false };
    look(pid).is_some_and(is_target) && pidfd_send_signal(&handle, Signal::KILL).is_ok()
}

pub(crate) fn look(pid: i32) -> Option<Entry> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain any character; the fields after it are numbered from 3.
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<i32>().ok();
    let long = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Entry {
        parent: number(4)?,
        group: number(5)?,
        session: number(6)?,
        start: long(22)?,
        ticks: long(14)? + long(15)?,
        has_ended: matches!(fields.first(), Some(&("Z" | "X"))),
    })
}

fn is_marked(pid: i32, mark: u64) -> bool {
    // `Max file size  4611686018427387904  4611686018427387904  bytes`
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max file size"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()) == Some(mark)
}

/// Bytes of memory that processes take together. Shared memory is divided among them only if the sum is above `most`.
pub(crate) fn memory(pids: &[i32], most: u64) -> u64 {
    let all = |pid| kibibytes(pid, "status", &["VmRSS:", "VmSwap:"]);
    let share = |pid| kibibytes(pid, "smaps_rollup", &["Pss:", "SwapPss:"]).or_else(|| all(pid));
    let sum =
        |of: &dyn Fn(i32) -> Option<u64>| pids.iter().filter_map(|&pid| of(pid)).sum::<u64>() << 10;
    match sum(&all) {
        whole if whole <= most => whole,
        _ => sum(&share),
    }
}

/// The sum of some lines of a file that /proc has for a process.
fn kibibytes(pid: i32, file: &str, names: &[&str]) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let value = |line: &str| {
        let mut words = line.split_whitespace();
        names.contains(&words.next()?).then(|| words.next()?.parse::<u64>().ok())?
    };
    Some(text.lines().filter_map(value).sum())
}
