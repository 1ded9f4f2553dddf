//! A schedule of faults: data that follows from a name and a seed, and is printed as one line.
//!
//! A fault's moment is counted in stages begun, so that a schedule means the same on a slow machine.

use std::fmt;

use agrpo_spec::Seed;

use super::kinds::Fault;
use super::proxy::Trouble;
use super::tampered::Unfit;

/// Stages of the run that schedules are drawn for; a moment is drawn well before the last.
const STAGES: u64 = 63;

/// As soon as so many stages were begun, and so many milliseconds later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) stages: u64,
    pub(crate) ms: u64,
}

/// Faults and their moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) workers: usize,
    /// Whether Redis's data survives its SIGKILL.
    pub(crate) redis_keeps: bool,
    /// Whether the store is a folder and not a bucket.
    pub(crate) folder: bool,
    /// How often `agrpo retry` gives new attempts to a stage in which workers died three times, as many faults at once
    /// may cause.
    pub(crate) retries: u32,
    pub(crate) faults: Vec<(At, Fault)>,
}

/// Faults that are brought while stages take a while each.
const SLOW: [&str; 6] = [
    "redis_evicts_keys",
    "redis_has_a_foreign_key",
    "index_edited",
    "record_of_a_newer_program",
    "fifos_in_the_store",
    "metrics_fill_the_file_table",
];

/// The fail points from the computation of a stage to its acknowledgement, in their order.
pub(crate) const POINTS: [&str; 8] = [
    "stage::in-compute",
    "stage::before-blobs",
    "stage::after-blobs",
    "stage::before-manifest",
    "stage::after-manifest",
    "stage::before-enqueue",
    "stage::after-enqueue",
    "stage::before-ack",
];

/// A fail point that is passed some times and then ends its process by SIGKILL.
pub(crate) fn kill_at(point: &str, passes: u64) -> String {
    if passes == 0 {
        format!("{point}=return(kill)")
    } else {
        format!("{point}={passes}*off->return(kill)")
    }
}

/// Draws of one schedule, one after the other.
pub(crate) struct Dice {
    seed: Seed,
    drawn: u32,
}

impl Dice {
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        // Depends on the name, so that single faults of one suite strike at different moments.
        let salt = name
            .bytes()
            .fold(seed, |salt, byte| salt.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Self { seed: Seed::new(salt), drawn: 0 }
    }

    /// A number from `from` to below `to`.
    pub(crate) fn within(&mut self, from: u64, to: u64) -> u64 {
        self.drawn += 1;
        from + self.seed.below(to - from, self.drawn, 0)
    }

    fn worker(&mut self, workers: usize) -> usize {
        usize::try_from(self.within(0, workers as u64)).unwrap()
    }

    pub(crate) fn at(&mut self) -> At {
        At { stages: self.within(1, STAGES - 8), ms: self.within(0, 120) }
    }
}

