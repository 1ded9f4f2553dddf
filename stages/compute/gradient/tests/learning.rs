//! Gradient and update in turn, from rollouts of a policy whose reward is the share of one token: both all
//! weights and an adapter learn to write it, and an adapter's base stays as it was.

use std::{ops::Range, sync::Arc};

use agrpo_spec::{
    ArtifactDigest, Content, LoraConfig, OptimizerConfig, Schedule, UpdateSpec, Windows,
};
use bytes::Bytes;

use super::*;
use crate::{Resources, problems::NoPrograms, testing::gradient_sizes};

const WANTED: i64 = 3;
const ROWS: usize = 24;

fn optimizer() -> OptimizerConfig {
    OptimizerConfig {
        learning_rate: real(0.02),
        beta1: real(0.9),
        beta2: real(0.99),
        eps: real(1e-8),
        weight_decay: real(0.0),
        max_grad_norm: real(1.0),
        warmup: 0,
        starts_at_zero: false,
        schedule: Schedule::Constant,
        final_ratio: real(0.0),
    }
}

fn run(spec: StageSpec, inputs: &[&Artifact]) -> Outputs {
    let mut all = Inputs::default();
    for artifact in inputs {
        all.insert(artifact.digest().unwrap(), (*artifact).clone());
    }
    crate::execute(&spec, &all).unwrap()
}

/// A policy and its optimizer's state after so many updates, and the mean reward before each.
fn learn(
    lora: Option<&LoraConfig>,
    checkpointing: Checkpointing,
    updates: u32,
) -> (Artifact, Vec<f64>) {
    let (mut current, mut state) = (policy(1), None::<Artifact>);
    let mut means = vec![];
    for iteration in 1..=updates {
        let (spec, trajectories, rewards, mean) = sampled(&current, lora, checkpointing, iteration);
        means.push(mean);
        let made = run(StageSpec::Gradient(spec), &[&current, &trajectories, &rewards]);
        assert_eq!(made.metrics["ratio_deviation"], 0.0);
        let gradient = &made.artifacts["gradient"];
        let update = StageSpec::Update(UpdateSpec {
            version: StageKind::Update.version(),
            numerics: Numerics::CpuPortable,
            policy: current.digest().unwrap(),
            optimizer_state: state.as_ref().map(|state| state.digest().unwrap()),
            gradients: vec![gradient.digest().unwrap()],
            iteration,
            inner: 1,
            inner_updates: 1,
            iterations: updates,
            optimizer: optimizer(),
            seed: Seed::new(1),
            lora: lora.cloned(),
        });
        let all: Vec<_> = [&current, gradient].into_iter().chain(state.as_ref()).collect();
        let mut moved = run(update.clone(), &all);
        let far: Vec<_> = all.into_iter().map(elsewhere).collect();
        let windowed = run(update, &far.iter().collect::<Vec<_>>());
        assert_eq!(windowed.artifacts, moved.artifacts, "where its inputs lie has changed a step");
        current = moved.artifacts.remove("policy").unwrap();
        state = moved.artifacts.remove("optimizer");
    }
    (current, means)
}

/// Bytes that count as too large for memory.
#[derive(Debug)]
struct Far(Content);

impl Windows for Far {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn digest(&self) -> Option<ArtifactDigest> {
        None
    }

    fn window(&self, range: Range<u64>) -> std::io::Result<Bytes> {
        self.0.window(range)
    }
}

/// An artifact whose bytes have to be read in windows.
fn elsewhere(artifact: &Artifact) -> Artifact {
    let far = |content: &Content| Content::Elsewhere(Arc::new(Far(content.clone())));
    match artifact {
        Artifact::Blob(content) => Artifact::Blob(far(content)),
        Artifact::Folder(files) => Artifact::Folder(files.clone()),
    }
}

