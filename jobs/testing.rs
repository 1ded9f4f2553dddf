//! What the crate's tests share: a small run, a fake of the stages, stores of each kind.
//!
//! The fake's bytes depend on the whole spec and on every input byte, as real ones do, so that any
//! mix-up shows in the final policy. Only tests see this file.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agrpo_spec::{
    Artifact, ArtifactDigest, Environment, ExecuteFn, Inputs, Outputs, Run, StageError, StageKind,
    StageSpec,
};
use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

use crate::embedded::{Event, Local, Outcome};
use crate::{Clock, JobsError, LogTail, Store};

/// A run of 3 sft chunks, then `iterations` of 2 shards with an evaluation every 2.
pub(crate) fn run_named(name: &str, iterations: u32) -> Run {
    run_of(name, iterations, 2)
}

/// The same with so many shards of two prompts each.
pub(crate) fn run_of(name: &str, iterations: u32, shards: u32) -> Run {
    run_seeded(name, iterations, shards, 3)
}

/// The same with a seed of its own, so that it shares no stage with another run.
pub(crate) fn run_seeded(name: &str, iterations: u32, shards: u32, seed: u64) -> Run {
    let prompts = 2 * shards;
    let text = format!(
        r#"
        name = "{name}"
        seed = {seed}
        [task.countdown]
        [model]
        d_model = 8
        n_layers = 1
        n_heads = 2
        mlp_hidden_size = 8
        [sft]
        steps = 5
        batch = 4
        steps_per_stage = 2
        micro_batch = 4
        optimizer = {{ learning_rate = 1e-3 }}
        [rollout]
        prompts = {prompts}
        group = 2
        shards = {shards}
        micro_batch = 4
        completion_tokens = 8
        block_tokens = 8
        steps = 8
        [estimator]
        k = 2
        micro_batch = 4
        [optimizer]
        learning_rate = 1e-4
        [training]
        iterations = {iterations}
        [evaluation]
        problems = 4
        every = 2
        steps = [8, 4]
        micro_batch = 4
        "#
    );
    Run::parse(&text).unwrap()
}

pub(crate) fn run() -> Run {
    run_named("small", 3)
}

pub(crate) fn clock() -> Clock {
    Arc::new(|| 1_700_000_000_000)
}

/// The machine's own, for workers, who compare theirs with Redis'.
pub(crate) fn real_clock() -> Clock {
    Arc::new(|| {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap();
        u64::try_from(since.as_millis()).unwrap()
    })
}

pub(crate) fn environment() -> Environment {
    Environment { worker: "test".into(), threads: 1, ..Environment::default() }
}

/// 32 * `blocks` bytes that follow from a text.
fn expand(text: &str, blocks: usize) -> Bytes {
    (0..blocks)
        .flat_map(|i| ArtifactDigest::of(format!("{text} {i}").as_bytes()).to_string().into_bytes())
        .collect()
}

fn digest_of_inputs(spec: &StageSpec, inputs: &Inputs) -> Result<String, StageError> {
    let mut all = spec.digest().to_string();
    for (role, digest) in spec.inputs() {
        let bytes = match role {
            "policy" | "behaviour" | "reference" => {
                inputs.folder(digest)?["model.safetensors"].bytes(1 << 20).unwrap()
            }
            _ => inputs.blob(digest)?.clone(),
        };
        all.push_str(&ArtifactDigest::of(&bytes).to_string());
    }
    Ok(ArtifactDigest::of(all.as_bytes()).to_string())
}

