//! Evidence that every fault of a schedule took place. A schedule with a fault that met no request and no process
//! tests nothing, and fails.

use std::fmt;

use super::fleet::Death;
use super::kinds::Fault;
use super::ledger::Ledger;
use super::scene::{Scene, lock};
use super::schedule::Schedule;

/// The outcome of a fault.
#[derive(Clone, Debug)]
pub(crate) struct Witness {
    /// The fault, as schedules print it.
    pub(crate) fault: String,
    pub(crate) kind: &'static str,
    /// The evidence that it took place, or why it did not.
    pub(crate) found: Result<String, Missed>,
}

/// Why a fault did not take place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// The run ended before, which may be in a mix.
    Over,
    /// It met no request and no process.
    Unmet(String),
}

impl Witness {
    /// What is wrong with it.
    pub(crate) fn complaint(&self, schedule: &Schedule) -> Option<String> {
        match &self.found {
            Err(Missed::Over) if schedule.is_mix() => None,
            Ok(_) => None,
            Err(missed) => Some(format!("{} did not take place: {missed}", self.fault)),
        }
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Ok(found) => write!(f, "{}: {found}", self.fault),
            Err(missed) => write!(f, "{}: not met, {missed}", self.fault),
        }
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Over => f.write_str("the run had ended"),
            Self::Unmet(why) => f.write_str(why),
        }
    }
}

/// Of every fault of a schedule that is over.
pub(crate) fn witnesses(
    scene: &Scene,
    schedule: &Schedule,
    ledger: &Ledger,
    deaths: &[Death],
) -> Vec<Witness> {
    let brought = lock(&scene.brought).clone();
    let mut all = vec![];
    for (number, (_, fault)) in schedule.faults.iter().enumerate() {
        let found = match fault {
            // It slows a stage down, for another fault to meet it.
            Fault::Arm { point, .. } if point.contains("sleep(") => continue,
            Fault::Arm { point, .. } => armed(scene, schedule, ledger, deaths, point),
            Fault::Clock { worker, .. } => clock(scene, *worker, deaths),
            _ => brought.get(&number).cloned().unwrap_or(Err(Missed::Over)),
        };
        all.push(Witness { fault: fault.to_string(), kind: fault.kind(), found });
    }
    all
}

/// The action of a fail point was taken by one of the workers that have it.
fn armed(
    scene: &Scene,
    schedule: &Schedule,
    ledger: &Ledger,
    deaths: &[Death],
    point: &str,
) -> Result<String, Missed> {
    let (name, _) = point.split_once('=').expect("a fail point and its actions");
    let mut pids = vec![];
    for (_, fault) in &schedule.faults {
        if let Fault::Arm { worker, point: same } = fault
            && same == point
        {
            pids.extend(scene.lives(*worker));
        }
    }
    let taken = ledger.taken_by(&pids, name);
    let died = |death: &&Death| ledger.taken_by(&[death.pid], name) > 0 && death.code.is_none();
    let died: Vec<_> = deaths.iter().filter(died).map(|death| death.pid.to_string()).collect();
    match (taken, point.contains("(kill)") || point.contains("(abort)")) {
        (0, _) => Err(Missed::Over),
        (_, false) => Ok(format!("met {taken} times")),
        (_, true) if died.is_empty() => Err(Missed::Unmet("who passed it lives".to_owned())),
        (_, true) => Ok(format!("process {} died of it", died.join(", "))),
    }
}

/// A worker whose clock is wrong says so and ends, or is refused by the bucket.
fn clock(scene: &Scene, worker: usize, deaths: &[Death]) -> Result<String, Missed> {
    let log = scene.log(worker);
    let words = ["this machine's clock", "the server's clock and this machine's differ"];
    let said = words.iter().map(|words| log.matches(words).count()).sum();
    let ended = deaths.iter().filter(|death| death.worker == worker).count();
    match (said, ended) {
        (0_usize, _) => Err(Missed::Unmet("its worker said nothing of a clock".to_owned())),
        (_, 0) => Err(Missed::Unmet("its worker did not end".to_owned())),
        (said, ended) => Ok(format!("said by its worker {said} times, ended {ended} times")),
    }
}
