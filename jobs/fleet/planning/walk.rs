//! A run's own stages: its plan walked from its configuration along records that are checked.
//!
//! An entry of the run's index counts only where the plan has this very stage: each spec is derived anew
//! from the run and the outputs before it, and its digest compared. Another entry is ignored, and named
//! in the log once. Where a record on the way cannot be read, the walk goes on behind the next policy whose
//! note is sealed for this run and place (`Store::policy_note`): such a note is written only by who derived the
//! stage in the same way. Records that the index does not name are followed as well: a lost entry hides
//! nothing. Changes nothing and computes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agrpo_spec::{
    Checkpoint, Manifest, Plan, Run, RunId, StageDigest, StageKey, StageKind, StageSpec,
};
use futures::future::try_join_all;
use futures::{StreamExt, stream};

use crate::planning::policy_notes::{is_update_of, policy_at};
use agrpo_store::JobsError;
use agrpo_store::{Store, Unreadable};

/// Records read at a time.
const READS: usize = 32;

/// A place in a run and a stage that is said to be there.
pub(crate) type Entry = (StageKey, StageDigest);

/// A run, as far as it was followed.
#[derive(Clone, Debug)]
pub struct Walk {
    plan: Plan,
    stages: BTreeMap<StageKey, StageDigest>,
    /// Entries that name another stage than the run has in their place.
    foreign: BTreeSet<Entry>,
    /// Entries of which nothing could be said so far.
    unproven: BTreeSet<Entry>,
    /// Stages of the run whose records cannot be read, and why.
    unreadable: BTreeMap<StageKey, (StageDigest, Unreadable)>,
}

impl Walk {
    /// Stands at the run's start.
    pub fn new(run: Run) -> Self {
        Self {
            plan: Plan::new(run),
            stages: BTreeMap::new(),
            foreign: BTreeSet::new(),
            unproven: BTreeSet::new(),
            unreadable: BTreeMap::new(),
        }
    }

    /// Follows the run's index as far as it has grown, and goes on along records that it does not name;
    /// answers with the run's own stages that are new. Costs one listing, one read a new stage, and one a
    /// pending one.
    pub async fn advance(
        &mut self,
        store: &Store,
    ) -> Result<Vec<(StageKey, Arc<Manifest>)>, JobsError> {
        let entries = store.recorded_entries(self.id()).await?;
        let is_new = |(key, stage): &Entry| {
            self.stages.get(key) != Some(stage) && !self.foreign.contains(&(*key, *stage))
        };
        let news: Vec<Entry> = entries.into_iter().filter(is_new).collect();
        let reads =
            news.into_iter().map(|entry| async move { (entry, read(store, entry.1).await) });
        let mut reads = stream::iter(reads).buffered(READS);
        let (mut found, mut asked) = (vec![], BTreeSet::new());
        while let Some((entry, manifest)) = reads.next().await {
            self.enter(store, entry, manifest?, (&mut found, &mut asked)).await?;
        }
        self.fill(store, None, (&mut found, &mut asked)).await?;
        Ok(found)
    }

    /// The run.
    pub fn run(&self) -> &Run {
        self.plan.run()
    }

    /// The run's own stages that were found, in the order of the plan.
    pub fn stages(&self) -> &BTreeMap<StageKey, StageDigest> {
        &self.stages
    }

    /// Stages of the run whose records cannot be read, or are not there though the index names them.
    pub fn unreadable(&self) -> &BTreeMap<StageKey, (StageDigest, Unreadable)> {
        &self.unreadable
    }

    /// Places of the run that were done, whether or not their records can still be read. Behind a record
    /// that cannot be read, an entry of the index counts unless the run has another stage there.
    pub fn places(&self) -> BTreeSet<StageKey> {
        let unproven = self.unproven.iter().filter(|_| !self.unreadable.is_empty());
        let unproven = unproven.map(|(key, _)| key);
        self.stages.keys().chain(self.unreadable.keys()).chain(unproven).copied().collect()
    }

