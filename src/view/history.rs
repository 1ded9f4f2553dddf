//! A run's history: every finished stage with its metrics, worker and time, and the run's failures.
//!
//! Read from the store, and continued from the last read: no record is read twice. A record that cannot be read is
//! listed and left out, and so is a stage that is not the run's own. Repairs nothing.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_fleet::Walk;
use agrpo_spec::{
    ArtifactDigest, Evaluation, EvaluationShards, Manifest, Partial, Phases, Plan, Run, RunId,
    StageDigest, StageKey, StageKind,
};
use agrpo_store::{Control, Failure, Repair, Result, Store, Unreadable};
use futures::{StreamExt, stream};

const AT_ONCE: usize = 32;

/// Numbers by iteration, one for each shard or update.
pub type Numbers = BTreeMap<u32, Vec<f64>>;

/// A finished stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// Its name.
    pub stage: StageDigest,
    /// The worker that computed it: an index into [`RunHistory::workers`].
    pub worker: usize,
    /// When it began, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// Which attempt at it this was, counted from 1.
    pub attempt: u32,
    /// How long it took.
    pub phases: Phases,
    /// Its numbers.
    pub metrics: BTreeMap<String, f64>,
    /// What it wrote, without the files of folders.
    pub outputs: BTreeMap<String, ArtifactDigest>,
}

impl Done {
    /// From its beginning to its record, in milliseconds.
    pub fn took_ms(&self) -> f64 {
        self.phases.fetch_ms + self.phases.compute_ms + self.phases.store_ms
    }
}

/// A worker that computed stages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Worker {
    /// The worker's name.
    pub worker: String,
    /// Its machine.
    pub host: String,
    /// The device that computed: a GPU, or the processor.
    pub device: String,
}

/// The history of a run so far.
#[derive(Clone, Debug)]
pub struct RunHistory {
    /// Finished stages in the order of the plan.
    pub stages: BTreeMap<StageKey, Done>,
    /// The workers that computed them, in the order that [`Done::worker`] counts.
    pub workers: Vec<Worker>,
    /// Whole evaluations by iteration; 0 is the base's.
    pub evaluations: BTreeMap<u32, Evaluation>,
    /// The failures that stop the run.
    pub failures: Vec<Failure>,
    /// Results that were computed again because they had been lost.
    pub recomputed: Vec<Repair>,
    /// The control record that pauses or cancels the run, if there is one.
    pub held: Option<Control>,
    /// Unreadable records about the run, without those of its stages.
    unreadable: Vec<Unreadable>,
    /// The documents of evaluation stages.
    documents: EvaluationShards<Evaluation>,
    walk: Walk,
}

impl RunHistory {
    /// Reads a history. Data error where its own record cannot be read.
    pub async fn read(store: &Store, run: RunId) -> Result<Self> {
        let run = store.records.run(run).await?;
        let mut history = Self {
            documents: EvaluationShards::of(&run),
            walk: Walk::new(run),
            stages: BTreeMap::new(),
            workers: vec![],
            evaluations: BTreeMap::new(),
            failures: vec![],
            recomputed: vec![],
            held: None,
            unreadable: vec![],
        };
        history.read_on(store).await?;
        Ok(history)
    }

    /// Reads the records that are new; returns whether there are any.
    pub async fn read_on(&mut self, store: &Store) -> Result<bool> {
        let id = self.run().id();
        let news = self.walk.advance(store).await?;
        let reads = news.into_iter().map(|(key, manifest)| async move {
            let evaluation = evaluation(store, &manifest).await;
            (key, manifest, evaluation)
        });
        let read: Vec<_> = stream::iter(reads).buffer_unordered(AT_ONCE).collect().await;
        let mut has_changed = !read.is_empty();
        for (key, manifest, evaluation) in read {
            self.add(key, &manifest, evaluation);
        }
        let finished: BTreeSet<_> = self.walk.stages().values().collect();
        let (mut failures, mut unreadable) = store.records.readable_failures(id).await?;
        failures.retain(|failure| !finished.contains(&failure.stage));
        let (held, unreadable_control) = store.records.readable_control(id).await?;
        let (recomputed, unreadable_repairs) = store.records.readable_repairs(id).await?;
        unreadable.extend(unreadable_control.into_iter().chain(unreadable_repairs));
        has_changed |= update(&mut self.failures, failures) | update(&mut self.held, held);
        has_changed |= update(&mut self.recomputed, recomputed);
        Ok(update(&mut self.unreadable, unreadable) | has_changed)
    }

