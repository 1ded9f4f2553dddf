//! A run's story: every finished stage with its numbers, where and when it was computed, what went wrong.
//!
//! Read from the store, and read on from where it stood: what was read once is not read again. A record
//! that cannot be read is named and left out, and a stage that is not the run's own is left out; nothing
//! here is mended.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_jobs::{Control, Failure, Rewound, Store, Unreadable, Walk};
use agrpo_spec::{
    ArtifactDigest, Manifest, Phases, Run, RunId, StageDigest, StageKey, StageKind, StageSpec,
};
use futures::{StreamExt, stream};
use serde::Deserialize;

use crate::ViewError;

/// Records read at a time.
const AT_ONCE: usize = 32;

/// A finished stage, as far as people look at it.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// Its name.
    pub stage: StageDigest,
    /// Who computed it: a place in [`Story::workers`].
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

/// Who computed stages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// The worker's name.
    pub worker: String,
    /// Its machine.
    pub host: String,
    /// What computed: a GPU, or the processor.
    pub device: String,
}

/// What a sampler achieved in an evaluation.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Marks {
    /// Unmask steps.
    pub steps: u32,
    /// Completions that were right.
    pub correct: u64,
    /// Their share, or the share of the points where a task gives parts of them.
    pub accuracy: f64,
    /// Problems by the number of their right completions.
    pub solved_by: Vec<u64>,
}

/// A completion that an evaluation kept to be shown.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Shown {
    /// What was asked.
    pub prompt: String,
    /// What was answered.
    pub completion: String,
    /// Whether it was right.
    pub correct: bool,
}

/// An evaluation's result.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Evaluation {
    /// Held-out problems that were asked.
    pub problems: u32,
    /// By sampler, in the order of the run file.
    pub results: Vec<Marks>,
    /// A few completions.
    #[serde(default)]
    pub samples: Vec<Shown>,
}

/// A run, as far as it has come.
#[derive(Clone, Debug)]
pub struct Story {
    stages: BTreeMap<StageKey, Done>,
    workers: Vec<Who>,
    evaluations: BTreeMap<u32, Evaluation>,
    failures: Vec<Failure>,
    rewound: Vec<Rewound>,
    held: Option<Control>,
    /// Of the records about the run, those of its stages left out.
    unreadable: Vec<Unreadable>,
    walk: Walk,
}

impl Story {
    /// The story of a run so far. Data error where its own record cannot be read.
    pub async fn read(store: &Store, run: RunId) -> Result<Self, ViewError> {
        let mut story = Self {
            walk: Walk::new(store.run(run).await?),
            stages: BTreeMap::new(),
            workers: vec![],
            evaluations: BTreeMap::new(),
            failures: vec![],
            rewound: vec![],
            held: None,
            unreadable: vec![],
        };
        story.read_on(store).await?;
        Ok(story)
    }

    /// Reads what has come since; answers whether anything has.
    pub async fn read_on(&mut self, store: &Store) -> Result<bool, ViewError> {
        let id = self.run().id();
        let news = self.walk.advance(store).await?;
        let reads = news.into_iter().map(|(key, manifest)| async move {
            let evaluation = match key.kind {
                StageKind::Evaluation => evaluation(store, &manifest).await,
                _ => None,
            };
            (key, manifest, evaluation)
        });
        let read: Vec<_> = stream::iter(reads).buffer_unordered(AT_ONCE).collect().await;
        let before = self.seen();
        for (key, manifest, evaluation) in read {
            self.add(key, &manifest, evaluation);
        }
        let finished: BTreeSet<_> = self.walk.stages().values().collect();
        let (mut failures, mut unreadable) = store.readable_failures(id).await?;
        failures.retain(|failure| !finished.contains(&failure.stage));
        let (held, unheard) = store.readable_control(id).await?;
        let (rewound, untold) = store.readable_rewound(id).await?;
        unreadable.extend(unheard.into_iter().chain(untold));
        (self.failures, self.held, self.rewound) = (failures, held, rewound);
        self.unreadable = unreadable;
        Ok(before != self.seen())
    }