impl Schedule {
    /// Two workers without a fault.
    pub(crate) fn calm(name: &str, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            seed,
            workers: 2,
            redis_keeps: true,
            folder: false,
            retries: 0,
            faults: vec![],
        }
    }

    /// One fault alone, named as its test is. Its moment follows from the seed.
    pub(crate) fn alone(name: &str, seed: u64) -> Self {
        let mut dice = Dice::new(seed, name);
        let mut schedule = Self::calm(name, seed);
        let (at, worker) = (dice.at(), 0);
        if let Some(faults) = together(name, at) {
            schedule.faults = faults;
            return schedule;
        }
        let fault = match name {
            "worker_killed" => {
                schedule.faults.push((dice.at(), Fault::Kill { worker: 1, computing: true }));
                Fault::Kill { worker, computing: true }
            }
            "redis_killed_with_file" => Fault::RedisKill { ms: 200 },
            "redis_killed_without_file" => {
                schedule.redis_keeps = false;
                Fault::RedisKill { ms: 200 }
            }
            "redis_emptied" => Fault::Flush,
            "redis_clock_ahead" => Fault::RedisClock { hours: 2, ms: 5000 },
            "redis_clock_behind" => Fault::RedisClock { hours: -2, ms: 5000 },
            "redis_stalled" => Fault::RedisStall { ms: 10_000 },
            "redis_absent_a_minute" => Fault::RedisKill { ms: 60_000 },
            "worker_cut_off_from_redis" => Fault::RedisCut { worker, ms: 20_000 },
            _ if SLOW.contains(&name) => return schedule.slowly(name, at),
            "s3_answers_with_errors" => s3(Trouble::Errors, 30, 8000),
            "s3_slow" => s3(Trouble::Latency, 30, 8000),
            "s3_breaks_off" => s3(Trouble::Reset, 20, 8000),
            "s3_reads_badly" => s3(Trouble::BadReads, 10, 60_000),
            "s3_killed" => Fault::S3Kill { ms: 1000 },
            "blob_deleted" => Fault::Delete { cold: true },
            "blob_flipped" => Fault::Flip { cold: true },
            "clock_an_hour_ahead" => Fault::Clock { worker, hours: 1 },
            "clock_an_hour_behind" => Fault::Clock { worker, hours: -1 },
            // A bucket refuses requests that are signed with a wrong time; a folder has no signatures.
            "clock_an_hour_ahead_without_s3" => {
                schedule.folder = true;
                Fault::Clock { worker, hours: 1 }
            }
            "clock_an_hour_behind_without_s3" => {
                schedule.folder = true;
                Fault::Clock { worker, hours: -1 }
            }
            _ => {
                let moment = name.strip_prefix("killed_").expect("a fault that is known");
                let point = format!("stage::{}", moment.replace('_', "-"));
                assert!(POINTS.contains(&&*point), "{point}");
                // Not every stage makes others computable.
                let most = if moment.ends_with("enqueue") { 4 } else { 20 };
                Fault::Arm { worker, point: kill_at(&point, dice.within(2, most)) }
            }
        };
        schedule.faults.push((at, fault));
        schedule
    }

    /// Faults that need unfinished work: stages are slowed down, and the fault comes early.
    fn slowly(mut self, name: &str, at: At) -> Self {
        let at = At { stages: 8 + at.stages % 16, ..at };
        let point = "stage::in-compute=sleep(100)".to_owned();
        let slow = |worker| (at, Fault::Arm { worker, point: point.clone() });
        self.faults.extend((0..self.workers).map(slow));
        let fault = match name {
            "redis_evicts_keys" => Fault::RedisUnfit { how: Unfit::Evicting },
            "redis_has_a_foreign_key" => Fault::RedisUnfit { how: Unfit::WrongType },
            "index_edited" => Fault::Index,
            "record_of_a_newer_program" => Fault::Newer { ms: 12_000 },
            "fifos_in_the_store" => Fault::Fifos,
            _ => Fault::Idle { worker: 0, connections: 367 },
        };
        self.folder = fault == Fault::Fifos;
        if matches!(fault, Fault::Idle { .. }) {
            // Otherwise another worker could finish the run before it meets the fault.
            self.workers = 1;
            self.faults.truncate(1);
        }
        self.faults.push((at, fault));
        self
    }

    /// A random mix. `costly` faults, which take half a minute and more, only where asked for.
    pub(crate) fn mix(name: &str, seed: u64, costly: bool) -> Self {
        let mut dice = Dice::new(seed, name);
        let workers = usize::try_from(dice.within(2, 4)).unwrap();
        let redis_keeps = dice.within(0, 2) == 0;
        let mut schedule = Self { workers, redis_keeps, retries: 3, ..Self::calm(name, seed) };
        for _ in 0..dice.within(2, 6) {
            let (at, worker) = (dice.at(), dice.worker(workers));
            let fault = draw(&mut dice, worker);
            if let Fault::SameStage { ms } = fault {
                // Long enough to be given to another worker meanwhile.
                let (passes, long) = (at.stages / 7, ms * 8);
                let slow = format!("{passes}*off->1*sleep({long})->off");
                let point = format!("stage::in-compute::rollout={slow}");
                schedule.faults.push((at, Fault::Arm { worker, point }));
            }
            schedule.faults.push((at, fault));
        }
        if costly {
            let (at, worker) = (dice.at(), dice.worker(workers));
            let fault = match dice.within(0, 5) {
                0 => Fault::RedisKill { ms: 60_000 },
                1 => Fault::S3Kill { ms: 1000 },
                2 => Fault::Stop { worker, ms: 17_000 },
                3 => Fault::RedisStall { ms: 10_000 },
                _ => Fault::Clock { worker, hours: if dice.within(0, 2) == 0 { 1 } else { -1 } },
            };
            schedule.faults.push((at, fault));
        }
        schedule
    }

    /// Whether this is a mix of faults, some of which may come when all is done.
    pub(crate) fn is_mix(&self) -> bool {
        self.retries > 0
    }

    /// Whether Redis needs a clock that can be set.
    pub(crate) fn tampers_with_redis_clock(&self) -> bool {
        self.faults.iter().any(|(_, fault)| matches!(fault, Fault::RedisClock { .. }))
    }

    /// Whether SeaweedFS is killed, and so cannot be shared.
    pub(crate) fn kills_s3(&self) -> bool {
        self.faults.iter().any(|(_, fault)| matches!(fault, Fault::S3Kill { .. }))
    }

    /// Whether all that goes wrong is the death of workers.
    pub(crate) fn only_kills(&self) -> bool {
        let kill = |(_, fault): &(At, Fault)| match fault {
            Fault::Kill { .. } => true,
            Fault::Arm { point, .. } => point.ends_with("return(kill)"),
            _ => false,
        };
        self.faults.iter().all(kill)
    }

    /// Whether all that goes wrong is the clock of this one worker.
    pub(crate) fn only_clock_of(&self) -> Option<usize> {
        match self.faults[..] {
            [(_, Fault::Clock { worker, .. })] => Some(worker),
            _ => None,
        }
    }

    /// The worker that others connect to, with a small table of files.
    pub(crate) fn crowded(&self) -> Option<usize> {
        self.faults.iter().find_map(|(_, fault)| match fault {
            Fault::Idle { worker, .. } => Some(*worker),
            _ => None,
        })
    }

    /// The sum of the faults' durations, in milliseconds.
    pub(crate) fn lasting_ms(&self) -> u64 {
        self.faults.iter().map(|(_, fault)| fault.lasting_ms()).sum()
    }
}

