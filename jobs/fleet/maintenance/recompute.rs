//! Computes a stage after recomputing whatever it lacks, each input from its own record.
//!
//! An input that is missing or corrupt leads to the stage that made it: through the run's index, or by walking the run's
//! plan. That stage is computed again with the same function, its own lost inputs before it, and must give what its
//! record says; another result is a data error and changes nothing. What was imported no stage can make: the error says
//! to import it again.

use std::collections::BTreeMap;
use std::sync::Arc;

use agrpo_spec::{
    ArtifactDigest, Environment, ExecuteFn, Manifest, OutputRecord, RunId, StageDigest, StageKey,
    StageSpec,
};
use tokio::sync::Mutex;

use crate::metrics::{self, Outcome};
use crate::stage::{self, Fetched};
use agrpo_store::Clock;
use agrpo_store::JobsError;
use agrpo_store::{Condition, Repair, Store, Why};

use super::producers::{Producer, Producers};

/// How often one stage is computed again for the sake of another at most: more means that the store
/// loses what it is given.
const PATIENCE: u32 = 3;

/// How often a stage's inputs are fetched again because one of them was lost.
pub(crate) fn patience(spec: &StageSpec) -> u32 {
    PATIENCE * u32::try_from(spec.inputs().len()).unwrap_or(1).max(1)
}

/// All that computing stages of a run takes.
#[derive(Clone)]
pub(crate) struct Recompute {
    pub(crate) store: Store,
    /// Whose stages they are; none where a stage was asked for by itself.
    pub(crate) run: Option<RunId>,
    pub(crate) execute: ExecuteFn,
    pub(crate) environment: Environment,
    pub(crate) clock: Clock,
    /// Held while lost blobs are computed again: two stages often miss the same one.
    pub(crate) turn: Arc<Mutex<()>>,
}

/// A blob that is to be made again.
struct Lost {
    digest: ArtifactDigest,
    message: String,
    /// The stage that is asked to make it.
    asked: Option<StageDigest>,
    /// Stages that turned out to need the blob themselves, or what no stage makes.
    refused: Vec<StageDigest>,
}

impl Lost {
    /// The stage that was asked is of no use.
    fn refuse(&mut self) {
        self.refused.extend(self.asked.take());
    }
}

impl Recompute {
    /// Gives a stage's manifest, and whether the store had it already. Failed where the stage itself gives
    /// up, data error where an input is not what it should be and cannot be made again.
    pub(crate) async fn compute(&self, spec: &StageSpec) -> Result<(Manifest, bool), JobsError> {
        match self.store.complete_manifest(spec.digest()).await? {
            Some(manifest) => Ok((manifest, true)),
            None => Ok((self.compute_anew(spec).await?, false)),
        }
    }

    /// Computes a stage without looking for its result first, and publishes it.
    pub(crate) async fn compute_anew(&self, spec: &StageSpec) -> Result<Manifest, JobsError> {
        let environment =
            Environment { started_unix_ms: (self.clock)(), ..self.environment.clone() };
        let mut patience = patience(spec);
        loop {
            let fetched = self.fetch(spec).await?;
            match stage::finish(&self.store, spec, fetched, &self.execute, &environment).await {
                // It was sound when it was fetched: the next fetch finds out, and mends it.
                Err(JobsError::Lost { message, .. }) if patience > 0 => {
                    tracing::warn!(message, "fetching the stage's inputs again");
                    patience -= 1;
                }
                other => return other,
            }
        }
    }

    /// Reads a stage's inputs, and makes again what is missing or corrupt among them.
    pub(crate) async fn fetch(&self, spec: &StageSpec) -> Result<Fetched, JobsError> {
        let mut patience = patience(spec);
        loop {
            match stage::fetch(&self.store, spec).await {
                Err(JobsError::Lost { digest, message }) if patience > 0 => {
                    patience -= 1;
                    self.mend(spec, digest, message).await?;
                }
                other => return other,
            }
        }
    }

    /// Makes every input of a stage again that is missing or corrupt.
    pub(crate) async fn mend_inputs(&self, spec: &StageSpec) -> Result<(), JobsError> {
        let mut patience = patience(spec);
        loop {
            match self.store.fresh().load_inputs(spec).await {
                Err(JobsError::Lost { digest, message }) if patience > 0 => {
                    patience -= 1;
                    self.mend(spec, digest, message).await?;
                }
                other => return other.map(drop),
            }
        }
    }

    /// Makes a lost blob again for the stage in hand, and before it whatever that takes.
    async fn mend(
        &self,
        spec: &StageSpec,
        digest: ArtifactDigest,
        message: String,
    ) -> Result<(), JobsError> {
        let _turn = self.turn.lock().await;
        let mut producers = Producers::new(&self.store, self.run, spec).await?;
        let mut lost = vec![Lost { digest, message, asked: None, refused: vec![] }];
        let mut first_dead_end = None;
        let mut begun: BTreeMap<StageDigest, u32> = BTreeMap::new();
        while let Some(top) = lost.last_mut() {
            let condition = self.store.condition(top.digest).await?;
            if matches!(condition, Condition::Sound(_)) {
                lost.pop();
                continue;
            }
            let Some(producer) = producers.producer(top.digest, &top.refused).await? else {
                if matches!(condition, Condition::Corrupt(_)) {
                    // What is imported again is stored only where nothing of its name is.
                    self.store.quarantine_blob(top.digest).await?;
                }
                let message = format!(
                    "{}; no stage that is known made it: if it came from a file, import that again \
                     (agrpo run FILE fetches what the run names)",
                    top.message
                );
                let dead_end = JobsError::Lost { digest: top.digest, message };
                first_dead_end.get_or_insert(dead_end);
                lost.pop();
                // Its consumer cannot be computed, so another producer is tried.
                lost.iter_mut().next_back().map(Lost::refuse);
                continue;
            };
            self.may_make(&producer.spec, spec, top)?;
            top.asked = Some(producer.stage);
            let tries = begun.entry(producer.stage).or_default();
            *tries += 1;
            if *tries > patience(&producer.spec) {
                return Err(JobsError::Data(format!(
                    "{}; the stage {} was computed again for it, and it is lost again",
                    top.message, producer.stage
                )));
            }
            match self.remake(&producer, spec.digest(), top.digest, condition).await {
                Ok(()) => {}
                // What it needs is being made already: the way through this producer leads in a circle.
                Err(JobsError::Lost { digest, .. })
                    if lost.iter().any(|earlier| earlier.digest == digest) =>
                {
                    lost.iter_mut().next_back().map(Lost::refuse);
                }
                // Before it what it lacks.
                Err(JobsError::Lost { digest, message }) => {
                    lost.push(Lost { digest, message, asked: None, refused: vec![] });
                }
                Err(error) => return Err(error),
            }
        }
        match (self.store.condition(digest).await?, first_dead_end) {
            (Condition::Sound(_), _) | (_, None) => Ok(()),
            (_, Some(dead_end)) => Err(dead_end),
        }
    }

