//! The producers of blobs: which stage made a blob, by the records that a run's index leads to, newest first, then by the
//! run's plan walked from its start.
//!
//! Remembers what it has read, as one lost blob often leads to the next. Computes nothing.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::{ArtifactDigest, Manifest, Plan, Run, RunId, StageDigest, StageKey, StageSpec};
use agrpo_store::Store;

use crate::Result;
use crate::planning::steps::{AT_ONCE, Steps, each, readable};

#[derive(Clone, Debug)]
pub(super) struct Producer {
    pub(super) stage: StageDigest,
    /// Its place in the run, where that is known.
    pub(super) key: Option<StageKey>,
    pub(super) spec: StageSpec,
    /// What it gave the first time; none where its record is gone as well.
    pub(super) manifest: Option<Manifest>,
}

impl Producer {
    fn recorded(key: Option<StageKey>, manifest: Manifest) -> Self {
        let spec = manifest.spec.clone();
        Self { stage: manifest.stage, key, spec, manifest: Some(manifest) }
    }
}

type Place = (Option<StageKey>, StageDigest);

pub(super) struct Producers<'a> {
    store: &'a Store,
    run: Option<Run>,
    /// The stage in hand.
    asked: StageDigest,
    /// Not read yet; the last one is read next.
    unread: Vec<Place>,
    /// By the blobs that they name, in the order of reading.
    made: BTreeMap<ArtifactDigest, Vec<Place>>,
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
                let places = recorded.into_iter().map(|(key, stage)| (Some(key), stage));
                (Some(store.records.run(id).await?), places.collect())
            }
            None => {
                (None, store.records.all_stages().await?.into_iter().map(|s| (None, s)).collect())
            }
        };
        Ok(Self { store, run, asked: asked.digest(), unread, made: BTreeMap::new() })
    }

    /// A stage that made the blob and is none of those; `None` if none is known.
    pub(super) async fn producer(
        &mut self,
        blob: ArtifactDigest,
        refused: &[StageDigest],
    ) -> Result<Option<Producer>> {
        loop {
            // Newest first; but what many stages make, the oldest makes out of the least.
            let is_complete = self.unread.is_empty();
            if refused.is_empty() || is_complete {
                let places = self.made.get(&blob).into_iter().flatten();
                let mut fitting = places.filter(|(_, stage)| !refused.contains(stage));
                let place = match refused {
                    [] => fitting.next(),
                    _ => fitting.next_back(),
                };
                if let Some(&(key, stage)) = place
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

    /// Reads the next records. One that cannot be read must not hide the others.
    async fn read_more(&mut self) -> Result<()> {
        let mut places = self.unread.split_off(self.unread.len().saturating_sub(AT_ONCE));
        places.reverse();
        let (producers, stages) = (&*self, places.iter().map(|(_, stage)| *stage));
        let read = each(stages, |stage| async move { readable(producers.manifest(stage).await) });
        for (place, manifest) in places.iter().zip(read.await?) {
            let records = manifest.ok().flatten().map(|manifest| manifest.outputs);
            for record in records.iter().flat_map(BTreeMap::values) {
                self.made.entry(record.digest).or_default().push(*place);
            }
        }
        Ok(())
    }

    /// Walks the run's plan along its records to the stage that made the blob, or to one whose record is
    /// gone and which therefore has to be computed before anything after it can be known.
    async fn walk(
        &self,
        blob: ArtifactDigest,
        refused: &[StageDigest],
    ) -> Result<Option<Producer>> {
        let Some(run) = &self.run else { return Ok(None) };
        let (mut plan, mut steps) = (Plan::new(run.clone()), Steps::default());
        let mut gone = BTreeSet::new();
        let read = |stage| async move { readable(self.manifest(stage).await) };
        while let Some(found) = steps.next(&plan, |_| true, read).await? {
            let mut unreadable = None;
            for ((key, stage), manifest) in found {
                let manifest = match manifest {
                    Ok(Some(manifest)) => manifest,
                    Ok(None) => {
                        gone.insert(key);
                        continue;
                    }
                    // It must not hide the others.
                    Err(error) => {
                        unreadable.get_or_insert(error);
                        continue;
                    }
                };
                let makes = manifest.outputs.values().any(|record| record.digest == blob);
                if makes && !refused.contains(&stage) {
                    return Ok(Some(Producer::recorded(Some(key), manifest)));
                }
                plan.finished(key, |name| manifest.output(name)).ok();
            }
            if let Some(error) = unreadable {
                return Err(error);
            }
        }
        // Where the stage in hand itself waits, all that lies before it is known: nothing made the blob.
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
