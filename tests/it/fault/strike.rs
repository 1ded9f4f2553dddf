//! Brings faults: waits for their moments, and applies them to the scene.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use agrpo_spec::{ArtifactDigest, Manifest};
use rustix::process::Signal;

use super::fleet::{now_ms, stands_still};
use super::kinds::Fault;
use super::ledger::Entry;
use super::proxy::{Gate, Mood};
use super::scene::{LOOK, Scene, lock};
use super::schedule::At;
use super::witness::Missed;

/// A key that Redis loses or keeps while it is down.
const MARK: &str = "agrpo-fault:mark";

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
    pub(super) fn pause(&self, ms: u64) {
        let until = Instant::now() + Duration::from_millis(ms);
        while Instant::now() < until && !self.is_over() {
            std::thread::sleep(LOOK);
        }
    }

    /// The same, then waits until there is evidence of the fault, or the run has ended.
    pub(super) fn pause_until<T>(
        &self,
        ms: u64,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<T, Missed> {
        self.pause(ms);
        loop {
            // Once more after the end: the last evidence counts.
            let is_over = self.is_over();
            match look() {
                Some(found) => return Ok(found),
                None if is_over => return Err(Missed::Over),
                None => std::thread::sleep(LOOK),
            }
        }
    }

    /// Brings a fault and returns the evidence that it took place; `None` if the evidence is there only at the end.
    pub(super) fn strike(&self, fault: &Fault) -> Option<Result<String, Missed>> {
        Some(match *fault {
            // These are in force from the start.
            Fault::Arm { .. } | Fault::Clock { .. } => return None,
            Fault::Kill { worker, computing } => self.kill(worker, computing),
            Fault::Stop { worker, ms } => self.stop(worker, ms),
            Fault::RedisKill { ms } => self.kill_redis(ms),
            Fault::RedisClock { hours, ms } => self.set_redis_clock(hours, ms),
            Fault::Flush => self.flush(),
            Fault::RedisStall { ms } => {
                let waiting = || self.redis_gates.iter().map(|gate| gate.hits().stalled).sum();
                self.at_gates(&self.redis_gates, Mood::Stalled, ms, waiting, "messages waited")
            }
            Fault::RedisCut { worker, ms } => {
                let gate = &self.redis_gates[worker..=worker];
                let cut = || gate[0].hits().cut;
                self.at_gates(gate, Mood::Cut, ms, cut, "connections were cut or refused")
            }
            Fault::S3 { trouble, percent, ms } => {
                let (_, gate) = self.s3.as_ref().expect("the store is a bucket");
                let hits = gate.trouble(trouble, percent, Duration::from_millis(ms));
                let hit = || Some(hits.load(Ordering::Relaxed)).filter(|&hits| hits > 0);
                self.pause_until(ms, hit).map(|_| format!("met {} requests", hit().unwrap_or(0)))
            }
            Fault::S3Kill { ms } => {
                let (server, gate) = self.s3.as_ref().expect("the store is a bucket");
                let before = gate.hits().alone;
                lock(server).kill();
                let met = self
                    .pause_until(ms, || Some(gate.hits().alone - before).filter(|&met| met > 0));
                lock(server).revive();
                met.map(|_| format!("{} requests met no server", gate.hits().alone - before))
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
            Fault::RedisUnfit { how } => self.spoil_redis(how),
            Fault::Index => self.edit_index(),
            Fault::Newer { ms } => self.renew_record(ms),
            Fault::Fifos => self.plant_fifos(),
            Fault::Idle { worker, connections } => self.idle(worker, connections),
        })
    }

    /// Stops a worker and kills it, so that its stage is known.
    fn kill(&self, worker: usize, computing: bool) -> Result<String, Missed> {
        let slot = &self.slots[worker];
        self.pause_until(0, || {
            let pid = slot.stop()?;
            let ledger = self.ledger();
            let at_work = ledger.at_work(pid);
            if at_work.is_none() && computing {
                slot.signal(Signal::CONT);
                return None;
            }
            let doing = at_work.map_or_else(|| "between stages".to_owned(), Entry::to_string);
            (slot.signal(Signal::KILL) == Some(pid)).then(|| format!("process {pid} died {doing}"))
        })
    }

    fn stop(&self, worker: usize, ms: u64) -> Result<String, Missed> {
        let slot = &self.slots[worker];
        let stopped = self.pause_until(0, || slot.stop());
        // Sleeps to the end: a worker that wakes up after the run must do no harm.
        std::thread::sleep(Duration::from_millis(ms));
        let stood = stopped.clone().is_ok_and(stands_still);
        slot.signal(Signal::CONT);
        std::thread::sleep(Duration::from_secs(2));
        match stopped {
            Ok(pid) if stood => Ok(format!("process {pid} stood still for {ms} ms")),
            // Another fault of the mix ended it.
            Ok(pid) => Ok(format!("process {pid} stood still until it was killed")),
            Err(missed) => Err(missed),
        }
    }

    /// Kills Redis once workers are connected to it.
    fn kill_redis(&self, ms: u64) -> Result<String, Missed> {
        let mut redis = lock(&self.redis);
        let clients = self.pause_until(0, || {
            redis.ask::<()>(redis::Cmd::set(MARK, 1)).ok()?;
            let all = redis.ask::<String>(redis::cmd("CLIENT").arg("LIST").take()).ok()?;
            // Ours is one of them.
            Some(all.lines().count() - 1).filter(|&clients| clients > 0)
        });
        redis.kill();
        self.pause(ms);
        redis.revive();
        let knows = redis.ask::<u64>(redis::Cmd::del(MARK)).expect("it answers") > 0;
        let knows = if knows { "what it knew" } else { "nothing" };
        clients.map(|clients| format!("{clients} connections broke, and it came back with {knows}"))
    }

    /// A change and, after a while, its reversal.
    fn set_redis_clock(&self, hours: i8, ms: u64) -> Result<String, Missed> {
        let seconds = i64::from(hours) * 3600;
        lock(&self.redis).set_clock(seconds);
        let stood = self.pause_until(0, || lock(&self.redis).ahead().ok());
        self.pause(ms);
        lock(&self.redis).set_clock(0);
        let stands = self.pause_until(0, || lock(&self.redis).ahead().ok())?;
        match stood? {
            stood if (stood - seconds).abs() < 5 && stands.abs() < 5 => {
                Ok(format!("its clock stood {stood:+} s off for {ms} ms"))
            }
            stood => Err(Missed::Unmet(format!("its clock stood {stood:+} s off"))),
        }
    }

    fn flush(&self) -> Result<String, Missed> {
        self.pause_until(0, || {
            let mut both = redis::pipe();
            both.atomic().cmd("DBSIZE").cmd("FLUSHALL").ignore();
            let (keys,): (u64,) = lock(&self.redis).ask_all(&both).ok()?;
            (keys > 0).then(|| format!("{keys} keys went"))
        })
    }

    /// Sets gates to a state for so long, and until a connection met it.
    fn at_gates(
        &self,
        gates: &[Gate],
        mood: Mood,
        ms: u64,
        met: impl Fn() -> u32,
        what: &str,
    ) -> Result<String, Missed> {
        let before = met();
        gates.iter().for_each(|gate| gate.set(mood));
        let found = self.pause_until(ms, || Some(met() - before).filter(|&met| met > 0));
        gates.iter().for_each(|gate| gate.set(Mood::Open));
        found.map(|_| format!("{} {what}", met() - before))
    }

    /// Damages a result that the next stages need, once there is one.
    fn damage(
        &self,
        cold: bool,
        how: impl Fn(&str) -> Result<(), object_store::Error>,
    ) -> Result<String, Missed> {
        self.pause_until(0, || {
            if cold && self.newest_result(true).is_some() {
                self.slots.iter().for_each(|slot| _ = slot.signal(Signal::KILL));
                std::thread::sleep(LOOK);
            }
            let blob = self.newest_result(cold)?;
            if cold {
                let cached = self.cache_path().join("blobs").join(&blob[..2]).join(&blob);
                std::fs::remove_file(cached).ok();
            }
            lock(&self.damaged).push(blob.clone());
            let name = format!("cas/{blob}");
            // S3 may be down.
            how(&name).ok()?;
            let now = self.objects.read(&name);
            let is_whole = |bytes: &Vec<u8>| ArtifactDigest::of(bytes).to_string() == blob;
            // A stage that needs it may have had it recomputed already.
            let state = match &now {
                Ok(bytes) if is_whole(bytes) => "whole again at once",
                Ok(_) => "corrupt",
                Err(_) => "gone",
            };
            Some(format!("{} is {state}", &blob[..12]))
        })
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
        let manifest = Manifest::open(newest.stage.parse().ok()?, &bytes).ok()?.value;
        let blobs: Vec<_> = manifest.outputs.values().map(|record| record.digest).collect();
        let chosen = usize::from(newest.stage.as_bytes()[0]) % blobs.len().max(1);
        blobs.get(chosen).map(ToString::to_string)
    }

    /// Makes Redis forget that stages were taken and leased, once some are in hand for so long, and enqueues
    /// the run again, which offers them at once; repeated until a worker has begun one of them a second time.
    /// A worker that is busy now may take it later, when its holder has its lease again.
    fn give_twice(&self, ms: u64) -> Result<String, Missed> {
        while !self.is_over() {
            let ledger = self.ledger();
            let stages = ledger.in_hand(now_ms() - i64::try_from(ms).unwrap());
            if let Some(twice) = stages.iter().find(|stage| ledger.begins(stage) > 1) {
                return Ok(format!("{} was begun twice", &twice[..12]));
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
        Err(Missed::Over)
    }

    fn forget(&self, stages: &[&str]) -> bool {
        let redis = lock(&self.redis);
        let mut leases = redis::cmd("DEL");
        for stage in stages {
            leases.arg(format!("agrpo:{{q8130}}:lease:{stage}"));
        }
        // A queue's name goes on with the versions that it is for.
        let mut queues = redis::cmd("KEYS");
        queues.arg("agrpo:{q8130}:queue:cpu-portable:*:taken");
        let Ok(queues) = redis.ask::<Vec<String>>(queues) else { return false };
        let mut untaken = queues.iter().map(|queue| {
            let mut taken = redis::cmd("ZREM");
            taken.arg(queue).arg(stages);
            redis.ask::<u64>(taken).is_ok()
        });
        redis.ask::<u64>(leases).is_ok() && untaken.all(|done| done)
    }
}
