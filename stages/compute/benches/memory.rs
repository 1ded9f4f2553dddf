//! Peak memory of stages, each in a process of its own, beside the formula of `agrpo_spec::memory`; and
//! whether checkpointing leaves the gradient's bytes as they are.
//!
//! `cargo bench --package agrpo-compute --bench memory` prepares a policy of about 100 million weights and
//! trajectories in a temporary folder, then starts itself again for every row of the table; `-- small`
//! takes a tenth of the weights. The peak is `VmHWM`, so Linux only. Evaluations sample as rollouts do, and
//! are not measured: random weights write ids that no tokenizer knows.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its table")]

use std::path::{Path, PathBuf};
use std::{collections::BTreeMap, process::Command};

use agrpo_compute::model::{ModelConfig, Policy};
use agrpo_spec::memory::Workload;
use agrpo_spec::{
    Artifact, ArtifactDigest, Base, Content, Inputs, Outputs, Plan, Rewards, RowReward, Run, Seed,
    StageKey, StageKind, StageSpec, WINDOW, encode,
};

/// Tokens of a prompt and of a completion.
const HALF: u32 = 64;
const STEPS: u32 = 8;
/// Completions of the rollout, four prompts of two each.
const ROWS: u32 = 8;

/// A run whose stages are measured; `variant` says what it trains, and how.
fn run(size: &str, variant: &str) -> Run {
    let (d_model, n_layers, n_heads, mlp_hidden_size) = match size {
        "tiny" => (8, 1, 2, 8),
        "small" => (256, 8, 8, 704),
        _ => (768, 12, 12, 2048),
    };
    let lora = if variant.contains("lora") { "[lora]\nhead = true" } else { "" };
    let checkpointing = variant.contains("checkpointing");
    let text = format!(
        r#"
name = "memory"
seed = 1
task = {{ countdown = {{ prompt_tokens = {HALF} }} }}
optimizer = {{ learning_rate = 1e-4 }}
training = {{ iterations = 2 }}
[model]
d_model = {d_model}
n_layers = {n_layers}
n_heads = {n_heads}
mlp_hidden_size = {mlp_hidden_size}
init_std = 0.02
[sft]
steps = 1
batch = 1
steps_per_stage = 1
micro_batch = 1
optimizer = {{ learning_rate = 1e-4 }}
[rollout]
prompts = 4
group = 2
shards = 1
micro_batch = 8
completion_tokens = {HALF}
block_tokens = {HALF}
steps = {STEPS}
[estimator]
k = 2
step_weights = "uniform"
horizon = "sampled"
micro_batch = 8
checkpointing = {checkpointing}
[evaluation]
problems = 1
every = 2
steps = [{STEPS}]
micro_batch = 8
{lora}
"#
    );
    Run::parse(&text).expect("a valid run")
}

fn vocabulary(size: &str) -> u32 {
    if size == "small" { 4096 } else { 8192 }
}

/// Names outputs by their role: hashing them would take memory.
fn named(output: &str) -> ArtifactDigest {
    ArtifactDigest::of(output.as_bytes())
}

/// The run's stage of this kind. An update finds an optimizer's state from the second iteration on.
fn spec(run: Run, kind: StageKind, iteration: u32) -> StageSpec {
    let wanted = StageKey::new(kind, iteration, 0);
    let mut plan = Plan::new(run);
    plan.leap_to_base(named("policy"));
    loop {
        plan.leave_evaluations();
        let (&key, spec) = plan.pending().first_key_value().expect("the stage comes");
        if key == wanted {
            return spec.clone();
        }
        plan.finished(key, |output| Some(named(output))).expect("pending");
    }
}

/// Files of the prepared folder, by role.
struct Prepared(PathBuf);

impl Prepared {
    fn read(&self, name: &str) -> Content {
        std::fs::read(self.0.join(name)).expect("prepared").into()
    }

    fn write(&self, name: &str, content: &Content) {
        let bytes = content.bytes(content.size()).expect("in memory");
        std::fs::write(self.0.join(name), bytes).expect("a writable folder");
    }

    fn inputs(&self, blobs: &[(&str, &str)]) -> Inputs {
        let files = ["config.json", "model.safetensors", "tokenizer.json"];
        let files = files.map(|name| (name.to_owned(), self.read(name)));
        let mut inputs = Inputs::default();
        inputs.insert(named("policy"), Artifact::Folder(files.into()));
        for (output, file) in blobs {
            inputs.insert(named(output), Artifact::Blob(self.read(file)));
        }
        inputs
    }

    /// Writes an output under the file's name.
    fn keep(&self, outputs: &Outputs, output: &str, file: &str) {
        if let Some(Artifact::Blob(content)) = outputs.artifacts.get(output) {
            self.write(file, content);
        }
    }
}

fn execute(spec: &StageSpec, inputs: &Inputs) -> Outputs {
    agrpo_compute::execute(spec, inputs).expect("a valid stage")
}

