//! Faults that the program has to detect: records that were edited or written by a newer program, a Redis that answers
//! and cannot serve, FIFOs in place of files. Each is reverted after a while, as the error message suggests; the
//! message is the evidence.

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use agrpo_spec::ArtifactDigest;
use rustix::process::Signal;

use super::scene::{Scene, lock};
use super::witness::Missed;

/// Why a Redis cannot serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It drops keys when its memory is full.
    Evicting,
    /// One of the program's keys has another type.
    WrongType,
}

fn unmet(why: impl Into<String>) -> Missed {
    Missed::Unmet(why.into())
}

impl Scene {
    /// Updates that the index of the run names, the oldest first: keys and digests.
    fn updates(&self) -> Option<Vec<(String, String)>> {
        let entries = self.objects.list(&format!("runs/{}/stages", self.run)).ok()?;
        let update = |entry: &String| {
            let (key, digest) = entry.split_once('.')?;
            key.starts_with("update-").then(|| (key.to_owned(), digest.to_owned()))
        };
        let mut updates: Vec<_> = entries.iter().filter_map(update).collect();
        updates.sort();
        Some(updates)
    }

    fn kill_all(&self) {
        self.slots.iter().for_each(|slot| _ = slot.signal(Signal::KILL));
    }

    /// Makes the index of the run, and its notes, name the update before in place of the newest, while no worker
    /// lives that remembers the newest.
    pub(super) fn edit_index(&self) -> Result<String, Missed> {
        let folder = |kind: &str, name: &str| format!("runs/{}/{kind}/{name}", self.run);
        self.pause_until(0, || {
            let updates = self.updates()?;
            let [.., (_, old), (key, new)] = &updates[..] else { return None };
            let (before, _) = &updates[updates.len() - 2];
            self.kill_all();
            let entry = self.objects.read(&folder("stages", &format!("{before}.{old}"))).ok()?;
            let planted = folder("stages", &format!("{key}.{old}"));
            lock(&self.planted).push((planted.clone(), entry.clone()));
            self.objects.write(&planted, entry).ok()?;
            self.objects.delete(&folder("stages", &format!("{key}.{new}"))).ok()?;
            // Notes are made a moment after the entry; there may be none yet.
            if let Ok(note) = self.objects.read(&folder("policies", before)) {
                let path = folder("policies", key);
                lock(&self.planted).push((path.clone(), note.clone()));
                self.objects.write(&path, note).ok()?;
            }
            Some(format!("{key} was called {}, not {}", &old[..12], &new[..12]))
        })
    }

    /// Replaces the record of the newest update by that of a newer program: workers have to wait, and none may
    /// remove it.
    pub(super) fn renew_record(&self, ms: u64) -> Result<String, Missed> {
        let (name, old) = self.pause_until(0, || {
            let (_, digest) = self.updates()?.pop()?;
            let name = format!("stages/{digest}");
            let old = self.objects.read(&name).ok()?;
            Some((name, old))
        })?;
        let new = newer(&old);
        self.kill_all();
        self.objects.write(&name, new.clone()).map_err(|error| unmet(error.to_string()))?;
        self.pause(ms);
        let found = self.objects.read(&name);
        let aside = self.objects.list("aside").unwrap_or_default();
        let said = self.said_by_workers("another version");
        let run = self.program.run(&["status", &self.run]);
        self.objects.write(&name, old).map_err(|error| unmet(error.to_string()))?;
        if self.is_over() {
            return Err(Missed::Over);
        }
        match found {
            Ok(found) if found != new => Err(unmet(format!("{name} was overwritten"))),
            Err(_) => Err(unmet(format!("{name} was removed"))),
            Ok(_) if !aside.is_empty() => Err(unmet(format!("{aside:?} was moved aside"))),
            Ok(_) if said == 0 => Err(unmet("no worker said that it is newer")),
            Ok(_) if run.code != Some(0) => Err(unmet(format!("status ended with {run:?}"))),
            Ok(_) => Ok(format!("{} stood for {ms} ms, reported {said} times", &name[..19])),
        }
    }

    /// How often the workers' logs contain these words.
    fn said_by_workers(&self, words: &str) -> usize {
        (0..self.slots.len()).map(|worker| self.log(worker).matches(words).count()).sum()
    }

    /// Processes that ended with a code since a moment.
    fn ended_with(&self, code: i32, since_ms: i64) -> usize {
        let deaths = self.deaths();
        deaths.iter().filter(|death| death.code == Some(code) && death.ms >= since_ms).count()
    }

