//! A run's own stages: walks its plan from its configuration along checked records.
//!
//! An entry of the run's index counts only if the plan has this very stage: each spec is derived anew from the run and
//! the outputs before it, and its digest compared. Another entry is ignored, and logged once. If a record cannot be
//! read, the walk goes on after the next policy whose note is sealed for this run and key (`Records::policy_note`):
//! this program writes one only for a stage that it derived in the same way. Records that the index does not name are
//! followed as well, so a lost entry hides nothing. Changes nothing and computes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agrpo_spec::{Manifest, Plan, Run, StageDigest, StageKey, StageKind, StageSpec};
use agrpo_store::{JobsError, Store, Unreadable, paths};

use super::policy_notes::{checkpoint, policy_at};
use super::steps::{Entry, Record, Stages, Steps, each, record, take};
use crate::Result;

/// Stages of a run with their records, in the order in which they were found.
pub(super) type Found = Vec<(StageKey, Arc<Manifest>)>;

/// A run, as far as it was walked.
#[derive(Clone, Debug)]
pub struct Walk {
    plan: Plan,
    stages: Stages,
    /// Entries that name another stage than the run has with this key.
    incompatible: BTreeSet<Entry>,
    /// Entries to which no record has led so far.
    unproven: BTreeSet<Entry>,
    /// Stages of the run whose records cannot be read, and why.
    unreadable: BTreeMap<StageKey, (StageDigest, Unreadable)>,
}

impl Walk {
    /// A walk at the run's start.
    pub fn new(run: Run) -> Self {
        Self {
            plan: Plan::new(run),
            stages: BTreeMap::new(),
            incompatible: BTreeSet::new(),
            unproven: BTreeSet::new(),
            unreadable: BTreeMap::new(),
        }
    }

    /// Follows new entries of the run's index, and records that it does not name; returns the run's own stages that
    /// are new, or all of them after an unreadable record became readable. Costs one listing, and one read for each
    /// new and each pending stage.
    pub async fn advance(&mut self, store: &Store) -> Result<Found> {
        let read = |stage| record(store, stage);
        let lost = self.unreadable.values().map(|(stage, _)| *stage);
        if each(lost, read).await?.iter().any(|record: &Record| matches!(record, Ok(Some(_)))) {
            // A record can be read again: starts over to find what follows from it.
            *self = Self::new(self.run().clone());
        }
        let id = self.run().id();
        let mut entries: BTreeSet<Entry> =
            store.records.recorded_entries(id).await?.into_iter().collect();
        entries.retain(|entry| {
            self.stages.get(&entry.0) != Some(&entry.1) && !self.incompatible.contains(entry)
        });
        let mut steps = Steps::ahead(entries.iter().map(|(_, stage)| *stage), read).await?;
        let mut found = vec![];
        loop {
            while let Some((entry, record)) = steps.next(&self.plan, |_| true, read).await? {
                if entries.contains(&entry) || !matches!(record, Ok(None)) {
                    self.enter(store, entry, record, &mut found);
                }
            }
            entries.retain(|&(key, stage)| {
                let expected = self.expected(key);
                if expected.is_some_and(|expected| expected != stage) {
                    self.incompatible.insert((key, stage));
                    store.records.log_incompatible(id, key, stage);
                }
                expected.is_none()
            });
            if !self.follow_notes(store, &entries, &steps.ahead, &mut found).await? {
                break;
            }
        }
        entries.retain(|(key, _)| self.expected(*key).is_none());
        self.unproven = entries;
        Ok(found)
    }

    /// The run.
    pub fn run(&self) -> &Run {
        self.plan.run()
    }

    /// The run's own stages that were found, in the order of the plan.
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// Stages of the run whose records cannot be read, or are missing though the index names them.
    pub fn unreadable(&self) -> &BTreeMap<StageKey, (StageDigest, Unreadable)> {
        &self.unreadable
    }

    /// Keys of stages that were done, whether or not their records can still be read. After a record that cannot be
    /// read, an entry of the index counts unless the run has another stage with its key.
    pub fn done_keys(&self) -> BTreeSet<StageKey> {
        let unproven = self.unproven.iter().filter(|_| !self.unreadable.is_empty());
        let unproven = unproven.map(|(key, _)| key);
        self.stages.keys().chain(self.unreadable.keys()).chain(unproven).copied().collect()
    }

    /// Entries of the index that do not count. One to which no record leads counts while a record before it cannot be
    /// read.
    pub fn wrong(&self) -> impl Iterator<Item = Entry> {
        let unproven = self.unproven.iter().filter(|_| self.unreadable.is_empty());
        self.incompatible.iter().chain(unproven).copied()
    }