/// The task's tokenizer, by way of a tiny fine-tuning; the policy; its trajectories and their rewards.
fn prepare(folder: &Prepared, size: &str) {
    let plan = Plan::new(run("tiny", ""));
    let (_, sft) = plan.pending().first_key_value().expect("a run begins with fine-tuning");
    let made = execute(sft, &Inputs::default());
    let Artifact::Folder(files) = &made.artifacts["policy"] else { panic!("a folder") };
    let ids = files["config.json"].bytes(WINDOW).expect("in memory");
    let ids = ModelConfig::from_json(&ids).expect("written just now");
    let run = run(size, "");
    let Base::Scratch(shape, _) = run.base() else { panic!("a model of its own") };
    let (v, length) = (vocabulary(size).into(), i64::from(2 * HALF));
    let config = ModelConfig::new(shape, v, ids.eos_token_id, ids.mask_token_id, length);
    let policy = Policy::draw(config, shape.init_std.get(), Seed::new(1)).expect("a valid shape");
    let mut written = policy.to_files().expect("an f32 policy");
    drop(policy);
    written.insert("tokenizer.json".into(), files["tokenizer.json"].clone());
    written.iter().for_each(|(name, content)| folder.write(name, content));
    let outputs = execute(&spec(run, StageKind::Rollout, 1), &folder.inputs(&[]));
    folder.keep(&outputs, "trajectories", "trajectories");
    let row = |n: u32| RowReward {
        reward: 0.0,
        correct: false,
        parts: BTreeMap::new(),
        advantage: f64::from(n) - 3.7,
        counted: true,
    };
    folder.write("rewards", &encode(&Rewards { rows: (0..ROWS).map(row).collect() }).into());
}

/// One row, in a process of its own: the stage, the digest of what it gave, and the peak in KiB.
fn child(folder: &Prepared, stage: &str, size: &str, variant: &str) {
    match stage {
        "prepare" => return prepare(folder, size),
        "nothing" => return println!("- {}", peak_kib()),
        _ => {}
    }
    let (kind, state) = (kind(stage), format!("optimizer {variant}"));
    let has_state = kind == StageKind::Update && folder.0.join(&state).exists();
    let gradient = format!("gradient {variant}");
    let blobs = match kind {
        StageKind::Gradient => vec![("trajectories", "trajectories"), ("rewards", "rewards")],
        StageKind::Update if has_state => vec![("gradient", &*gradient), ("optimizer", &state)],
        StageKind::Update => vec![("gradient", &*gradient)],
        _ => vec![],
    };
    let spec = spec(run(size, variant), kind, 1 + u32::from(has_state));
    let outputs = execute(&spec, &folder.inputs(&blobs));
    let peak = peak_kib();
    let artifact = outputs.artifacts.values().next_back().expect("an output");
    println!("{} {peak}", artifact.digest().expect("in memory").short());
    folder.keep(&outputs, "gradient", &gradient);
    folder.keep(&outputs, "optimizer", &state);
}

fn kind(stage: &str) -> StageKind {
    StageKind::ALL.into_iter().find(|kind| kind.name() == stage).expect("a kind")
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number of KiB")
}

/// The formula's workload. No two completions share a state, so a pass reads what one step wrote.
fn workload(size: &str, variant: &str) -> Workload {
    let mut workload = Workload::of(&run(size, variant), vocabulary(size).into(), HALF.into());
    workload.gradient.queried = (HALF / STEPS).into();
    workload
}

fn main() {
    agrpo_compute::use_one_thread();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [mark, folder, stage, size, variant] = arguments.as_slice()
        && mark == "child"
    {
        return child(&Prepared(folder.into()), stage, size, variant);
    }
    let size = arguments.first().map_or("base", String::as_str);
    let folder = std::env::temp_dir().join(format!("agrpo-memory-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a writable folder");
    table(&folder, size);
    std::fs::remove_dir_all(&folder).expect("our own folder");
}

fn table(folder: &Path, size: &str) {
    let start = |stage: &str, variant: &str| {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.arg("child").arg(folder).args([stage, size, variant]);
        // As the program sets them (`src/numerics.rs`).
        command
            .envs([("MALLOC_TRIM_THRESHOLD_", "67108864"), ("MALLOC_MMAP_THRESHOLD_", "33554432")]);
        let output = command.output().expect("the program starts again");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    start("prepare", "-");
    println!("nothing: {}", start("nothing", "-"));
    println!("{:<34} {:>9} {:>9} {:>6}  output", "stage", "measured", "formula", "off");
    let rows = [
        ("rollout", "all"),
        ("gradient", "all"),
        ("gradient", "all checkpointing"),
        ("gradient", "lora"),
        ("gradient", "lora checkpointing"),
        ("update", "all"),
        ("update", "all"),
        ("update", "lora"),
    ];
    for (stage, variant) in rows {
        let said = start(stage, variant);
        let (digest, peak) = said.trim().split_once(' ').expect("two words");
        let measured = peak.parse::<f64>().expect("a number") / 1024.0;
        let estimate = workload(size, variant).stage(kind(stage)).expect("estimated");
        let formula = estimate.bytes() as f64 / 1024.0 / 1024.0;
        let off = 100.0 * (formula / measured - 1.0);
        println!(
            "{stage:<11}{variant:<23} {measured:>5.0} MiB {formula:>5.0} MiB {off:>+5.0}%  {digest}"
        );
        println!("    {estimate}");
    }
}