    /// Refuses stages that this process computes to other bytes, or not at all.
    fn may_make(
        &self,
        producer: &StageSpec,
        asked: &StageSpec,
        lost: &Lost,
    ) -> Result<(), JobsError> {
        let (ours, theirs) = (asked.numerics(), producer.numerics());
        let (version, current) = (producer.version(), producer.kind().version());
        if ours == theirs && version == current {
            return Ok(());
        }
        Err(JobsError::Data(format!(
            "{}; the {} stage {} made it, of numerics {theirs} and version {version}; here stages of \
             numerics {ours} and version {current} are computed, so replay it with --rewind where its \
             own are",
            lost.message,
            producer.kind(),
            producer.digest().short()
        )))
    }

    /// Computes a stage again, compares it with its record, and stores what came out.
    async fn remake(
        &self,
        producer: &Producer,
        needed_by: StageDigest,
        lost: ArtifactDigest,
        condition: Condition,
    ) -> Result<(), JobsError> {
        let Producer { stage, key, spec, manifest } = producer;
        tracing::warn!(%stage, %lost, "computing a stage again: a result of it was lost");
        let why = match (manifest, condition) {
            (None, _) => Why::MissingManifest,
            (_, Condition::Corrupt(_)) => Why::Corrupt,
            _ if self.was_dropped(*stage, lost).await? => Why::Dropped,
            _ => Why::Missing,
        };
        match manifest {
            Some(manifest) => {
                let inputs = self.store.load_inputs(spec).await?;
                let outputs = stage::run_blocking(spec, inputs, &self.execute).await?;
                let now = agrpo_store::records_of(&outputs).await?;
                if now != manifest.outputs {
                    return Err(differs(manifest, &now, lost));
                }
                if matches!(condition, Condition::Corrupt(_)) {
                    self.store.quarantine_blob(lost).await?;
                }
                self.store.put_outputs(&outputs).await?;
            }
            None => {
                let (store, execute) = (&self.store, &self.execute);
                stage::compute_anew(store, spec, execute, &self.environment, &self.clock).await?;
            }
        }
        metrics::stage_ended(spec.kind(), Outcome::Repair);
        let Some(run) = self.run else { return Ok(()) };
        let rewound = Repair {
            stage: *stage,
            key: *key,
            lost: Some(lost),
            why,
            needed_by: Some(needed_by),
            worker: self.environment.worker.clone(),
            unix_ms: (self.clock)(),
        };
        self.store.record_repair(run, &rewound).await
    }

    async fn was_dropped(
        &self,
        stage: StageDigest,
        lost: ArtifactDigest,
    ) -> Result<bool, JobsError> {
        let Some(run) = self.run else { return Ok(false) };
        let dropped = self.store.dropped(run, stage).await?;
        Ok(dropped.is_some_and(|dropped| dropped.outputs.values().any(|o| o.digest == lost)))
    }
}

/// The stages that would be computed again for the sake of a stage whose inputs are not all there, oldest
/// first. Looks for blobs, not at their bytes.
pub(crate) async fn lacking(
    store: &Store,
    run: Option<RunId>,
    spec: &StageSpec,
) -> Result<Vec<(Option<StageKey>, StageDigest)>, JobsError> {
    let mut producers = Producers::new(store, run, spec).await?;
    let mut found: Vec<(Option<StageKey>, StageDigest)> = vec![];
    let mut waiting = vec![spec.clone()];
    while let Some(spec) = waiting.pop() {
        for digest in store.absent(&spec).await? {
            let Some(producer) = producers.producer(digest, &[]).await? else {
                return Err(store.missing(digest));
            };
            if found.iter().all(|(_, stage)| *stage != producer.stage) {
                found.push((producer.key, producer.stage));
                waiting.push(producer.spec);
            }
        }
    }
    found.reverse();
    found.sort_by_key(|(key, _)| *key);
    Ok(found)
}

fn differs(
    manifest: &Manifest,
    now: &BTreeMap<String, OutputRecord>,
    lost: ArtifactDigest,
) -> JobsError {
    let name = manifest.outputs.iter().find(|(name, record)| now.get(*name) != Some(record));
    let name = name.map_or("another output", |(name, _)| name);
    JobsError::Data(format!(
        "cas/{lost} was lost, and stages/{}, which made it, now gives another result (output `{name}`): \
         nothing was overwritten; compare the environments with agrpo show {}",
        manifest.stage,
        manifest.stage.short()
    ))
}

#[cfg(test)]
mod tests;
