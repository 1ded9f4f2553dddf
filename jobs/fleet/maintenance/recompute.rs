//! Computes a stage after recomputing whatever it lacks, each input from its own record.
//!
//! The stage that made a missing or corrupt input is found through the run's index, or by walking the run's plan. It
//! is computed again with the same function, after its own lost inputs, and has to give the recorded result; another
//! result is a data error and changes nothing. No stage makes an imported file: the error says to import it again.

use std::{collections::BTreeMap, sync::Arc};

use agrpo_spec::{
    ArtifactDigest, Environment, ExecuteFn, Manifest, OutputRecord, RunId, StageDigest, StageSpec,
};
use agrpo_store::{Clock, Condition, JobsError, Repair, Store, Why, paths, records_of};
use tokio::sync::Mutex;

use super::producers::{Producer, Producers};
use crate::Result;
use crate::metrics::{self, Outcome};
use crate::stage::{self, Computed};

/// How often one stage is computed again for the sake of another at most: more means that the store
/// loses what it is given.
const RETRIES: u32 = 3;

/// How often a stage's inputs are fetched again because one of them was lost.
fn retries_of(spec: &StageSpec) -> u32 {
    RETRIES * u32::try_from(spec.inputs().len()).unwrap_or(1).max(1)
}

/// Everything needed to compute stages of a run.
#[derive(Clone)]
pub(crate) struct Recompute {
    pub(crate) store: Store,
    /// The run of the stages; `None` if a single stage was asked for.
    pub(crate) run: Option<RunId>,
    pub(crate) execute: ExecuteFn,
    pub(crate) environment: Environment,
    pub(crate) clock: Clock,
    /// Held while lost blobs are computed again: two stages often miss the same one.
    pub(crate) turn: Arc<Mutex<()>>,
}

struct Lost {
    digest: ArtifactDigest,
    message: String,
    /// The stage that is asked to make it.
    asked: Option<StageDigest>,
    /// Stages that turned out to need the blob themselves, or what no stage makes.
    refused: Vec<StageDigest>,
}

impl Lost {
    fn new(digest: ArtifactDigest, message: String) -> Self {
        Self { digest, message, asked: None, refused: vec![] }
    }

    /// The stage that was asked is of no use.
    fn refuse(&mut self) {
        self.refused.extend(self.asked.take());
    }
}

impl Recompute {
    /// Returns a stage's manifest, and whether the store had it already. Failed if the stage itself fails, data error
    /// if an input is damaged and cannot be made again.
    pub(crate) async fn compute(&self, spec: &StageSpec) -> Result<(Manifest, bool)> {
        match self.store.records.complete_manifest(spec.digest()).await? {
            Some(manifest) => Ok((manifest, true)),
            None => Ok((self.compute_anew(spec).await?, false)),
        }
    }

    /// Computes a stage without looking for its result first, and publishes it.
    pub(crate) async fn compute_anew(&self, spec: &StageSpec) -> Result<Manifest> {
        let environment = self.environment_now();
        let computed = self.calculate(spec).await?;
        let manifest = self.put(spec, &computed, &environment).await?;
        self.store.records.publish(&manifest).await
    }

    /// Reads a stage's inputs and computes it.
    pub(crate) async fn calculate(&self, spec: &StageSpec) -> Result<Computed> {
        let mut retries = retries_of(spec);
        loop {
            let fetched = self.read(spec, || stage::fetch(&self.store, spec)).await?;
            match stage::calculate(spec, fetched, &self.execute).await {
                // It was sound when it was fetched: the next fetch finds out, and recomputes it.
                Err(JobsError::Lost { message, .. }) if retries > 0 => {
                    tracing::warn!(message = message.as_str(), "fetching the stage's inputs again");
                    retries -= 1;
                }
                computed => return computed,
            }
        }
    }

    /// Stores the outputs of a stage. Computes it again where an output hands on an input that is lost by now.
    pub(crate) async fn put(
        &self,
        spec: &StageSpec,
        computed: &Computed,
        environment: &Environment,
    ) -> Result<Manifest> {
        let (mut retries, mut again) = (retries_of(spec), None);
        loop {
            let computed = again.as_ref().unwrap_or(computed);
            match stage::put(&self.store, spec, computed, environment).await {
                Err(JobsError::Lost { message, .. }) if retries > 0 => {
                    tracing::warn!(message = message.as_str(), "computing the stage again");
                    retries -= 1;
                    again = Some(self.calculate(spec).await?);
                }
                stored => return stored,
            }
        }
    }

    fn environment_now(&self) -> Environment {
        Environment { started_unix_ms: (self.clock)(), ..self.environment.clone() }
    }

    /// Makes every input of a stage again that is missing or corrupt.
    pub(crate) async fn mend_inputs(&self, spec: &StageSpec) -> Result<()> {
        self.read(spec, || async { self.store.fresh().cas.load_inputs(spec).await }).await.map(drop)
    }

    /// Reads a stage's inputs, and makes again what is missing or corrupt among them.
    async fn read<T, F>(&self, spec: &StageSpec, inputs: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut retries = retries_of(spec);
        loop {
            match inputs().await {
                Err(JobsError::Lost { digest, message }) if retries > 0 => {
                    retries -= 1;
                    self.mend(spec, digest, message.to_string()).await?;
                }
                other => return other,
            }
        }
    }