/// A rollout of the policy, what it earned, and the spec of its gradient.
fn sampled(
    policy: &Artifact,
    lora: Option<&LoraConfig>,
    checkpointing: Checkpointing,
    iteration: u32,
) -> (GradientSpec, Artifact, Artifact, f64) {
    let Artifact::Folder(files) = policy else { panic!("not a folder") };
    let loaded = Policy::from_folder(files).unwrap();
    let sampler = sampler(4, 4, 4, PositionRule::Random);
    let seed = Seed::new(3).child(Purpose::Iteration, iteration.into());
    let row = |n: u64| Row { prompt: vec![1, 2], seed: seed.child(Purpose::Sample, n) };
    let rows: Vec<Row> = (0..ROWS as u64).map(row).collect();
    let mut trajectories = sample(&loaded, &rows, &sampler, 16, &Threads::one()).unwrap();
    trajectories.policy = Some(policy.digest().unwrap());
    let share = |row: usize| {
        let completion = trajectories.completion(row).iter();
        completion.filter(|&&token| token == WANTED).count() as f64 / 4.0
    };
    let mean = (0..ROWS).map(share).sum::<f64>() / ROWS as f64;
    let worth = |row: usize| RowReward {
        reward: share(row),
        correct: false,
        parts: BTreeMap::new(),
        advantage: share(row) - mean,
        counted: true,
    };
    let rewards = Rewards { rows: (0..ROWS).map(worth).collect() };
    let trajectories = Artifact::Blob(trajectories.to_bytes().unwrap().into());
    let rewards = Artifact::Blob(encode(&rewards).into());
    let digest: ArtifactDigest = policy.digest().unwrap();
    let spec = GradientSpec {
        version: StageKind::Gradient.version(),
        numerics: Numerics::CpuPortable,
        seed: Seed::new(1),
        policy: digest,
        precision: Precision::F32,
        behaviour: digest,
        reference: None,
        trajectories: trajectories.digest().unwrap(),
        rewards: rewards.digest().unwrap(),
        group: ROWS.try_into().unwrap(),
        iteration,
        inner: 1,
        shard: 0,
        sampler,
        estimator: EstimatorConfig { checkpointing, ..config(EstimatorKind::Agrpo) },
        lora: lora.cloned(),
    };
    (spec, trajectories, rewards, mean)
}

/// The memory of a machine decides how a gradient is computed, not which.
#[test]
fn auto_gives_the_same_bytes_in_any_memory() {
    crate::use_one_thread();
    let policy = policy(1);
    let gradient = |checkpointing, memory| {
        let (spec, trajectories, rewards, _) = sampled(&policy, None, checkpointing, 1);
        let mut inputs = Inputs::default();
        for artifact in [&policy, &trajectories, &rewards] {
            inputs.insert(artifact.digest().unwrap(), artifact.clone());
        }
        let Artifact::Folder(files) = &policy else { panic!("not a folder") };
        let model = ModelConfig::of_folder(files).unwrap();
        let sizes = gradient_sizes(&spec, model.memory_sizes(), 6);
        let decided = decided(StageKind::Gradient, sizes, &Memory::of(memory)).checkpointing;
        let scorer = Arc::new(NoPrograms);
        let resources = Resources { memory, ..Resources::of(Threads::one()) };
        let execute = crate::execute_with(crate::Device::Cpu, resources, scorer);
        let made = execute(&StageSpec::Gradient(spec), &inputs).unwrap();
        (made.artifacts["gradient"].clone(), decided)
    };
    let (alone, decided) = gradient(Checkpointing::Never, Some(0));
    assert_eq!(decided, Checkpointing::Never, "a run file that decides is obeyed");
    for (memory, expected) in [
        (None, Checkpointing::Always),
        (Some(1 << 20), Checkpointing::Always),
        (Some(1 << 40), Checkpointing::Never),
    ] {
        assert_eq!(gradient(Checkpointing::Auto, memory), (alone.clone(), expected), "{memory:?}");
    }
}

#[test]
fn all_weights_and_adapters_learn() {
    crate::use_one_thread();
    let lora: LoraConfig = LoraConfig {
        rank: 2,
        alpha: real(4.0),
        targets: ["q_proj", "v_proj", "up_proj", "ff_out"].map(str::to_owned).into(),
        head: true,
        rslora: false,
        merge_for_sampling: false,
    };
    for lora in [None, Some(&lora)] {
        let (learned, means) = learn(lora, Checkpointing::Never, 40);
        let late = means[35..].iter().sum::<f64>() / 5.0;
        assert!(means[0] < 0.3 && late > 0.8, "{means:?}");
        let (again, _) = learn(lora, Checkpointing::Always, 40);
        assert_eq!(again, learned, "checkpointing changed what was learned");
        if lora.is_some() {
            let (Artifact::Folder(base), Artifact::Folder(files)) = (policy(1), learned) else {
                panic!("not folders")
            };
            assert!(base.iter().all(|(name, bytes)| files[name] == *bytes));
            assert_eq!(files.len(), base.len() + 2);
        }
    }
}