    /// All that may look different when more is read.
    fn seen(&self) -> impl PartialEq + use<> {
        let unreadable: Vec<Unreadable> = self.unreadable().cloned().collect();
        let told = (self.failures.clone(), self.held.clone(), self.rewound.clone());
        (self.stages.len(), unreadable, told)
    }

    fn add(&mut self, key: StageKey, manifest: &Manifest, evaluation: Option<Evaluation>) {
        let made = &manifest.environment;
        let who = Who {
            worker: made.worker.clone(),
            host: made.host.clone(),
            device: made.gpu.clone().unwrap_or_else(|| made.cpu.clone()),
        };
        let place = self.workers.iter().position(|known| *known == who);
        let worker = place.unwrap_or_else(|| {
            self.workers.push(who);
            self.workers.len() - 1
        });
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
        if let (StageSpec::Evaluation(_), Some(evaluation)) = (&manifest.spec, evaluation) {
            self.evaluations.insert(key.iteration, evaluation);
        }
    }

    /// The run itself.
    pub fn run(&self) -> &Run {
        self.walk.run()
    }

    /// Finished stages in the order of the plan.
    pub fn stages(&self) -> &BTreeMap<StageKey, Done> {
        &self.stages
    }

    /// Who computed them, by the numbers that stages name them by.
    pub fn workers(&self) -> &[Who] {
        &self.workers
    }

    /// Evaluations by iteration; 0 is the base's.
    pub fn evaluations(&self) -> &BTreeMap<u32, Evaluation> {
        &self.evaluations
    }

    /// What the run stands still at.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Results that were made again because they had been lost.
    pub fn rewound(&self) -> &[Rewound] {
        &self.rewound
    }

    /// Who holds the run back, if somebody does.
    pub fn held(&self) -> Option<&Control> {
        self.held.as_ref()
    }

    /// The records that cannot be read.
    pub fn unreadable(&self) -> impl Iterator<Item = &Unreadable> {
        self.unreadable_stages().chain(&self.unreadable)
    }

    /// Those of them that are stages'.
    pub fn unreadable_stages(&self) -> impl Iterator<Item = &Unreadable> {
        self.walk.unreadable().values().map(|(_, record)| record)
    }

    /// Stages that were done, whether or not their records can still be read.
    pub fn places(&self) -> usize {
        self.walk.places().len()
    }

    /// The newest iteration whose last update is done.
    pub fn iteration(&self) -> u32 {
        let inner = self.run().config().estimator.inner_updates;
        let updates = self.stages.keys().rev().filter(|key| key.kind == StageKind::Update);
        updates.map(|key| key.iteration - u32::from(key.inner < inner)).max().unwrap_or(0)
    }

    /// A metric of every stage of a kind, by iteration; one number a shard or update.
    pub fn metric(&self, kind: StageKind, name: &str) -> BTreeMap<u32, Vec<f64>> {
        let mut found: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for (key, done) in self.stages.iter().filter(|(key, _)| key.kind == kind) {
            if let Some(&value) = done.metrics.get(name) {
                found.entry(key.iteration).or_default().push(value);
            }
        }
        found
    }

    /// The names of the metrics that stages of a kind have, of those that begin so.
    pub fn metric_names(&self, kind: StageKind, prefix: &str) -> BTreeSet<String> {
        let of_kind = self.stages.iter().filter(|(key, _)| key.kind == kind);
        let names = of_kind.flat_map(|(_, done)| done.metrics.keys());
        names.filter(|name| name.starts_with(prefix)).cloned().collect()
    }
}

/// An evaluation's document; `None` where the store has lost it.
async fn evaluation(store: &Store, manifest: &Manifest) -> Option<Evaluation> {
    let bytes = store.get_blob(manifest.output("evaluation")?).await.ok()?;
    serde_json::from_slice(&bytes).ok()
}
