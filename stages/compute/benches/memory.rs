//! Peak memory of stages, each in a process of its own, beside the formula of `agrpo_spec::memory`; and
//! whether checkpointing leaves the gradient's bytes as they are.
//!
//! `cargo bench --package agrpo-compute --bench memory` prepares a policy of about 100 million weights and
//! trajectories in a temporary folder, then starts itself again for every row of the table; `-- small`
//! takes a tenth of the weights. The peak is `VmHWM`, so Linux only. Evaluations sample as rollouts do, and
//! are not measured: random weights write ids that no tokenizer knows.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its table")]
#![expect(clippy::cast_precision_loss, reason = "sizes for people")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use agrpo_compute::model::{ModelConfig, Policy};
use agrpo_spec::memory::{PassSizes, Sizes, Workload};
use agrpo_spec::{
    Artifact, ArtifactDigest, Cache, Content, EstimatorConfig, GradientSpec, Inputs, LoraConfig,
    ModelShape, Numerics, OptimizerConfig, Outputs, PositionRule, Precision, Real, Rewards,
    RolloutSpec, RowReward, Sampler, Seed, SftSpec, SftStart, StageKind, StageSpec, Task,
    UpdateSpec, WINDOW, encode,
};

/// Tokens of a prompt and of a completion.
const HALF: u32 = 64;
const MICRO_BATCH: u32 = 8;
const STEPS: u32 = 8;
const PROMPTS: u32 = 4;
const GROUP: u32 = 2;

fn real(value: f64) -> Real {
    Real::new(value).expect("finite")
}

fn from_toml<T: serde::de::DeserializeOwned>(text: &str) -> T {
    toml::from_str(text).expect("a section that is valid")
}

fn shape(size: &str) -> (ModelShape, u32) {
    let (d_model, n_layers, n_heads, mlp_hidden_size, vocabulary) = match size {
        "small" => (256, 8, 8, 704, 4096),
        _ => (768, 12, 12, 2048, 8192),
    };
    let (rope_theta, rms_norm_eps, init_std) = (real(1e4), real(1e-5), real(0.02));
    let shape = ModelShape {
        d_model,
        n_layers,
        n_heads,
        mlp_hidden_size,
        rope_theta,
        rms_norm_eps,
        init_std,
    };
    (shape, vocabulary)
}

fn task() -> Task {
    from_toml(&format!("[countdown]\nprompt_tokens = {HALF}\n"))
}

fn optimizer() -> OptimizerConfig {
    from_toml("learning_rate = 1e-4")
}

fn sampler() -> Sampler {
    Sampler {
        completion_tokens: HALF,
        block_tokens: HALF,
        steps: STEPS,
        temperature: real(1.0),
        top_k: 0,
        top_p: real(1.0),
        position: PositionRule::Random,
        guidance: real(0.0),
        cache: Cache::None,
        threshold: None,
    }
}

fn lora(variant: &str) -> Option<LoraConfig> {
    variant.contains("lora").then(|| from_toml("head = true"))
}

/// Files of the prepared folder, by role.
struct Prepared(PathBuf);

impl Prepared {
    fn read(&self, name: &str) -> Artifact {
        Artifact::Blob(std::fs::read(self.0.join(name)).expect("prepared").into())
    }

    fn write(&self, name: &str, artifact: &Artifact) {
        let Artifact::Blob(Content::Memory(bytes)) = artifact else { panic!("{name} is a blob") };
        std::fs::write(self.0.join(name), bytes).expect("a writable folder");
    }

    fn policy(&self) -> Artifact {
        let names = ["config.json", "model.safetensors", "tokenizer.json"];
        let file = |name: &str| {
            (name.to_owned(), std::fs::read(self.0.join(name)).expect("prepared").into())
        };
        Artifact::Folder(names.map(file).into())
    }
}

fn digest(artifact: &Artifact) -> ArtifactDigest {
    artifact.digest().expect("in memory")
}

