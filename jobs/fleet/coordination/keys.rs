//! The keys in Redis, and the type of each.
//!
//! All begin with `agrpo:` and have one hash tag, so that a Redis in cluster mode stores them on one node. A preflight
//! trial has keys of its own below the same prefix. Reads and writes nothing.

use std::sync::Arc;

use agrpo_spec::{Numerics, StageDigest};
use agrpo_store::Versions;

/// The prefix of every key. The hash tag is that of earlier versions, so that their workers' leases count.
const PREFIX: &str = "agrpo:{q8130}:";

/// Which start of Redis this is, and from when leases may be acquired (hash).
pub(crate) const EPOCH: &str = "epoch";
/// Counts leases (string).
pub(crate) const FENCE: &str = "fence";
/// Runs that are paused or cancelled (hash).
pub(crate) const HELD: &str = "held";
/// When each worker was last seen, in milliseconds of Redis' clock (sorted set).
pub(crate) const WORKERS: &str = "workers";
/// Descriptions of workers, by name (hash).
pub(crate) const ABOUT: &str = "workers:about";
/// Runs that are not done (set).
pub(crate) const ACTIVE: &str = "active";
/// How often stages were begun (hash).
pub(crate) const ATTEMPTS: &str = "attempts";
/// Set by the first survey, and missing once Redis is emptied (string).
pub(crate) const SURVEYED: &str = "surveyed";
/// A stage's lease is this and its digest (string).
pub(crate) const LEASE: &str = "lease:";
/// The reconciler's lease is this and the tag of its versions (string).
const RECONCILER: &str = "reconciler:";
/// A queue's keys begin with this, its class and the tag of its versions.
const QUEUE: &str = "queue:";

/// Names that are the same for all fleets of a Redis, with their types.
const FIXED: [(&str, &str); 8] = [
    (EPOCH, "hash"),
    (FENCE, "string"),
    (HELD, "hash"),
    (WORKERS, "zset"),
    (ABOUT, "hash"),
    (ACTIVE, "set"),
    (ATTEMPTS, "hash"),
    (SURVEYED, "string"),
];

/// What follows a queue's name: a key, or a prefix where it ends with a colon.
const OF_QUEUE: [(&str, &str); 6] = [
    ("turns", "zset"),
    ("taken", "zset"),
    ("bases", "hash"),
    ("passed", "zset"),
    ("ready:", "zset"),
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
    /// Keys for a trial, which nothing else uses.
    pub(super) fn of_trial(unique: &str) -> Self {
        Self(format!("{PREFIX}trial:{unique}:").into())
    }

    pub(crate) fn of(&self, name: &str) -> String {
        format!("{}{name}", self.0)
    }

    pub(crate) fn lease(&self, stage: StageDigest) -> String {
        self.of(&format!("{LEASE}{stage}"))
    }

    /// Each set of versions has a reconciler of its own.
    pub(crate) fn reconciler(&self, versions: &Versions) -> String {
        self.of(&format!("{RECONCILER}{}", versions.tag()))
    }

    /// What the keys of a queue begin with.
    pub(crate) fn queue(&self, numerics: Numerics, versions: &Versions) -> String {
        self.of(&format!("{QUEUE}{numerics}:{}", versions.tag()))
    }

    /// The keys whose names do not depend on runs, stages or workers.
    pub(crate) fn fixed(&self) -> Vec<String> {
        let own = Versions::own();
        let mut all: Vec<String> = FIXED.iter().map(|(name, _)| self.of(name)).collect();
        all.push(self.reconciler(&own));
        let queue = self.queue(Numerics::CpuPortable, &own);
        let alone = OF_QUEUE.iter().filter(|(name, _)| !name.ends_with(':'));
        all.extend(alone.map(|(name, _)| format!("{queue}:{name}")));
        all
    }

    /// The type that a key must have; `None` for a key that is not agrpo's.
    pub(super) fn kind(&self, key: &str) -> Option<&'static str> {
        let name = key.strip_prefix(&*self.0)?;
        if let Some((_, kind)) = FIXED.iter().find(|(fixed, _)| *fixed == name) {
            return Some(kind);
        }
        if name.starts_with(LEASE) || name.starts_with(RECONCILER) {
            return Some("string");
        }
        // A class may have a colon of its own.
        let is_tag = |part: &str| part.len() == 12 && part.bytes().all(|b| b.is_ascii_hexdigit());
        let tag = name.strip_prefix(QUEUE)?.split(':').find(|part| is_tag(part))?;
        let (_, part) = name.split_once(&format!("{tag}:"))?;
        let fits = |(name, _): &&(&str, &str)| {
            part == *name || name.ends_with(':') && part.starts_with(name)
        };
        OF_QUEUE.iter().find(fits).map(|(_, kind)| *kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_are_in_one_slot() {
        let (keys, trial) = (Keys::default(), Keys::of_trial("a-1"));
        for key in keys.fixed().iter().chain(&trial.fixed()) {
            // Redis Cluster hashes what stands between the first braces.
            let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
            assert_eq!(tag.map(|(tag, _)| tag), Some("q8130"), "{key}");
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
            (format!("{queue}:turns"), Some("zset")),
            (format!("{queue}:bases"), Some("hash")),
            (format!("{queue}:ready:abc"), Some("zset")),
            (format!("{queue}:joins:abc:update-000001"), Some("set")),
            (format!("{queue}:elsewhere"), None),
            (keys.of("lease:abc"), Some("string")),
            ("another".to_owned(), None),
        ] {
            assert_eq!(keys.kind(&key), kind, "{key}");
        }
    }
}