/// What the fake makes of a stage.
pub(crate) fn fake_outputs(spec: &StageSpec, inputs: &Inputs) -> Result<Outputs, StageError> {
    let seed = digest_of_inputs(spec, inputs)?;
    let blob = |name: &str| Artifact::Blob(expand(&format!("{seed} {name}"), 4).into());
    let policy = || {
        Artifact::Folder(BTreeMap::from([
            ("config.json".to_owned(), Bytes::from_static(b"{\"d_model\": 8}").into()),
            ("model.safetensors".to_owned(), expand(&format!("{seed} model"), 64).into()),
        ]))
    };
    let artifacts = match spec.kind() {
        StageKind::Sft | StageKind::Update => {
            BTreeMap::from([("policy", policy()), ("optimizer", blob("optimizer"))])
        }
        StageKind::Rollout => BTreeMap::from([("trajectories", blob("trajectories"))]),
        StageKind::Reward => BTreeMap::from([("rewards", blob("rewards"))]),
        StageKind::Gradient => BTreeMap::from([("gradient", blob("gradient"))]),
        StageKind::Evaluation => BTreeMap::from([("evaluation", blob("evaluation"))]),
    };
    let share = u32::from_str_radix(&seed[..4], 16).unwrap();
    let metrics = BTreeMap::from([("accuracy".to_owned(), f64::from(share) / 65_536.0)]);
    Ok(Outputs { artifacts, metrics })
}

pub(crate) fn fake() -> ExecuteFn {
    Arc::new(fake_outputs)
}

/// A store and, where it has one, its folder, which goes with the value.
pub(crate) struct TestStore {
    pub(crate) store: Store,
    folder: Option<TempDir>,
}

impl TestStore {
    pub(crate) async fn memory() -> Self {
        Self { store: Store::open("memory://", &[]).await.unwrap(), folder: None }
    }

    pub(crate) async fn file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap(), &[]).await.unwrap();
        Self { store, folder: Some(folder) }
    }

    /// A local store in which blobs of more bytes than this count as large.
    pub(crate) async fn file_with_large(large: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::with_large(folder.path().to_str().unwrap(), large).await;
        Self { store, folder: Some(folder) }
    }

    /// One store of each kind.
    pub(crate) async fn each() -> [Self; 2] {
        [Self::memory().await, Self::file().await]
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// The store as a new process sees it.
    pub(crate) fn reopened(&self) -> Store {
        self.store.fresh()
    }

    /// The same as silent corruption does it: neither the file nor its times tell.
    pub(crate) fn flip_silently(&self, name: &str) {
        let path = self.path(name);
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        let middle = file.metadata().unwrap().len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, middle).unwrap();
        file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
        file.set_modified(modified).unwrap();
    }

    /// Changes one bit in the middle of a stored object.
    pub(crate) fn flip(&self, name: &str) {
        let mut bytes = std::fs::read(self.path(name)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// Cuts a stored object in half.
    pub(crate) fn truncate(&self, name: &str) {
        let bytes = std::fs::read(self.path(name)).unwrap();
        std::fs::write(self.path(name), &bytes[..bytes.len() / 2]).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }
}

/// A process that logs one line whatever happens.
pub(crate) fn local(store: &Store, execute: ExecuteFn, workers: usize) -> Local {
    let log_tail: LogTail = Arc::new(|since| vec![format!("logged since {since}")]);
    let (store, environment, clock) = (store.clone(), environment(), clock());
    Local { store, execute, workers, environment, clock, log_tail }
}

/// Runs to the end; gives the events as well.
pub(crate) async fn finish(
    store: &Store,
    run: Run,
    execute: ExecuteFn,
    workers: usize,
) -> (Result<Outcome, JobsError>, Vec<Event>) {
    let (events, mut heard) = mpsc::unbounded_channel();
    let (_stop, stop) = watch::channel(false);
    let outcome = local(store, execute, workers).run(run, events, stop).await;
    let mut all = vec![];
    while let Ok(event) = heard.try_recv() {
        all.push(event);
    }
    (outcome, all)
}

/// Repairs a run and computes it to its end.
pub(crate) async fn repaired(store: &Store, run: Run) -> Result<Outcome, JobsError> {
    let (events, _heard) = mpsc::unbounded_channel();
    let (_stop, stop) = watch::channel(false);
    local(store, fake(), 2).repair(run, events, stop).await
}

/// Runs to the end, which must be reached.
pub(crate) async fn finished(store: &Store, run: Run, workers: usize) -> Outcome {
    finish(store, run, fake(), workers).await.0.unwrap()
}
