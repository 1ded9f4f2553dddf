//! The names of everything that is kept in Redis, and the type that each of them has.
//!
//! All of them begin with `agrpo:` and have one hash tag, so that a Redis in cluster mode keeps them on
//! one node. The tag falls into the slot of the one key that apalis names itself, which its scripts use
//! beside ours. A trial of what a Redis allows has names of its own below the same beginning. Reads and
//! writes nothing.

use std::sync::Arc;

use agrpo_spec::{Numerics, StageDigest};

use agrpo_store::Versions;

/// What every name begins with. `q8130` has the slot of `core:apalis:queues:list`.
const PREFIX: &str = "agrpo:{q8130}:";
/// Where apalis lists the queues that ever had a worker.
pub(crate) const APALIS_QUEUES: &str = "core:apalis:queues:list";

/// Which life of Redis this is (hash).
pub(crate) const EPOCH: &str = "epoch";
/// Counts leases (string).
pub(crate) const FENCE: &str = "fence";
/// Runs of which no stage may be taken, and why (hash).
pub(crate) const HELD: &str = "held";
/// Workers by when they were last seen, in milliseconds of Redis' clock (sorted set).
pub(crate) const WORKERS: &str = "workers";
/// What workers say about themselves, by name (hash).
pub(crate) const ABOUT: &str = "workers:about";
/// Runs that are not done (set).
pub(crate) const ACTIVE: &str = "active";
/// How often stages were begun (hash).
pub(crate) const ATTEMPTS: &str = "attempts";
/// Is there from the first survey on, until Redis is emptied (string).
pub(crate) const SURVEYED: &str = "surveyed";
/// Counts tasks (string).
pub(crate) const GENERATION: &str = "generation";
/// A stage's lease is this and its digest (string).
pub(crate) const LEASE: &str = "lease:";
/// The sweeper's lease is this and the tag of its versions (string).
const SWEEPER: &str = "sweeper:";

/// Names that are the same for all fleets of a Redis, with their types.
const FIXED: [(&str, &str); 9] = [
    (EPOCH, "hash"),
    (FENCE, "string"),
    (HELD, "hash"),
    (WORKERS, "zset"),
    (ABOUT, "hash"),
    (ACTIVE, "set"),
    (ATTEMPTS, "hash"),
    (SURVEYED, "string"),
    (GENERATION, "string"),
];

/// What follows a queue's name: alone, or with a name behind it.
const OF_QUEUE: [(&str, &str); 14] = [
    ("active", "list"),
    ("workers", "zset"),
    ("dead", "set"),
    ("done", "set"),
    ("inflight:", "set"),
    ("data", "hash"),
    ("meta:", "hash"),
    ("scheduled", "zset"),
    ("signal", "list"),
    ("ready:", "zset"),
    ("window:", "hash"),
    ("turns", "zset"),
    ("taken", "zset"),
    ("joins:", "set"),
];

/// The names of one fleet's keys. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Keys(Arc<str>);

impl Default for Keys {
    fn default() -> Self {
        Self(PREFIX.into())
    }
}

impl Keys {
    /// Names that nothing else has, for a trial.
    pub(super) fn of_trial(unique: &str) -> Self {
        Self(format!("{PREFIX}trial:{unique}:").into())
    }

    /// A key's whole name.
    pub(crate) fn of(&self, name: &str) -> String {
        format!("{}{name}", self.0)
    }

    pub(crate) fn lease(&self, stage: StageDigest) -> String {
        self.of(&format!("{LEASE}{stage}"))
    }

    /// Each set of versions has a sweeper of its own.
    pub(crate) fn sweeper(&self, versions: &Versions) -> String {
        self.of(&format!("{SWEEPER}{}", versions.tag()))
    }

    /// What the keys of a queue begin with.
    pub(crate) fn queue(&self, numerics: Numerics, versions: &Versions) -> String {
        self.of(&format!("{numerics}:{}", versions.tag()))
    }

    /// A pattern that all keys fit, and no others.
    pub(super) fn pattern(&self) -> String {
        // The braces stand for themselves.
        format!("{}*", self.0)
    }

    /// The keys whose names do not depend on runs, stages or workers.
    pub(crate) fn fixed(&self) -> Vec<String> {
        let own = Versions::own();
        let mut all: Vec<String> = FIXED.iter().map(|(name, _)| self.of(name)).collect();
        all.extend([APALIS_QUEUES.to_owned(), self.sweeper(&own)]);
        for numerics in Numerics::OF_CPU {
            let queue = self.queue(numerics, &own);
            let alone = OF_QUEUE.iter().filter(|(name, _)| !name.ends_with(':'));
            all.extend(alone.map(|(name, _)| format!("{queue}:{name}")));
        }
        all
    }

    /// The type that a key has to have; `None` for names that are not ours.
    pub(super) fn kind(&self, key: &str) -> Option<&'static str> {
        if key == APALIS_QUEUES {
            return Some("zset");
        }
        let name = key.strip_prefix(&*self.0)?;
        if let Some((_, kind)) = FIXED.iter().find(|(fixed, _)| *fixed == name) {
            return Some(kind);
        }
        if name.starts_with(LEASE) || name.starts_with(SWEEPER) {
            return Some("string");
        }
        // `<class>:<tag>:<part>`, where a class may have a colon of its own.
        let is_tag = |part: &str| part.len() == 12 && part.bytes().all(|b| b.is_ascii_hexdigit());
        let tag = name.split(':').find(|part| is_tag(part))?;
        let (_, part) = name.split_once(&format!("{tag}:"))?;
        if part.starts_with("workers:metadata:") {
            return Some("hash");
        }
        let fits = |(name, _): &&(&str, &str)| {
            if name.ends_with(':') { part.starts_with(name) } else { part == *name }
        };
        OF_QUEUE.iter().find(fits).map(|(_, kind)| *kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-16 (XMODEM) of what stands between the first braces, as Redis Cluster has it.
    fn slot(key: &str) -> u16 {
        let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        let crc = |crc: u16, byte: u8| {
            let mixed = crc ^ (u16::from(byte) << 8);
            (0..8).fold(mixed, |crc, _| (crc << 1) ^ if crc & 0x8000 != 0 { 0x1021 } else { 0 })
        };
        tag.map_or(key, |(tag, _)| tag).bytes().fold(0, crc) % 16_384
    }

    #[test]
    fn all_keys_are_in_the_slot_of_the_one_that_apalis_names() {
        assert_eq!(slot("123456789"), 0x31C3, "the check value of the specification");
        let (keys, trial) = (Keys::default(), Keys::of_trial("a-1"));
        for key in keys.fixed().iter().chain(&trial.fixed()) {
            assert_eq!(slot(key), slot(APALIS_QUEUES), "{key}");
        }
    }

    #[test]
    fn every_key_has_its_type() {
        let keys = Keys::default();
        for key in keys.fixed() {
            assert!(keys.kind(&key).is_some(), "{key}");
        }
        let queue = keys.queue("cuda:90".parse().unwrap(), &Versions::own());
        for (key, kind) in [
            (format!("{queue}:window:abc"), Some("hash")),
            (format!("{queue}:workers"), Some("zset")),
            (format!("{queue}:workers:metadata:w-1"), Some("hash")),
            (format!("{queue}:inflight:w-1"), Some("set")),
            (format!("{queue}:elsewhere"), None),
            (keys.of("lease:abc"), Some("string")),
            ("another".to_owned(), None),
        ] {
            assert_eq!(keys.kind(&key), kind, "{key}");
        }
    }
}