/// Faults that are brought together, or from the very start.
fn together(name: &str, at: At) -> Option<Vec<(At, Fault)>> {
    let (worker, start) = (0, At { stages: 0, ms: 0 });
    let faults = match name {
        // In the middle of a stage, and longer than lease and redelivery.
        "worker_stopped" => {
            let point = "stage::in-compute::rollout=1*off->1*return(stop)->off".to_owned();
            let stop = Fault::Stop { worker, ms: 17_000 };
            vec![(at, Fault::Arm { worker, point }), (At { stages: 20, ms: 0 }, stop)]
        }
        // Times that it records meanwhile are in the future afterwards.
        "redis_emptied_while_its_clock_was_ahead" => {
            let at = At { stages: 12, ms: 0 };
            let clock = Fault::RedisClock { hours: 2, ms: 5000 };
            vec![(at, clock), (At { ms: 1000, ..at }, Fault::Flush)]
        }
        // Workers look at the bucket before they begin.
        "s3_knows_no_checksums" => vec![(start, s3(Trouble::NoChecksums, 100, 8000))],
        "s3_answers_conflict" => vec![(start, s3(Trouble::Conflict, 30, 8000))],
        _ => return None,
    };
    Some(faults)
}

fn s3(trouble: Trouble, percent: u64, ms: u64) -> Fault {
    Fault::S3 { trouble, percent, ms }
}

/// A fault that costs seconds.
fn draw(dice: &mut Dice, worker: usize) -> Fault {
    let short = dice.within(500, 4000);
    let percent = dice.within(5, 35);
    match dice.within(0, 20) {
        0..=2 => Fault::Kill { worker, computing: false },
        3..=6 => {
            let point = POINTS[usize::try_from(dice.within(0, 8)).unwrap()];
            Fault::Arm { worker, point: kill_at(point, dice.within(0, 25)) }
        }
        7 => Fault::Stop { worker, ms: short },
        8 => Fault::RedisKill { ms: short },
        9 => Fault::Flush,
        10 => Fault::RedisStall { ms: short },
        11 => Fault::RedisCut { worker, ms: short },
        12 => s3(Trouble::Errors, percent, short),
        13 => s3(Trouble::Latency, percent, short),
        14 => s3(Trouble::Reset, percent, short),
        15 => s3(Trouble::BadReads, percent.min(10), short),
        16 => s3(Trouble::Conflict, percent, short),
        17 => Fault::RedisClock { hours: if short < 2000 { 2 } else { -2 }, ms: short },
        18 => Fault::Index,
        _ => match dice.within(0, 3) {
            0 => Fault::Delete { cold: short < 2000 },
            1 => Fault::Flip { cold: short < 2000 },
            _ => Fault::SameStage { ms: 400 },
        },
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seed={} workers={}", self.name, self.seed, self.workers)?;
        if !self.redis_keeps {
            f.write_str(" redis-forgets")?;
        }
        for (At { stages, ms }, fault) in &self.faults {
            match fault {
                Fault::Arm { .. } | Fault::Clock { .. } => write!(f, " {fault}")?,
                _ => write!(f, " {fault}@{stages}+{ms}")?,
            }
        }
        Ok(())
    }
}