fn inputs(artifacts: &[&Artifact]) -> Inputs {
    let mut inputs = Inputs::default();
    for artifact in artifacts {
        inputs.insert(digest(artifact), (*artifact).clone());
    }
    inputs
}

fn execute(spec: StageSpec, inputs: &Inputs) -> Outputs {
    agrpo_compute::execute(&spec, inputs).expect("a valid stage")
}

/// The task's tokenizer, by way of a tiny fine-tuning; the policy; its trajectories and their rewards.
fn prepare(folder: &Prepared, size: &str) {
    let (shape, vocabulary) = shape(size);
    let tiny =
        ModelShape { d_model: 8, n_layers: 1, n_heads: 1, mlp_hidden_size: 8, ..shape.clone() };
    let sft = StageSpec::Sft(SftSpec {
        version: StageKind::Sft.version(),
        numerics: Numerics::CpuNative,
        seed: Seed::new(1),
        task: task(),
        completion_tokens: HALF,
        start: SftStart::Scratch(tiny),
        first_step: 0,
        steps: 1,
        total_steps: 1,
        batch: 1,
        micro_batch: 1,
        careless_from: 1,
        careless_share: real(0.0),
        optimizer: optimizer(),
    });
    let made = execute(sft, &Inputs::default());
    let Artifact::Folder(files) = &made.artifacts["policy"] else { panic!("a folder") };
    let ids = files["config.json"].bytes(WINDOW).expect("in memory");
    let ids = ModelConfig::from_json(&ids).expect("written just now");
    let length = i64::from(2 * HALF);
    let config =
        ModelConfig::new(&shape, vocabulary.into(), ids.eos_token_id, ids.mask_token_id, length);
    let policy = Policy::draw(config, 0.02, Seed::new(1)).expect("a valid shape");
    let mut written = policy.to_files().expect("an f32 policy");
    drop(policy);
    written.insert("tokenizer.json".into(), files["tokenizer.json"].clone());
    for (name, content) in &written {
        let bytes = content.bytes(content.size()).expect("in memory");
        folder.write(name, &Artifact::Blob(bytes.into()));
    }
    let policy = Artifact::Folder(written);
    let outputs = execute(rollout(digest(&policy)), &inputs(&[&policy]));
    folder.write("trajectories", &outputs.artifacts["trajectories"]);
    let row = |n: u32| RowReward {
        reward: 0.0,
        correct: false,
        parts: BTreeMap::new(),
        advantage: f64::from(n) - 3.7,
        counted: true,
    };
    let rewards = Rewards { rows: (0..PROMPTS * GROUP).map(row).collect() };
    folder.write("rewards", &Artifact::Blob(encode(&rewards).into()));
}

fn rollout(policy: ArtifactDigest) -> StageSpec {
    StageSpec::Rollout(RolloutSpec {
        version: StageKind::Rollout.version(),
        numerics: Numerics::CpuNative,
        seed: Seed::new(1),
        task: task(),
        language: None,
        policy,
        precision: Precision::F32,
        iteration: 1,
        first_prompt: 0,
        prompts: PROMPTS,
        group: GROUP,
        micro_batch: MICRO_BATCH,
        sampler: sampler(),
        merge_adapter: false,
    })
}

fn gradient(folder: &Prepared, variant: &str) -> Outputs {
    let (policy, trajectories) = (folder.policy(), folder.read("trajectories"));
    let rewards = folder.read("rewards");
    let checkpointing = variant.contains("checkpointing");
    let estimator: EstimatorConfig = from_toml(&format!(
        "k = 2\nstep_weights = \"uniform\"\nhorizon = \"sampled\"\nmicro_batch = {MICRO_BATCH}\ncheckpointing = {checkpointing}"
    ));
    let spec = StageSpec::Gradient(GradientSpec {
        version: StageKind::Gradient.version(),
        numerics: Numerics::CpuNative,
        seed: Seed::new(1),
        policy: digest(&policy),
        precision: Precision::F32,
        behaviour: digest(&policy),
        reference: None,
        trajectories: digest(&trajectories),
        rewards: digest(&rewards),
        group: GROUP,
        iteration: 1,
        inner: 1,
        shard: 0,
        sampler: sampler(),
        estimator,
        lora: lora(variant),
    });
    execute(spec, &inputs(&[&policy, &trajectories, &rewards]))
}

