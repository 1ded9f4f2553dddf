//! The producers of blobs: finds the stage that made a blob in the records that a run's index names, newest first,
//! then in a walk over the run's plan.
//!
//! Remembers what it has read, since one lost blob often leads to the next. Computes nothing.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::{ArtifactDigest, Manifest, Plan, Run, RunId, StageDigest, StageKey, StageSpec};
use agrpo_store::{Store, readable};

use crate::Result;
use crate::planning::steps::{AT_ONCE, Steps, each, take};

#[derive(Clone, Debug)]
pub(super) struct Producer {
    pub(super) stage: StageDigest,
    /// Its key in the run, if known.
    pub(super) key: Option<StageKey>,
    pub(super) spec: StageSpec,
    /// The record of its result; `None` if that is lost as well.
    pub(super) manifest: Option<Manifest>,
}

impl Producer {
    fn recorded(key: Option<StageKey>, manifest: Manifest) -> Self {
        let spec = manifest.spec.clone();
        Self { stage: manifest.stage, key, spec, manifest: Some(manifest) }
    }
}

/// The stage that made a blob, if it is known.
type Found = Result<Option<Producer>>;
/// A stage that may have made a blob.
type Candidate = (Option<StageKey>, StageDigest);

pub(super) struct Producers<'a> {
    store: &'a Store,
    run: Option<Run>,
    /// The stage that needs the blobs.
    asked: StageDigest,
    /// Not read yet; the last one is read next.
    unread: Vec<Candidate>,
    /// Candidates by their outputs, in the order of reading.
    made: BTreeMap<ArtifactDigest, Vec<Candidate>>,
}

impl<'a> Producers<'a> {
    pub(super) async fn new(
        store: &'a Store,
        run: Option<RunId>,
        asked: &StageSpec,
    ) -> Result<Self> {
        let (run, unread) = match run {
            Some(id) => {
                let recorded = store.records.recorded_stages(id).await?;
                let candidates = recorded.into_iter().map(|(key, stage)| (Some(key), stage));
                (Some(store.records.run(id).await?), candidates.collect())
            }
            None => {
                (None, store.records.all_stages().await?.into_iter().map(|s| (None, s)).collect())
            }
        };
        Ok(Self { store, run, asked: asked.digest(), unread, made: BTreeMap::new() })
    }

    /// A stage that made the blob and is not refused; `None` if none is known.
    pub(super) async fn producer(
        &mut self,
        blob: ArtifactDigest,
        refused: &[StageDigest],
    ) -> Found {
        loop {
            // Newest first; but after a refusal the oldest, which needs the fewest inputs.
            let is_complete = self.unread.is_empty();
            if refused.is_empty() || is_complete {
                let candidates = self.made.get(&blob).into_iter().flatten();
                let mut fitting = candidates.filter(|(_, stage)| !refused.contains(stage));
                let candidate = match refused {
                    [] => fitting.next(),
                    _ => fitting.next_back(),
                };
                if let Some(&(key, stage)) = candidate
                    && let Ok(Some(manifest)) = readable(self.manifest(stage).await)?
                {
                    return Ok(Some(Producer::recorded(key, manifest)));
                }
            }
            if is_complete {
                return self.walk(blob, refused).await;
            }
            self.read_more().await?;
        }
    }

    async fn manifest(&self, stage: StageDigest) -> Result<Option<Manifest>> {
        match &self.run {
            Some(run) => self.store.records.manifest_or_quarantine(run.id(), stage).await,
            None => self.store.records.manifest(stage).await,
        }
    }

    /// Reads the next records. An unreadable one does not hide the others.
    async fn read_more(&mut self) -> Result<()> {
        let mut candidates = self.unread.split_off(self.unread.len().saturating_sub(AT_ONCE));
        candidates.reverse();
        let (producers, stages) = (&*self, candidates.iter().map(|(_, stage)| *stage));
        let read = each(stages, |stage| async move { readable(producers.manifest(stage).await) });
        for (candidate, manifest) in candidates.iter().zip(read.await?) {
            let records = manifest.ok().flatten().map(|manifest| manifest.outputs);
            for record in records.iter().flat_map(BTreeMap::values) {
                self.made.entry(record.digest).or_default().push(*candidate);
            }
        }
        Ok(())
    }

    /// Walks the run's plan along its records to the stage that made the blob, or to one whose record is missing,
    /// which has to be computed before the stages after it are known.
    async fn walk(&self, blob: ArtifactDigest, refused: &[StageDigest]) -> Found {
        let Some(run) = &self.run else { return Ok(None) };
        let (mut plan, mut steps) = (Plan::new(run.clone()), Steps::default());
        let mut gone = BTreeSet::new();
        let read = |stage| async move { readable(self.manifest(stage).await) };
        let mut unreadable = None;
        while let Some(((key, stage), found)) = steps.next(&plan, |_| true, read).await? {
            match found {
                Ok(Some(manifest)) => {
                    let makes = manifest.outputs.values().any(|record| record.digest == blob);
                    if makes && !refused.contains(&stage) {
                        return Ok(Some(Producer::recorded(Some(key), manifest)));
                    }
                    take(&mut plan, key, &manifest).ok();
                }
                Ok(None) => {
                    gone.insert(key);
                }
                Err(error) => {
                    unreadable.get_or_insert(error);
                }
            }
            // Only now: it must not hide the others that were read with it.
            if let Some(error) = unreadable.take_if(|_| steps.is_step_over()) {
                return Err(error);
            }
        }
        // If the asked stage is pending, every stage before it is known: none of them made the blob.
        if plan.pending().values().any(|spec| spec.digest() == self.asked) {
            return Ok(None);
        }
        let producer = gone.pop_first().and_then(|key| {
            let spec = plan.pending().get(&key)?.clone();
            Some(Producer { stage: spec.digest(), key: Some(key), spec, manifest: None })
        });
        Ok(producer.filter(|producer| !refused.contains(&producer.stage)))
    }
}
