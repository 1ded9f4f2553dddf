//! The table of running programs, the thread that watches their memory, and their end.
//!
//! A limit holds for a program together with everything that it started. Without a control group, a thread reads /proc
//! several times a second, and misses memory that is taken and freed in between. Does not interpret the end of a
//! program.

use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{collections::BTreeMap, path::PathBuf};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::family::{self, Marks, Table, until_none};
use crate::folder;
use crate::group::{Group, MOST_TASKS};

/// The pause between two reads of /proc: at least `INTERVAL`, and `SHARE` times as long as the last read took.
const INTERVAL: Duration = Duration::from_millis(50);
const SHARE: u32 = 20;

#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) files: PathBuf,
    pub(crate) mark: u64,
    /// Bytes that it may take with all that it started.
    pub(crate) memory: u64,
    pub(crate) group: Option<Arc<Group>>,
    pub(crate) excess: Arc<OnceLock<String>>,
}

/// By process number. An entry stays until its process was waited for, so that `reap` leaves the process alone.
#[derive(Debug, Default)]
pub(crate) struct All(BTreeMap<i32, Running>);

static ALL: Mutex<All> = Mutex::new(All(BTreeMap::new()));
static ADDED: Condvar = Condvar::new();

/// Locks the table; the first call starts the watch thread.
pub(crate) fn all() -> MutexGuard<'static, All> {
    static WATCH: LazyLock<()> = LazyLock::new(|| {
        if let Err(error) = std::thread::Builder::new().name("watch".to_owned()).spawn(watch) {
            tracing::warn!("the memory of reward programs is not watched: {error}");
        }
    });
    LazyLock::force(&WATCH);
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl All {
    pub(crate) fn add(&mut self, pid: i32, running: Running) {
        self.0.insert(pid, running);
        ADDED.notify_one();
    }

    pub(crate) fn forget(&mut self, pid: i32) {
        self.0.remove(&pid);
    }

    fn marks(&self) -> Marks {
        self.0.iter().map(|(&pid, running)| (pid, running.mark)).collect()
    }

    /// Kills the processes of a program that one read of /proc finds; returns whether there were none.
    fn end_once(&self, pid: i32) -> bool {
        let (table, programs) = (Table::read(), self.marks());
        let members = table.members(pid, &programs, self.0.len() <= 1);
        table.end(&members);
        table.reap(&programs);
        members.is_empty()
    }

    fn strike(&self, pid: i32) {
        if let Some(group) = self.0.get(&pid).and_then(|running| running.group.as_ref()) {
            group.end();
        }
        if let Some(group) = Pid::from_raw(pid) {
            // The group may have ended already.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Kills a program with everything that it started. The caller waits for the program itself.
pub(crate) fn end(pid: i32) {
    all().strike(pid);
    until_none(|| all().end_once(pid));
}

/// Kills every program and removes their folders. Called before this process exits without dropping anything.
pub fn end_all() {
    let all = all();
    for &pid in all.0.keys() {
        all.strike(pid);
    }
    for (&pid, running) in &all.0 {
        until_none(|| all.end_once(pid));
        running.files.parent().into_iter().for_each(folder::remove);
    }
}

/// Checks limits in a loop that never ends; sleeps while there is no program.
fn watch() {
    loop {
        drop(ADDED.wait_while(all(), |all| all.0.is_empty()));
        let begin = Instant::now();
        let table = Table::read();
        let all = all();
        let programs = all.marks();
        table.reap(&programs);
        for (&pid, running) in &all.0 {
            let members = table.members(pid, &programs, true);
            if let Some(excess) = running.excess_of(&members) {
                // Set once; processes that were started since the read are killed after the next one.
                let _known = running.excess.set(excess);
                all.strike(pid);
                table.end(&members);
            }
        }
        drop(all);
        std::thread::sleep(INTERVAL.max(begin.elapsed() * SHARE));
    }
}

impl Running {
    fn excess_of(&self, members: &[i32]) -> Option<String> {
        if members.len() > MOST_TASKS {
            return Some(format!("ran {} processes, of at most {MOST_TASKS},", members.len()));
        }
        if self.group.as_ref().is_some_and(|group| group.limits_memory) {
            return None;
        }
        let memory = family::memory(members, self.memory);
        (memory > self.memory)
            .then(|| format!("took {} MiB of memory with what it started", memory >> 20))
    }
}