fn update(folder: &Prepared, variant: &str) -> Outputs {
    let (policy, gradient) = (folder.policy(), folder.read(&format!("gradient {variant}")));
    let first = folder.0.join(format!("optimizer {variant}"));
    let state = first.exists().then(|| folder.read(&format!("optimizer {variant}")));
    let spec = StageSpec::Update(UpdateSpec {
        version: StageKind::Update.version(),
        numerics: Numerics::CpuNative,
        policy: digest(&policy),
        optimizer_state: state.as_ref().map(digest),
        gradients: vec![digest(&gradient)],
        iteration: 1,
        inner: 1,
        inner_updates: 1,
        iterations: 2,
        optimizer: optimizer(),
        seed: Seed::new(1),
        lora: lora(variant),
    });
    let all: Vec<&Artifact> = [&policy, &gradient].into_iter().chain(state.as_ref()).collect();
    execute(spec, &inputs(&all))
}

/// One row, in a process of its own: the stage, the digest of what it gave, and the peak in KiB.
fn child(folder: &Prepared, stage: &str, variant: &str) {
    let outputs = match stage {
        "prepare" => return prepare(folder, variant),
        "nothing" => return println!("- {}", peak_kib()),
        "rollout" => {
            let policy = folder.policy();
            execute(rollout(digest(&policy)), &inputs(&[&policy]))
        }
        "gradient" => gradient(folder, variant),
        _ => update(folder, variant),
    };
    let peak = peak_kib();
    let artifact = outputs.artifacts.values().next_back().expect("an output");
    println!("{} {peak}", digest(artifact).short());
    if let Some(gradient) = outputs.artifacts.get("gradient") {
        folder.write(&format!("gradient {variant}"), gradient);
    }
    if let Some(state) = outputs.artifacts.get("optimizer") {
        folder.write(&format!("optimizer {variant}"), state);
    }
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number of KiB")
}

fn workload(size: &str, variant: &str) -> Workload {
    let (shape, vocabulary) = shape(size);
    let pass = |queried: u32| PassSizes {
        sequences: MICRO_BATCH.into(),
        length: (2 * HALF).into(),
        queried: queried.into(),
    };
    Workload {
        sizes: Sizes::new(&shape, vocabulary.into()),
        precision: Precision::F32,
        lora: lora(variant),
        inputs_in_memory: true,
        rollout: pass(HALF),
        rollout_rows: (PROMPTS * GROUP).into(),
        cached_sequences: 0,
        gradient: pass(HALF / STEPS),
        checkpointing: variant.contains("checkpointing"),
        other_policies: 0,
        shards: 1,
        evaluation: pass(HALF),
    }
}

fn main() {
    agrpo_compute::use_one_thread();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [mark, folder, stage, variant] = arguments.as_slice()
        && mark == "child"
    {
        return child(&Prepared(folder.into()), stage, variant);
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
        command.arg("child").arg(folder).args([stage, variant]);
        let output = command.output().expect("the program starts again");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    start("prepare", size);
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
        let kind = StageKind::ALL.into_iter().find(|kind| kind.name() == stage);
        let estimate = workload(size, variant).stage(kind.expect("a kind")).expect("estimated");
        let formula = estimate.bytes() as f64 / 1024.0 / 1024.0;
        let off = 100.0 * (formula / measured - 1.0);
        println!(
            "{stage:<11}{variant:<23} {measured:>5.0} MiB {formula:>5.0} MiB {off:>+5.0}%  {digest}"
        );
        println!("    {estimate}");
    }
}
