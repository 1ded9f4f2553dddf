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
            if let Some(blob) = self.newest_result() {
                if cold {
                    self.slots.iter().for_each(|slot| slot.signal(Signal::KILL));
                }
                how(&format!("cas/{blob}")).unwrap();
                lock(&self.damaged).push(blob);
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// A blob of the stage that ended last, of those that others wait for.
    fn newest_result(&self) -> Option<String> {
        let ended = self.ledger().ended;
        let newest = ended.iter().rev().find(|entry| entry.kind != "evaluation")?;
        let bytes = self.objects.read(&format!("stages/{}", newest.stage)).ok()?;
        let manifest = Manifest::from_bytes(newest.stage.parse().ok()?, &bytes).ok()?;
        let blobs: Vec<_> = manifest.outputs.values().map(|record| record.digest).collect();
        let chosen = usize::from(newest.stage.as_bytes()[0]) % blobs.len().max(1);
        blobs.get(chosen).map(ToString::to_string)
    }

    /// Makes Redis forget that stages are offered and leased, once some are in hand for so long.
    fn give_twice(&self, ms: u64) {
        while !self.is_over() {
            let ledger = self.ledger();
            let mut forget = redis::cmd("DEL");
            let stages = ledger.in_hand(now_ms() - i64::try_from(ms).unwrap());
            for stage in &stages {
                forget.arg(format!("agrpo:offered:{stage}")).arg(format!("agrpo:lease:{stage}"));
            }
            if !stages.is_empty() && lock(&self.redis).ask::<u64>(forget).is_ok() {
                return;
            }
            std::thread::sleep(LOOK / 10);
        }
    }
}