    /// Makes Redis unfit, waits until a worker has refused it for good, and makes it fit again.
    pub(super) fn spoil_redis(&self, how: Unfit) -> Result<String, Missed> {
        let since = super::fleet::now_ms();
        let ask = |command: redis::Cmd| lock(&self.redis).ask::<redis::Value>(command).ok();
        let policy = |policy: &str| {
            let mut command = redis::cmd("CONFIG");
            command.arg("SET").arg("maxmemory-policy").arg(policy);
            command
        };
        let (name, remedy) = match how {
            Unfit::Evicting => {
                self.pause_until(0, || ask(policy("allkeys-lru")))?;
                ("maxmemory-policy".to_owned(), policy("noeviction"))
            }
            Unfit::WrongType => {
                let key = self.pause_until(0, || {
                    let keys = redis::cmd("KEYS").arg("agrpo:*").take();
                    let keys = lock(&self.redis).ask::<Vec<String>>(keys).ok()?;
                    // A key that every worker reads.
                    let key = keys.into_iter().find(|key| key.ends_with("epoch"))?;
                    ask(redis::Cmd::del(&key))?;
                    ask(redis::Cmd::lpush(&key, "another's"))?;
                    Some(key)
                })?;
                (key.clone(), redis::Cmd::del(&key))
            }
        };
        // Running workers have checked it at their start.
        self.kill_all();
        let refused = self.pause_until(0, || {
            let refused = self.ended_with(2, since);
            (refused > 0 && self.said_by_workers(&name) > 0).then_some(refused)
        });
        self.pause_until(0, || ask(remedy.clone()))?;
        refused.map(|refused| format!("{refused} processes refused it for {name}"))
    }

    /// Puts FIFOs where blobs and manifests are, and asks for everything that could wait for a writer.
    pub(super) fn plant_fifos(&self) -> Result<String, Missed> {
        let store = self.program.store();
        let digest = ArtifactDigest::of(b"a FIFO").to_string();
        let planted = [format!("cas/{digest}"), format!("stages/{digest}")];
        for name in &planted {
            let path = store.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        }
        let mut said = vec![];
        for (verb, code) in [("verify", 5), ("status", 0), ("gc", 0)] {
            let begin = Instant::now();
            let mut asked = self.program.start(&[verb]);
            while asked.try_wait().unwrap().is_none() {
                if begin.elapsed() > Duration::from_secs(30) {
                    asked.kill().unwrap();
                }
                std::thread::sleep(super::scene::LOOK);
            }
            let ended = asked.wait().unwrap().code();
            if ended != Some(code) {
                said.push(format!("{verb} ended with {ended:?}, not {code}"));
            }
        }
        // gc deletes some of them; the others are removed here.
        for name in &planted {
            std::fs::remove_file(store.join(name)).ok();
        }
        match &said[..] {
            [] => Ok("verify reported 5, status and gc went on".to_owned()),
            wrong => Err(unmet(wrong.join("; "))),
        }
    }

    /// Opens idle connections to a worker's metrics, more than it may open files, and holds them.
    pub(super) fn idle(&self, worker: usize, connections: usize) -> Result<String, Missed> {
        let port = self.metrics_port(worker);
        let mut held = vec![];
        let pid = self.pause_until(0, || {
            held.push(connect(port)?);
            self.lives(worker).last().copied()
        })?;
        while held.len() < connections && !self.is_over() {
            held.extend(connect(port));
        }
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        let begun = self.ledger().begun.iter().filter(|begun| begun.pid == pid).count();
        self.pause_until(0, || {
            let now = self.ledger().begun.iter().filter(|begun| begun.pid == pid).count();
            (now > begun).then_some(())
        })?;
        let lines = self.log(worker).lines().count();
        match lines {
            0..=200 => {
                Ok(format!("{} connections, {open} files open, {lines} log lines", held.len()))
            }
            _ => Err(unmet(format!("the worker wrote {lines} lines"))),
        }
    }
}

fn connect(port: u16) -> Option<TcpStream> {
    let address = (std::net::Ipv4Addr::LOCALHOST, port).into();
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()
}

/// A record as a program writes it that is newer than this one: its format, one more field, and its digest.
fn newer(old: &[u8]) -> Vec<u8> {
    let mut record: serde_json::Value = serde_json::from_slice(old).unwrap();
    let fields = record.as_object_mut().unwrap();
    fields.retain(|name, _| name != "format" && name != "sha256");
    fields.insert("of_the_future".to_owned(), true.into());
    let fields = serde_json::to_string_pretty(&record).unwrap();
    let zeros = "0".repeat(64);
    let text = format!("{{\n  \"format\": 2,\n  \"sha256\": \"{zeros}\",{}", &fields[1..]);
    let digest = ArtifactDigest::of(text.as_bytes()).to_string();
    text.replacen(&zeros, &digest, 1).into_bytes()
}