    /// Makes a lost blob again for a stage, after the inputs that this takes.
    async fn mend(&self, spec: &StageSpec, digest: ArtifactDigest, message: String) -> Result<()> {
        let _turn = self.turn.lock().await;
        let mut producers = Producers::new(&self.store, self.run, spec).await?;
        let mut lost = vec![Lost::new(digest, message)];
        let mut first_dead_end = None;
        let mut begun: BTreeMap<StageDigest, u32> = BTreeMap::new();
        while let Some(top) = lost.last_mut() {
            let condition = self.store.cas.condition(top.digest).await?;
            if matches!(condition, Condition::Sound(_)) {
                lost.pop();
                continue;
            }
            let Some(producer) = producers.producer(top.digest, &top.refused).await? else {
                if matches!(condition, Condition::Corrupt(_)) {
                    // An import stores a blob only if no object has its name.
                    self.store.cas.quarantine(top.digest).await?;
                }
                let message = format!(
                    "{}; no known stage made it: if it came from a file, import that again \
                     (agrpo run FILE fetches what the run names)",
                    top.message
                );
                let dead_end = JobsError::Lost { digest: top.digest, message: message.into() };
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
            if *tries > retries_of(&producer.spec) {
                return Err(JobsError::data(format!(
                    "{}; the stage {} was computed again for it, and it is lost again",
                    top.message, producer.stage
                )));
            }
            match self.remake(&producer, spec.digest(), top.digest, condition).await {
                Ok(()) => {}
                // It needs a blob that is being made for it: this producer leads in a circle.
                Err(JobsError::Lost { digest, .. })
                    if lost.iter().any(|earlier| earlier.digest == digest) =>
                {
                    lost.iter_mut().next_back().map(Lost::refuse);
                }
                // Makes its lost input first.
                Err(JobsError::Lost { digest, message }) => {
                    lost.push(Lost::new(digest, message.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        match (self.store.cas.condition(digest).await?, first_dead_end) {
            (Condition::Sound(_), _) | (_, None) => Ok(()),
            (_, Some(dead_end)) => Err(dead_end),
        }
    }

    /// Refuses stages for which this process gives other bytes, or none.
    fn may_make(&self, producer: &StageSpec, asked: &StageSpec, lost: &Lost) -> Result<()> {
        let (ours, theirs) = (asked.numerics(), producer.numerics());
        let (version, current) = (producer.version(), producer.kind().version());
        if ours == theirs && version == current {
            return Ok(());
        }
        Err(JobsError::data(format!(
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
    ) -> Result<()> {
        let Producer { stage, key, spec, manifest } = producer;
        tracing::warn!(%stage, %lost, "computing a stage again: a result of it was lost");
        let note = match self.run {
            Some(run) => self.store.records.dropped(run, *stage).await?,
            None => None,
        };
        let is_deleted = note.is_some_and(|note| note.outputs.values().any(|o| o.digest == lost));
        let why = match (manifest, condition) {
            (None, _) => Why::MissingManifest,
            (_, Condition::Corrupt(_)) => Why::Corrupt,
            _ if is_deleted => Why::Dropped,
            _ => Why::Missing,
        };
        match manifest {
            Some(manifest) => {
                let inputs = self.store.cas.load_inputs(spec).await?;
                let outputs = stage::run_blocking(spec, inputs, &self.execute).await?;
                let now = records_of(&outputs).await?;
                if now != manifest.outputs {
                    return Err(differs(manifest, &now, lost));
                }
                if matches!(condition, Condition::Corrupt(_)) {
                    self.store.cas.quarantine(lost).await?;
                }
                self.store.cas.put_outputs(&outputs).await?;
            }
            None => {
                let environment = self.environment_now();
                let fetched = stage::fetch(&self.store, spec).await?;
                let computed = stage::calculate(spec, fetched, &self.execute).await?;
                let manifest = stage::put(&self.store, spec, &computed, &environment).await?;
                self.store.records.publish(&manifest).await?;
            }
        }
        metrics::count_stage(spec.kind(), Outcome::Repair, 1);
        let Some(run) = self.run else { return Ok(()) };
        let repair = Repair {
            stage: *stage,
            key: *key,
            lost: Some(lost),
            why,
            needed_by: Some(needed_by),
            worker: self.environment.worker.clone(),
            unix_ms: (self.clock)(),
        };
        self.store.records.record_repair(run, &repair).await
    }
}

fn differs(
    manifest: &Manifest,
    now: &BTreeMap<String, OutputRecord>,
    lost: ArtifactDigest,
) -> JobsError {
    let name = manifest.outputs.iter().find(|(name, record)| now.get(*name) != Some(record));
    let name = name.map_or("another output", |(name, _)| name);
    JobsError::data(format!(
        "{} was lost, and {}, which made it, now gives another result (output `{name}`): \
         nothing was overwritten; compare the environments with agrpo show {}",
        paths::blob(lost),
        paths::manifest(manifest.stage),
        manifest.stage.short()
    ))
}

#[cfg(test)]
mod tests;
