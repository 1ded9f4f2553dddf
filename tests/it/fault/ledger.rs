//! The ledger of stages: which process began and ended which stage, and when. Shows what was computed twice.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use super::fleet::Death;

/// A line of the ledger that workers write.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) stage: String,
    pub(crate) kind: String,
    pub(crate) pid: u32,
    pub(crate) ms: i64,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in {} {}", self.kind, &self.stage[..12])
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) begun: Vec<Entry>,
    pub(crate) ended: Vec<Entry>,
    /// Fail points whose action was taken; the stage is the point.
    pub(crate) taken: Vec<Entry>,
}

impl Ledger {
    /// The ledger so far; empty if there is no file yet.
    pub(crate) fn read(path: &Path) -> Self {
        let mut ledger = Self::default();
        for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
            let fields: Vec<_> = line.split(' ').collect();
            let [what, stage, kind, pid, ms] = fields[..] else { continue };
            let (Ok(pid), Ok(ms)) = (pid.parse(), ms.parse()) else { continue };
            let entry = Entry { stage: stage.to_owned(), kind: kind.to_owned(), pid, ms };
            match what {
                "begin" => ledger.begun.push(entry),
                "end" => ledger.ended.push(entry),
                "point" => ledger.taken.push(entry),
                _ => {}
            }
        }
        ledger
    }

    /// Computations beyond the first of each stage.
    pub(crate) fn extra(&self) -> usize {
        let distinct: BTreeSet<_> = self.begun.iter().map(|entry| &entry.stage).collect();
        self.begun.len() - distinct.len()
    }

    /// How often a stage was begun.
    pub(crate) fn begins(&self, stage: &str) -> usize {
        self.begun.iter().filter(|begin| begin.stage == stage).count()
    }

    /// Stages that were begun before a moment and not ended: computing, or lost with their
    /// worker.
    pub(crate) fn in_hand(&self, before_ms: i64) -> Vec<&str> {
        let ended: BTreeSet<_> = self.ended.iter().map(|end| (&end.stage, end.pid)).collect();
        let open =
            |begin: &&Entry| begin.ms <= before_ms && !ended.contains(&(&begin.stage, begin.pid));
        self.begun.iter().filter(open).map(|begin| begin.stage.as_str()).collect()
    }

    /// What a process computes.
    pub(crate) fn at_work(&self, pid: u32) -> Option<&Entry> {
        let begun = self.begun.iter().rfind(|begin| begin.pid == pid)?;
        let has_ended = |end: &Entry| end.pid == pid && end.stage == begun.stage;
        (!self.ended.iter().any(has_ended)).then_some(begun)
    }

    /// How often processes took the action of a fail point.
    pub(crate) fn taken_by(&self, pids: &[u32], point: &str) -> usize {
        let by_them = |taken: &&Entry| taken.stage == point && pids.contains(&taken.pid);
        self.taken.iter().filter(by_them).count()
    }

    /// The stages that end with a process at most: the current one, and the previous one, which is published meanwhile.
    fn last_two(&self, death: &Death) -> impl Iterator<Item = &str> {
        let of_it = |begun: &&Entry| begun.pid == death.pid && begun.ms <= death.ms;
        let mut stages: Vec<_> = self.begun.iter().filter(of_it).map(|b| &*b.stage).collect();
        stages.reverse();
        stages.into_iter().take(2)
    }

    /// The longest time from the death of a process to the next beginning of a stage that died with it,
    /// in milliseconds; `None` where no stage had to be begun again.
    pub(crate) fn redelivery_ms(&self, deaths: &[Death]) -> Option<i64> {
        let wait = |death: &Death| {
            let again = |stage: &str| {
                let next = |next: &&Entry| next.stage == stage && next.ms >= death.ms;
                self.begun.iter().find(next).map(|next| next.ms - death.ms)
            };
            self.last_two(death).filter_map(again).max()
        };
        deaths.iter().filter_map(wait).max()
    }

    /// Stages that were begun again although none of these processes had them.
    pub(crate) fn unexplained(&self, deaths: &[Death]) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let again = self.begun.iter().filter(|begun| !seen.insert(&begun.stage));
        let explains = |begun: &Entry, death: &Death| {
            death.ms <= begun.ms && self.last_two(death).any(|stage| stage == begun.stage)
        };
        let lone = again.filter(|begun| !deaths.iter().any(|death| explains(begun, death)));
        lone.map(|begun| begun.stage.as_str()).collect()
    }
}