    /// Entries of the index that do not count. One to which nothing leads counts for as long as a record
    /// on the way cannot be read.
    pub fn wrong(&self) -> impl Iterator<Item = Entry> {
        let unproven = self.unproven.iter().filter(|_| self.unreadable.is_empty());
        self.foreign.iter().chain(unproven).copied()
    }

    fn id(&self) -> RunId {
        self.run().id()
    }

    /// The stage that the run has in a place, done or not, where the walk has come there.
    pub fn expected(&self, key: StageKey) -> Option<StageDigest> {
        let pending = || self.plan.pending().get(&key).map(agrpo_spec::StageSpec::digest);
        self.stages.get(&key).copied().or_else(pending)
    }

    async fn enter(
        &mut self,
        store: &Store,
        (key, stage): Entry,
        manifest: Result<Option<Manifest>, Unreadable>,
        (found, asked): (&mut Vec<(StageKey, Arc<Manifest>)>, &mut BTreeSet<StageKey>),
    ) -> Result<(), JobsError> {
        if self.expected(key).is_none() {
            self.fill(store, Some(key), (&mut *found, &mut *asked)).await?;
        }
        let expected = self.expected(key);
        if expected.is_some_and(|expected| expected != stage) {
            self.unproven.remove(&(key, stage));
            self.foreign.insert((key, stage));
            store.log_incompatible(self.id(), key, stage);
            return Ok(());
        }
        let manifest = manifest.and_then(|manifest| manifest.ok_or_else(|| missing(store, stage)));
        let is_ours = expected.is_some()
            || (manifest.as_ref().map_or(true, |manifest| self.may_follow(key, &manifest.spec))
                && self.is_noted(store, key, stage).await?);
        match manifest {
            _ if !is_ours => drop(self.unproven.insert((key, stage))),
            Err(record) => self.lose((key, stage), record),
            Ok(manifest) => {
                let manifest = Arc::new(manifest);
                if expected.is_some() {
                    self.take(key, &manifest);
                } else {
                    self.leap(store, key, &manifest).await?;
                }
                found.push((key, manifest));
            }
        }
        Ok(())
    }

    /// Takes over a stage that is pending, or was before.
    fn take(&mut self, key: StageKey, manifest: &Manifest) {
        // A record that lacks an output is found by its readers.
        self.plan.finished(key, |name| manifest.output(name)).ok();
        self.add(key, manifest.stage);
    }

    fn add(&mut self, key: StageKey, stage: StageDigest) {
        self.stages.insert(key, stage);
        self.unproven.remove(&(key, stage));
        self.unreadable.remove(&key);
    }

    fn lose(&mut self, (key, stage): Entry, record: Unreadable) {
        self.unreadable.insert(key, (stage, Unreadable { key: Some(key), ..record }));
    }

    /// Whether a note that is sealed for this run says so of a stage to which no records lead, since one on the
    /// way is lost.
    async fn is_noted(
        &self,
        store: &Store,
        key: StageKey,
        stage: StageDigest,
    ) -> Result<bool, JobsError> {
        let run = self.plan.run();
        match key.kind {
            _ if self.unreadable.is_empty() => Ok(false),
            StageKind::Sft | StageKind::Update => {
                Ok(store.recorded_policy(run.id(), key).await? == Some(stage))
            }
            StageKind::Evaluation if run.is_evaluated(key.iteration) => {
                let policy = policy_at(store, run, key.iteration).await?;
                Ok(policy.is_some_and(|p| Plan::evaluation_of(run, p).digest() == stage))
            }
            _ => Ok(false),
        }
    }

