//! A finished run without a model: a stub of every stage returns metrics and files of the right form.

use std::{collections::BTreeMap, sync::Arc};

use agrpo_fleet::local::Local;
use agrpo_spec::trajectories::Trajectories;
use agrpo_spec::{
    Artifact, Environment, ExecuteFn, Inputs, Outputs, Rewards, RowReward, Run, RunId, StageError,
    StageKind, StageSpec, encode,
};
use agrpo_store::Store;
use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::listener::{self, Limits};
use crate::live::Hub;

#[path = "../../tests/support/run_file.rs"]
mod small;

/// Text that a page must escape.
pub(crate) const HOSTILE: &str = "<script>alert(1)</script><img src=x onerror=alert(2)>\u{1b}[31m";

/// The kind of text in completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looks {
    Plain,
    Hostile,
}

const ROWS: usize = 16;
const TOKENS: usize = 8;

pub(crate) fn run_file(iterations: u32) -> String {
    small::run_file(&[
        ("name", "\"long\""),
        ("seed", "1"),
        ("sft.steps", "1"),
        ("sft.batch", "1"),
        ("sft.steps_per_stage", "1"),
        ("sft.micro_batch", "1"),
        ("rollout.prompts", "16"),
        ("training.iterations", &iterations.to_string()),
        ("evaluation.every", &iterations.div_ceil(20).to_string()),
    ])
}

fn tokenizer(looks: Looks) -> Bytes {
    let word = if looks == Looks::Hostile { HOSTILE } else { "7" };
    let document = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": { "type": "Fuse" },
        "model": { "type": "WordLevel", "vocab": { "<end>": 0, word: 1 }, "unk_token": "<end>" },
    });
    Bytes::from(document.to_string())
}

/// A file of rows of equal lengths: each token was written in the step of its place, with the log-probability -0.5.
pub(crate) fn trajectories(rows: usize, prompts: &[i64], completions: &[i64]) -> Bytes {
    let completion_len = completions.len() / rows;
    let steps = (0..rows).flat_map(|_| 0..i64::try_from(completion_len).unwrap());
    let all = Trajectories {
        policy: None,
        rows,
        prompt_len: prompts.len() / rows,
        completion_len,
        prompt_ids: prompts.to_vec(),
        completion_ids: completions.to_vec(),
        unmask_steps: steps.collect(),
        token_logps: vec![-0.5; completions.len()],
        token_entropies: vec![-0.5; completions.len()],
        kept: None,
    };
    all.to_bytes().unwrap()
}

fn rewards() -> Bytes {
    let row = |row: usize| RowReward {
        reward: f64::from(u32::try_from(row % 3).unwrap()),
        correct: row % 3 == 2,
        parts: BTreeMap::from([("correct".to_owned(), 1.0)]),
        advantage: 0.0,
        counted: true,
    };
    encode(&Rewards { rows: (0..ROWS).map(row).collect() }).into()
}

/// Half of four problems are right; of a shard with the counts that join it to the others.
fn evaluation(spec: &StageSpec) -> Bytes {
    let is_shard = matches!(spec, StageSpec::Evaluation(spec) if !spec.shard.is_none());
    let points = is_shard.then(|| json!({ "earned": 2.0, "possible": 4.0 }));
    let grades = |steps: u32| {
        let mut grades =
            json!({ "steps": steps, "correct": 2, "accuracy": 0.5, "solved_by": [2, 2] });
        grades["points"] = points.clone().into();
        grades
    };
    Bytes::from(json!({ "problems": 4, "results": [grades(8), grades(4)] }).to_string())
}

fn outputs(spec: &StageSpec, looks: Looks) -> Result<Outputs, StageError> {
    let name = spec.digest().to_string();
    let blob = |output: &'static str, bytes: Bytes| (output, Artifact::Blob(bytes.into()));
    let policy = || {
        let weights = Bytes::from(name.clone());
        let files = [
            ("model.safetensors".to_owned(), weights.into()),
            ("tokenizer.json".to_owned(), tokenizer(looks).into()),
        ];
        ("policy", Artifact::Folder(files.into()))
    };
    let (artifacts, metrics): (Vec<_>, &[&str]) = match spec.kind() {
        StageKind::Sft => (vec![policy(), blob("optimizer", name.clone().into())], &["loss"]),
        StageKind::Update => {
            (vec![policy(), blob("optimizer", name.clone().into())], &["grad_norm"])
        }
        StageKind::Updates => {
            (vec![policy(), blob("optimizer", name.clone().into())], &["grad_norm", "clip_share"])
        }
        StageKind::Rollout => {
            let ids = [1; ROWS * TOKENS];
            (vec![blob("trajectories", trajectories(ROWS, &ids, &ids))], &["entropy", "tokens"])
        }
        StageKind::Reward => (
            vec![blob("rewards", rewards())],
            &["reward", "correct", "completions", "part_correct"],
        ),
        StageKind::Gradient => (vec![blob("gradient", name.clone().into())], &["clip_share"]),
        StageKind::Evaluation => (vec![blob("evaluation", evaluation(spec))], &["accuracy"]),
    };
    // Some number that is another one for every stage.
    let number = f64::from(u32::from_str_radix(&name[..4], 16).unwrap()) / 65536.0;
    let metrics = metrics.iter().map(|metric| ((*metric).to_owned(), number)).collect();
    Ok(Outputs { artifacts: artifacts.into_iter().collect(), metrics })
}

/// A store in memory with such a run in it, finished.
pub(crate) async fn finished_run(iterations: u32, looks: Looks) -> (Store, RunId) {
    finished(Run::parse(&run_file(iterations)).unwrap(), looks).await
}

/// The same of any run.
pub(crate) async fn finished(run: Run, looks: Looks) -> (Store, RunId) {
    let store = Store::open("memory://", &[]).await.unwrap();
    let id = run.id();
    let execute: ExecuteFn = Arc::new(move |spec: &StageSpec, _: &Inputs| outputs(spec, looks));
    // One stage after another, a second apart: the clock is asked once a stage.
    let time = std::sync::atomic::AtomicU64::new(1_700_000_000_000);
    let clock = Arc::new(move || time.fetch_add(1000, std::sync::atomic::Ordering::Relaxed));
    let environment =
        Environment { worker: "worker-0".into(), threads: 1, ..Environment::default() };
    let log_tail = Arc::new(|_| vec![]);
    let local = Local { store: store.clone(), execute, workers: 2, environment, clock, log_tail };
    let (events, _heard) = mpsc::unbounded_channel();
    let (_stop, stopped) = watch::channel(false);
    local.run(run, false, events, stopped).await.unwrap();
    (store, id)
}

pub(crate) fn hub(store: Store) -> Arc<Hub> {
    Arc::new(Hub::new(store, None))
}

/// Pages on a free port of loopback, for as long as it lives.
pub(crate) struct Served {
    address: std::net::SocketAddr,
    _task: tokio::task::JoinSet<()>,
}

impl Served {
    pub(crate) async fn start(app: axum::Router) -> Self {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut task = tokio::task::JoinSet::new();
        let limits = Limits::of_files(1024);
        drop(task.spawn(async move { match listener::serve(socket, app, limits).await {} }));
        Self { address, _task: task }
    }

    /// Status code and all that follows.
    pub(crate) async fn ask(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }
}
