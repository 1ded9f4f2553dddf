//! A run of a given number of stages, stubs of its stages, and its store.

use std::{collections::BTreeMap, sync::Arc, time::UNIX_EPOCH};

use agrpo_spec::{
    Artifact, Environment, Inputs, Outputs, Plan, Run, StageError, StageKind, StageSpec,
};
use agrpo_store::{Clock, Store};
use bytes::Bytes;

use self::run_file::run_file;
use crate::s3_server::S3Server;

#[path = "../../../../tests/support/run_file.rs"]
mod run_file;

/// A store, and what has to live as long.
pub(crate) struct Setup {
    pub(crate) store: Store,
    _folder: Option<tempfile::TempDir>,
    _server: Option<S3Server>,
}

impl Setup {
    /// `local` and `redis` have a store in memory, `files` one in a folder, `s3` one in a SeaweedFS.
    pub(crate) async fn new(services: &str) -> Self {
        assert!(["local", "files", "redis", "s3"].contains(&services), "unknown: {services}");
        let folder = (services == "files").then(|| tempfile::tempdir().expect("a folder"));
        let server = (services == "s3").then(S3Server::start);
        let (url, options) = match (&folder, &server) {
            (Some(folder), _) => (folder.path().display().to_string(), vec![]),
            (None, Some(server)) => {
                let named = server.environment().map(|(n, v)| (n.to_owned(), v.to_owned()));
                let options = named.into_iter().filter(|(n, _)| n != "AGRPO_STORE").collect();
                ("s3://agrpo".to_owned(), options)
            }
            (None, None) => ("memory://".to_owned(), vec![]),
        };
        let store = Store::open(&url, &options).await.expect("a store");
        Self { store, _folder: folder, _server: server }
    }
}

/// A run of at least so many stages, in iterations of so many shards.
pub(crate) fn run(stages: u64, shards: usize) -> Run {
    let iterations = stages.div_ceil(3 * shards as u64 + 1);
    let shards = shards.to_string();
    let text = run_file(&[
        ("name", "\"simulated\""),
        ("seed", "1"),
        ("sft.steps", "1"),
        ("sft.batch", "1"),
        ("sft.steps_per_stage", "1"),
        ("sft.micro_batch", "1"),
        ("rollout.prompts", &shards),
        ("rollout.shards", &shards),
        ("training.iterations", &iterations.to_string()),
        ("evaluation.every", &iterations.div_ceil(10).to_string()),
        ("evaluation.steps", "[8]"),
    ]);
    let run = Run::parse(&text).expect("a sound run");
    assert!(Plan::total_stages(&run) >= stages);
    run
}

/// Outputs of 64 bytes that follow from the stage's name; inputs are fetched and not looked at.
pub(crate) fn outputs(spec: &StageSpec, _: &Inputs) -> Result<Outputs, StageError> {
    let name = spec.digest();
    let blob = |output: &str| Bytes::from(format!("{output:<16}{}", name.short()));
    let artifact = |output: &'static str| (output, Artifact::Blob(blob(output).into()));
    let policy = || {
        let files = [("model.safetensors".to_owned(), blob("policy").into())];
        ("policy", Artifact::Folder(files.into()))
    };
    let artifacts = match spec.kind() {
        StageKind::Sft | StageKind::Update | StageKind::Updates => {
            [policy(), artifact("optimizer")].into()
        }
        StageKind::Rollout => [artifact("trajectories")].into(),
        StageKind::Reward => [artifact("rewards")].into(),
        StageKind::Gradient => [artifact("gradient")].into(),
        StageKind::Evaluation => [artifact("evaluation")].into(),
    };
    Ok(Outputs { artifacts, metrics: BTreeMap::new() })
}

/// The time: a worker whose clock is not that of Redis is refused.
pub(crate) fn clock() -> Clock {
    Arc::new(|| {
        let since = UNIX_EPOCH.elapsed().expect("a time after 1970");
        u64::try_from(since.as_millis()).expect("a time before the year 500 million")
    })
}

pub(crate) fn environment(worker: usize) -> Environment {
    Environment { worker: format!("worker-{worker}"), threads: 1, ..Environment::default() }
}