    /// Whether a spec may be the run's in this place: a note says which stage is there, and is not believed
    /// against what the stage itself says it came from.
    fn may_follow(&self, key: StageKey, spec: &StageSpec) -> bool {
        let StageSpec::Update(update) = spec else { return spec.kind() == key.kind };
        let is_next = key.inner == 1 && self.plan.iteration() + 1 == key.iteration;
        let before = self.plan.policy().filter(|_| is_next);
        is_update_of(self.run(), key, spec) && before.is_none_or(|before| before == update.policy)
    }

    /// Goes on behind a policy to which no records lead.
    async fn leap(
        &mut self,
        store: &Store,
        key: StageKey,
        manifest: &Manifest,
    ) -> Result<(), JobsError> {
        let run = self.plan.run().clone();
        let outputs = (manifest.output("policy"), manifest.output("optimizer"));
        if let (Some(policy), Some(optimizer)) = outputs {
            let chunks = run.sft_chunks();
            match key.kind {
                StageKind::Sft if key.iteration + 1 == chunks => self.plan.leap_to_base(policy),
                StageKind::Update if key.inner == run.config().estimator.inner_updates => {
                    let base = match self.plan.base() {
                        None => policy_at(store, &run, 0).await?,
                        known => known,
                    };
                    let iteration = key.iteration;
                    self.plan.leap(&Checkpoint { iteration, policy, optimizer, base });
                }
                _ => {}
            }
        }
        self.add(key, manifest.stage);
        Ok(())
    }

    /// Takes over pending stages, before a place, whose records are there.
    async fn fill(
        &mut self,
        store: &Store,
        before: Option<StageKey>,
        (found, asked): (&mut Vec<(StageKey, Arc<Manifest>)>, &mut BTreeSet<StageKey>),
    ) -> Result<(), JobsError> {
        loop {
            let pending = self.plan.pending().iter();
            let new: Vec<Entry> = pending
                .filter(|(key, _)| {
                    before.is_none_or(|before| **key < before) && asked.insert(**key)
                })
                .map(|(key, spec)| (*key, spec.digest()))
                .collect();
            let reads = new.into_iter().map(|(key, stage)| async move {
                Ok::<_, JobsError>(((key, stage), read(store, stage).await?))
            });
            let mut any = false;
            for ((key, stage), manifest) in try_join_all(reads).await? {
                match manifest.map(|manifest| manifest.map(Arc::new)) {
                    Err(record) => self.lose((key, stage), record),
                    Ok(None) => {}
                    Ok(Some(manifest)) => {
                        self.take(key, &manifest);
                        found.push((key, manifest));
                        any = true;
                    }
                }
            }
            if !any {
                return Ok(());
            }
        }
    }
}

/// A stage's record if there is one, or why it cannot be read.
async fn read(
    store: &Store,
    stage: StageDigest,
) -> Result<Result<Option<Manifest>, Unreadable>, JobsError> {
    match store.manifest(stage).await {
        Ok(manifest) => Ok(Ok(manifest)),
        Err(error @ (JobsError::Data(_) | JobsError::Incompatible(_))) => {
            Ok(Err(Unreadable::new(format!("stages/{stage}"), &error)))
        }
        Err(error) => Err(error),
    }
}

/// The record of a stage that the index names, and that is not there.
fn missing(store: &Store, stage: StageDigest) -> Unreadable {
    let object = format!("stages/{stage}");
    let error = JobsError::Data(format!(
        "{object} is missing in {}, though the run's index names it; start the run again: the stage is \
         then computed anew",
        store.url()
    ));
    Unreadable::new(object, &error)
}

/// The run's own stages that are done, in the order of the plan. An error names a record that is missing or
/// cannot be read, where the index says that its stage is done.
pub async fn own_stages(
    store: &Store,
    run: &Run,
) -> Result<BTreeMap<StageKey, StageDigest>, JobsError> {
    let mut walk = Walk::new(run.clone());
    walk.advance(store).await?;
    match walk.unreadable.into_values().next() {
        Some((_, record)) => Err(record.into_error()),
        None => Ok(walk.stages),
    }
}

#[cfg(test)]
mod tests;
