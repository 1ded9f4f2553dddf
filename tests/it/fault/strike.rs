//! How faults are brought: when their moment has come, and what each of them does to the scene.

use std::time::{Duration, Instant};

use agrpo_spec::Manifest;
use rustix::process::Signal;

use super::fleet::now_ms;
use super::proxy::Mood;
use super::scene::{LOOK, Scene, lock};
use super::schedule::{At, Fault};

impl Scene {
    pub(super) fn await_moment(&self, at: At) -> bool {
        while (self.ledger().begun.len() as u64) < at.stages {
            if self.is_over() {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        std::thread::sleep(Duration::from_millis(at.ms));
        !self.is_over()
    }

    /// Sleeps, but not beyond the end of the run.
    fn pause(&self, ms: u64) {
        let until = Instant::now() + Duration::from_millis(ms);
        while Instant::now() < until && !self.is_over() {
            std::thread::sleep(LOOK);
        }
    }

    pub(super) fn strike(&self, fault: &Fault) {
        match *fault {
            // These are in force from the start.
            Fault::Arm { .. } | Fault::Clock { .. } => {}
            Fault::Kill { worker } => self.slots[worker].signal(Signal::KILL),
            Fault::Stop { worker, ms } => {
                self.slots[worker].signal(Signal::STOP);
                // To the end: a worker that wakes up when all is done must do no harm.
                std::thread::sleep(Duration::from_millis(ms));
                self.slots[worker].signal(Signal::CONT);
                std::thread::sleep(Duration::from_secs(2));
            }
            Fault::RedisKill { ms } => {
                lock(&self.redis).kill();
                self.pause(ms);
                lock(&self.redis).revive();
            }
            Fault::Flush => {
                lock(&self.redis).ask::<()>(redis::cmd("FLUSHALL")).ok();
            }
            Fault::RedisStall { ms } => {
                self.redis_gates.iter().for_each(|gate| gate.set(Mood::Stalled));
                self.pause(ms);
                self.redis_gates.iter().for_each(|gate| gate.set(Mood::Open));
            }
            Fault::RedisCut { worker, ms } => {
                self.redis_gates[worker].set(Mood::Cut);
                self.pause(ms);
                self.redis_gates[worker].set(Mood::Open);
            }
            Fault::S3 { trouble, percent, ms } => {
                let (_, gate) = self.s3.as_ref().expect("the store is a bucket");
                gate.trouble(trouble, percent, Duration::from_millis(ms));
            }
            Fault::S3Kill { ms } => {
                let (server, _) = self.s3.as_ref().expect("the store is a bucket");
                lock(server).kill();
                self.pause(ms);
                lock(server).revive();
            }
            Fault::Delete { cold } => self.damage(cold, |name| self.objects.delete(name)),
            Fault::Flip { cold } => self.damage(cold, |name| {
                let mut bytes = self.objects.read(name)?;
                let middle = bytes.len() / 2;
                if let Some(byte) = bytes.get_mut(middle) {
                    *byte ^= 1;
                }
                self.objects.write(name, bytes)
            }),
            Fault::SameStage { ms } => self.give_twice(ms),
        }
    }

    /// Damages a result that the next stages need, once there is one.
    fn damage(&self, cold: bool, how: impl Fn(&str) -> Result<(), object_store::Error>) {
        while !self.is_over() {
            if cold && self.newest_result(true).is_some() {
                self.slots.iter().for_each(|slot| slot.signal(Signal::KILL));
                std::thread::sleep(LOOK);
            }
            if let Some(blob) = self.newest_result(cold) {
                if cold {
                    let cached = self.cache_path().join("blobs").join(&blob[..2]).join(&blob);
                    std::fs::remove_file(cached).ok();
                }
                lock(&self.damaged).push(blob.clone());
                // S3 may be away.
                if how(&format!("cas/{blob}")).is_ok() {
                    return;
                }
            }
            std::thread::sleep(LOOK);
        }
    }

    /// A blob of the stage that ended last, of those that others wait for; `cold`: that the next update is
    /// going to read.
    fn newest_result(&self, cold: bool) -> Option<String> {
        let ended = self.ledger().ended;
        let wanted = |kind: &str| match cold {
            true => matches!(kind, "sft" | "update"),
            false => kind != "evaluation",
        };
        let mut newest_first = ended.iter().rev().filter(|end| wanted(&end.kind));
        let (newest, bytes) = newest_first.find_map(|end| {
            let bytes = self.objects.read(&format!("stages/{}", end.stage)).ok()?;
            Some((end, bytes))
        })?;
        let manifest = Manifest::from_bytes(newest.stage.parse().ok()?, &bytes).ok()?;
        let blobs: Vec<_> = manifest.outputs.values().map(|record| record.digest).collect();
        let chosen = usize::from(newest.stage.as_bytes()[0]) % blobs.len().max(1);
        blobs.get(chosen).map(ToString::to_string)
    }

    /// Makes Redis forget that stages were taken and leased, once some are in hand for so long, and asks
    /// for the run again, which offers them at once; again and again, until somebody has begun one of them
    /// a second time. Who is busy now may take it later, when its holder has its lease again.
    fn give_twice(&self, ms: u64) {
        while !self.is_over() {
            let ledger = self.ledger();
            let stages = ledger.in_hand(now_ms() - i64::try_from(ms).unwrap());
            if stages.iter().any(|stage| ledger.begins(stage) > 1) {
                return;
            }
            if !stages.is_empty() && self.forget(&stages) {
                let mut asked = self.program.start(&["enqueue", "run.toml"]);
                // The holder's next heartbeat would take the lease again.
                while asked.try_wait().unwrap().is_none() {
                    self.forget(&stages);
                    std::thread::sleep(LOOK);
                }
            }
            std::thread::sleep(LOOK / 10);
        }
    }

    fn forget(&self, stages: &[&str]) -> bool {
        let redis = lock(&self.redis);
        let mut leases = redis::cmd("DEL");
        for stage in stages {
            leases.arg(format!("agrpo:lease:{stage}"));
        }
        // A queue's name goes on with the versions that it is for.
        let mut queues = redis::cmd("KEYS");
        queues.arg("agrpo:cpu-portable:*:taken");
        let Ok(queues) = redis.ask::<Vec<String>>(queues) else { return false };
        let mut untaken = queues.iter().map(|queue| {
            let mut taken = redis::cmd("ZREM");
            taken.arg(queue).arg(stages);
            redis.ask::<u64>(taken).is_ok()
        });
        redis.ask::<u64>(leases).is_ok() && untaken.all(|done| done)
    }
}