    /// The stage that the run has with this key, done or not, if the walk has reached it.
    pub fn expected(&self, key: StageKey) -> Option<StageDigest> {
        let unreadable = || self.unreadable.get(&key).map(|(stage, _)| *stage);
        let pending = || self.plan.pending().get(&key).map(StageSpec::digest);
        self.stages.get(&key).copied().or_else(unreadable).or_else(pending)
    }

    /// Takes over a stage of the run, or remembers that its record cannot be read.
    fn enter(&mut self, store: &Store, (key, stage): Entry, record: Record, found: &mut Found) {
        let error = match record {
            Ok(Some(manifest)) => {
                // Readers of a missing output report it.
                take(&mut self.plan, key, &manifest).ok();
                self.stages.insert(key, stage);
                self.unreadable.remove(&key);
                found.push((key, manifest));
                return;
            }
            Ok(None) => JobsError::data(format!(
                "{}, though the run's index names it; start the run again: the stage is then computed anew",
                store.records.missing(&paths::manifest(stage))
            )),
            Err(error) => error,
        };
        let record = Unreadable::new(paths::manifest(stage), &error);
        self.unreadable.insert(key, (stage, Unreadable { key: Some(key), ..record }));
    }

    /// Takes over stages that sealed notes name, if an unreadable record keeps the walk from reaching them; returns
    /// whether the plan goes on after one of them.
    async fn follow_notes(
        &mut self,
        store: &Store,
        entries: &BTreeSet<Entry>,
        records: &BTreeMap<StageDigest, Record>,
        found: &mut Found,
    ) -> Result<bool> {
        if self.unreadable.is_empty() {
            return Ok(false);
        }
        for &(key, stage) in entries {
            let record = records.get(&stage).filter(|_| self.expected(key).is_none());
            let Some(record) = record else { continue };
            let manifest = record.as_ref().ok().and_then(Option::as_ref);
            let may_follow = manifest.is_none_or(|manifest| self.may_follow(key, &manifest.spec));
            if !may_follow || !self.is_noted(store, key, stage).await? {
                continue;
            }
            let leaps = match manifest {
                Some(manifest) => self.leap(store, key, manifest).await?,
                None => false,
            };
            self.enter(store, (key, stage), record.clone(), found);
            if leaps {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a note that is sealed for this run names a stage, or the policy that an evaluation is of.
    async fn is_noted(&self, store: &Store, key: StageKey, stage: StageDigest) -> Result<bool> {
        let run = self.run();
        match key.kind {
            StageKind::Sft | StageKind::Update | StageKind::Updates => {
                Ok(store.records.recorded_policy(run.id(), key).await? == Some(stage))
            }
            StageKind::Evaluation if run.is_evaluated(key.iteration) => {
                let policy = policy_at(store, run, key.iteration).await?;
                let spec = policy.and_then(|policy| Plan::evaluation_of(run, key, policy));
                Ok(spec.is_some_and(|spec| spec.digest() == stage))
            }
            _ => Ok(false),
        }
    }

    /// Whether a spec may be the run's stage with this key: a note that contradicts the stage's own inputs does not
    /// count.
    fn may_follow(&self, key: StageKey, spec: &StageSpec) -> bool {
        let Some(moved) = spec.moved_policy() else { return spec.kind() == key.kind };
        let is_next = key.inner == 1 && self.plan.iteration() + 1 == key.iteration;
        let before = self.plan.policy().filter(|_| is_next);
        Plan::is_update_of(self.run(), key, spec) && before.is_none_or(|before| before == moved)
    }

    /// Goes on after a policy to which no records lead; false if the plan has passed it, or if the policy ends no
    /// iteration.
    async fn leap(&mut self, store: &Store, key: StageKey, manifest: &Manifest) -> Result<bool> {
        let run = self.run().clone();
        let is_begun = self.plan.policy().is_some();
        if key != Plan::last_update(&run, key.iteration) {
            let is_base = !is_begun && Some(key) == Plan::last_chunk(&run);
            let base = manifest.output("policy").filter(|_| is_base);
            let Some(base) = base else { return Ok(false) };
            self.plan.leap_to_base(base);
            return Ok(true);
        }
        let is_ahead = !is_begun || key.iteration > self.plan.iteration();
        let base = match self.plan.base() {
            None => policy_at(store, &run, 0).await?,
            known => known,
        };
        let at = checkpoint(&run, key, manifest, base).filter(|_| is_ahead);
        let Some(at) = at else { return Ok(false) };
        self.plan.leap(&at);
        Ok(true)
    }
}

/// The run's own finished stages, in the order of the plan. The error names a record that is missing or cannot be read
/// though the index names its stage.
pub async fn own_stages(store: &Store, run: &Run) -> Result<Stages> {
    let mut walk = Walk::new(run.clone());
    walk.advance(store).await?;
    match walk.unreadable.into_values().next() {
        Some((_, record)) => Err(record.into_error()),
        None => Ok(walk.stages),
    }
}

#[cfg(test)]
mod tests;
