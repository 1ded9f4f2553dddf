//! The producers of blobs: which stage made a blob, by the records that a run's index leads to, newest first, then by the
//! run's plan walked from its start.
//!
//! Remembers what it has read, as one lost blob often leads to the next. Computes nothing.

use std::collections::BTreeMap;

use agrpo_spec::{ArtifactDigest, Manifest, Plan, Run, RunId, StageDigest, StageKey, StageSpec};
use futures::future::try_join_all;

use agrpo_store::JobsError;
use agrpo_store::Store;

/// Records read at a time.
const READS: usize = 32;

/// A stage that makes what was lost.
#[derive(Clone, Debug)]
pub(super) struct Producer {
    pub(super) stage: StageDigest,
    /// Its place in the run, where that is known.
    pub(super) key: Option<StageKey>,
    pub(super) spec: StageSpec,
    /// What it gave the first time; none where its record is gone as well.
    pub(super) manifest: Option<Manifest>,
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
    ) -> Result<Self, JobsError> {
        let (run, unread) = match run {
            Some(id) => {
                let recorded = store.recorded_stages(id).await?;
                let places = recorded.into_iter().map(|(key, stage)| (Some(key), stage));
                (Some(store.run(id).await?), places.collect())
            }
            None => (None, store.all_stages().await?.into_iter().map(|s| (None, s)).collect()),
        };
        Ok(Self { store, run, asked: asked.digest(), unread, made: BTreeMap::new() })
    }

    /// A stage that made the blob and is none of those; `None` if none is known.
    pub(super) async fn producer(
        &mut self,
        blob: ArtifactDigest,
        refused: &[StageDigest],
    ) -> Result<Option<Producer>, JobsError> {
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
                    && let Some(manifest) = self.readable(stage).await?
                {
                    let spec = manifest.spec.clone();
                    return Ok(Some(Producer { stage, key, spec, manifest: Some(manifest) }));
                }
            }
            if is_complete {
                return self.walk(blob, refused).await;
            }
            self.read_on().await?;
        }
    }

    async fn manifest(&self, stage: StageDigest) -> Result<Option<Manifest>, JobsError> {
        match &self.run {
            Some(run) => self.store.manifest_or_quarantine(run.id(), stage).await,
            None => self.store.manifest(stage).await,
        }
    }

    /// The same where one record that cannot be read must not hide the others.
    async fn readable(&self, stage: StageDigest) -> Result<Option<Manifest>, JobsError> {
        match self.manifest(stage).await {
            Err(JobsError::Data(_) | JobsError::Incompatible(_)) => Ok(None),
            other => other,
        }
    }

    async fn read_on(&mut self) -> Result<(), JobsError> {
        let from = self.unread.len().saturating_sub(READS);
        let places = self.unread.split_off(from);
        let reads = places.iter().rev().map(|&(key, stage)| {
            let producers = &*self;
            async move { Ok::<_, JobsError>(((key, stage), producers.readable(stage).await?)) }
        });
        let read = try_join_all(reads).await?;
        for (place, manifest) in read {
            for record in manifest.iter().flat_map(|manifest| manifest.outputs.values()) {
                self.made.entry(record.digest).or_default().push(place);
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
    ) -> Result<Option<Producer>, JobsError> {
        let Some(run) = &self.run else { return Ok(None) };
        let mut plan = Plan::new(run.clone());
        loop {
            let waiting: Vec<_> =
                plan.pending().iter().map(|(key, spec)| (*key, spec.clone())).collect();
            let mut gone = None;
            let mut moved = false;
            for (key, spec) in waiting {
                let stage = spec.digest();
                let Some(manifest) = self.manifest(stage).await? else {
                    gone.get_or_insert((key, spec));
                    continue;
                };
                let makes = manifest.outputs.values().any(|record| record.digest == blob);
                if makes && !refused.contains(&stage) {
                    let manifest = Some(manifest);
                    return Ok(Some(Producer { stage, key: Some(key), spec, manifest }));
                }
                moved |= plan.finished(key, |name| manifest.output(name)).is_ok();
            }
            if moved {
                continue;
            }
            // Where the stage in hand itself waits, all that lies before it is known: nothing made the blob.
            let reached = plan.pending().values().any(|spec| spec.digest() == self.asked);
            return Ok(gone.filter(|(_, spec)| !reached && !refused.contains(&spec.digest())).map(
                |(key, spec)| Producer {
                    stage: spec.digest(),
                    key: Some(key),
                    spec,
                    manifest: None,
                },
            ));
        }
    }
}