    fn add(&mut self, key: StageKey, manifest: &Manifest, evaluation: Option<Evaluation>) {
        let made = &manifest.environment;
        let found = Worker {
            worker: made.worker.clone(),
            host: made.host.clone(),
            device: made.gpu.clone().unwrap_or_else(|| made.cpu.clone()),
        };
        let index = self.workers.iter().position(|known| *known == found);
        let worker = index.unwrap_or(self.workers.len());
        if index.is_none() {
            self.workers.push(found);
        }
        let outputs = manifest.outputs.iter().filter(|(name, _)| !name.contains('/'));
        let done = Done {
            stage: manifest.stage,
            worker,
            started_unix_ms: made.started_unix_ms,
            attempt: made.attempt.unwrap_or(1),
            phases: manifest.phases,
            metrics: manifest.metrics.clone(),
            outputs: outputs.map(|(name, record)| (name.clone(), record.digest)).collect(),
        };
        self.stages.insert(key, done);
        let whole = evaluation.and_then(|evaluation| self.documents.add(key, evaluation));
        self.evaluations.extend(whole.map(|whole| (key.iteration, whole)));
    }

    /// Evaluations of which only some shards are there.
    pub fn partial_evaluations(&self) -> impl Iterator<Item = Partial> {
        self.documents.partial()
    }

    /// How many evaluation stages have a record but no document: the store has lost it.
    pub fn lost_evaluations(&self) -> usize {
        let evaluated = self.stages.keys().filter(|key| key.kind == StageKind::Evaluation);
        evaluated.filter(|key| !self.documents.contains(**key)).count()
    }

    /// The run itself.
    pub fn run(&self) -> &Run {
        self.walk.run()
    }

    /// The records that cannot be read.
    pub fn unreadable(&self) -> impl Iterator<Item = &Unreadable> {
        self.unreadable_stages().chain(&self.unreadable)
    }

    /// Those of them that are records of stages.
    pub fn unreadable_stages(&self) -> impl Iterator<Item = &Unreadable> {
        self.walk.unreadable().values().map(|(_, record)| record)
    }

    /// Stages that were done, whether or not their records can still be read.
    pub fn stages_done(&self) -> usize {
        self.walk.done_keys().len()
    }

    /// The newest iteration whose last update is done.
    pub fn iteration(&self) -> u32 {
        Plan::newest_iteration(self.run(), self.stages.keys())
    }

    /// Seconds that all stages took together.
    pub fn work_s(&self) -> f64 {
        self.stages.values().map(|done| done.took_ms() / 1e3).sum()
    }

    /// When the first stage began and the last one ended, in milliseconds since 1970; `None` without stages.
    pub fn ends_ms(&self) -> Option<(f64, f64)> {
        let begun = self.stages.values().map(|done| done.started_unix_ms as f64);
        let ended = self.stages.values().map(|done| done.started_unix_ms as f64 + done.took_ms());
        begun.min_by(f64::total_cmp).zip(ended.max_by(f64::total_cmp))
    }

    /// A number of every stage of a kind that has it.
    pub fn numbers(&self, kind: StageKind, number: impl Fn(&Done) -> Option<f64>) -> Numbers {
        let mut found = Numbers::new();
        for (key, done) in self.stages.iter().filter(|(key, _)| key.kind == kind) {
            if let Some(number) = number(done) {
                found.entry(key.iteration).or_default().push(number);
            }
        }
        found
    }

    /// A metric of every stage of a kind that has it; of gradients and updates that are one stage, that stage's.
    pub fn metric(&self, kind: StageKind, name: &str) -> Numbers {
        let kind = match kind {
            StageKind::Gradient | StageKind::Update
                if self.run().config().estimator.fused_updates =>
            {
                StageKind::Updates
            }
            kind => kind,
        };
        self.numbers(kind, |done| done.metrics.get(name).copied())
    }

    /// The names of the metrics of a kind of stage that begin with a prefix.
    pub fn metric_names(&self, kind: StageKind, prefix: &str) -> BTreeSet<String> {
        let of_kind = self.stages.iter().filter(|(key, _)| key.kind == kind);
        let names = of_kind.flat_map(|(_, done)| done.metrics.keys());
        names.filter(|name| name.starts_with(prefix)).cloned().collect()
    }
}

/// Sets a value; returns whether it changed.
pub(crate) fn update<T: PartialEq>(current: &mut T, value: T) -> bool {
    std::mem::replace(current, value) != *current
}

/// The document of an evaluation; `None` of other stages, and where the store has lost it.
async fn evaluation(store: &Store, manifest: &Manifest) -> Option<Evaluation> {
    let bytes = store.cas.get(manifest.output("evaluation")?).await.ok()?;
    Evaluation::from_bytes(&bytes).ok()
}
