//! The stage as a whole: what it refuses, and completions from which nothing can be learned.

use agrpo_spec::{
    EstimatorConfig, EstimatorKind, Horizon, Numerics, PositionRule, Precision, RowReward, Seed,
    StageError, StageKind, StageSpec, encode,
};

use super::*;
use crate::Threads;
use crate::sampler::{Row, sample};
use crate::testing::{config, real, sampler, shape};
use crate::{model::Policy, tensors::TensorWindows};

/// A policy of 10 tokens, 8 the end and 9 the mask.
fn policy(seed: u64) -> Artifact {
    let config = ModelConfig::new(&shape(0.5), 10, 8, 9, 6);
    Artifact::Folder(Policy::draw(config, 0.5, Seed::new(seed)).unwrap().to_files().unwrap())
}

/// Two completions of a policy, with these advantages.
struct Shard {
    spec: GradientSpec,
    inputs: Inputs,
}

fn shard(change: impl Fn(&mut Trajectories), advantages: [f64; 2]) -> Shard {
    let sampler = sampler(4, 4, 4, PositionRule::Random);
    let policy = policy(1);
    let Artifact::Folder(files) = &policy else { panic!("not a folder") };
    let loaded = Policy::from_folder(files).unwrap();
    let row = |seed| Row { prompt: vec![1, 2], seed: Seed::new(seed) };
    let mut trajectories =
        sample(&loaded, &[row(1), row(2)], &sampler, 4, &Threads::one()).unwrap();
    trajectories.policy = Some(policy.digest().unwrap());
    change(&mut trajectories);
    let worth = |advantage| RowReward {
        reward: 0.0,
        correct: false,
        parts: BTreeMap::new(),
        advantage,
        counted: true,
    };
    let rewards = encode(&Rewards { rows: advantages.map(worth).to_vec() });
    let trajectories = Artifact::Blob(trajectories.to_bytes().unwrap().into());
    let rewards = Artifact::Blob(rewards.into());
    let spec = GradientSpec {
        version: StageKind::Gradient.version(),
        numerics: Numerics::CpuPortable,
        seed: Seed::new(1),
        policy: policy.digest().unwrap(),
        precision: Precision::F32,
        behaviour: policy.digest().unwrap(),
        reference: None,
        trajectories: trajectories.digest().unwrap(),
        rewards: rewards.digest().unwrap(),
        group: 2,
        iteration: 1,
        inner: 1,
        shard: 0,
        sampler,
        estimator: EstimatorConfig { horizon: Horizon::Effective, ..config(EstimatorKind::Agrpo) },
        lora: None,
    };
    let mut inputs = Inputs::default();
    for artifact in [policy, trajectories, rewards] {
        inputs.insert(artifact.digest().unwrap(), artifact);
    }
    Shard { spec, inputs }
}

impl Shard {
    fn execute(&self) -> Result<Outputs, StageError> {
        crate::execute(&StageSpec::Gradient(self.spec.clone()), &self.inputs)
    }

    fn refusal(&self) -> String {
        match self.execute() {
            Err(StageError::Data(text)) => text.to_string(),
            other => panic!("not refused as data: {other:?}"),
        }
    }
}

fn norm(outputs: &Outputs) -> f64 {
    let Artifact::Blob(content) = &outputs.artifacts["gradient"] else { panic!("not a blob") };
    let mut named = TensorWindows::open("gradient", content).unwrap().read().unwrap();
    assert!(named.remove(MEAN_OVER).is_some());
    named.values().map(|gradient| gradient.abs().sum(tch::Kind::Double).double_value(&[])).sum()
}

#[test]
fn trajectories_of_another_policy_are_refused() {
    let other = policy(2).digest().unwrap();
    let strange = shard(|all| all.policy = Some(other), [1.0, -1.0]);
    let expected = strange.spec.behaviour;
    assert_eq!(
        strange.refusal(),
        format!("the trajectories were sampled by the policy {other}, expected {expected}")
    );
    assert_eq!(
        shard(|all| all.policy = None, [1.0, -1.0]).refusal(),
        "the trajectories do not say which policy sampled them"
    );
}

/// No plan contains these settings; a spec of another origin is refused too.
#[test]
fn estimators_that_do_not_fit_are_refused_with_the_key() {
    let refusal = |change: &dyn Fn(&mut GradientSpec)| {
        let mut shard = shard(|_| (), [1.0, -1.0]);
        change(&mut shard.spec);
        match shard.execute() {
            Err(StageError::Invalid(text)) => text.to_string(),
            other => panic!("not refused as invalid: {other:?}"),
        }
    };
    assert_eq!(
        refusal(&|spec| spec.estimator.kl = real(0.1)),
        "estimator.kl = 0.1: expected a reference policy beside it"
    );
    assert_eq!(
        refusal(&|spec| spec.estimator.kind = EstimatorKind::DiffuGrpo),
        "estimator.k = \"all\": expected a number: diffu-grpo has no exact sum over steps"
    );
    assert_eq!(
        refusal(&|spec| spec.sampler.guidance = real(1.5)),
        "rollout.guidance = 1.5: expected 0: with guidance, tokens are not drawn from the policy"
    );
    assert_eq!(
        refusal(&|spec| spec.sampler.block_tokens = 0),
        "rollout.steps = 4: expected a multiple of the blocks that divides rollout.completion_tokens = 4"
    );
}

#[test]
fn damaged_trajectories_and_advantages_are_refused_with_the_sample() {
    assert_eq!(
        shard(|_| (), [1.0, f64::NAN]).refusal(),
        "sample 1 has the advantage NaN, expected a finite number"
    );
    assert_eq!(
        shard(|all| all.completion_ids[5] = 12, [1.0, -1.0]).refusal(),
        "sample 1: 12 is no token of the policy"
    );
}

/// Nothing but end-of-sequence has no horizon: it contributes zero, and is counted.
#[test]
fn empty_completions_are_counted_and_add_nothing() {
    let full = shard(|_| (), [1.0, -1.0]).execute().unwrap();
    assert!(norm(&full) > 0.0 && full.metrics["empty_completions"] == 0.0);
    let half = shard(|all| all.completion_ids[4..].fill(8), [1.0, -1.0]).execute().unwrap();
    assert_eq!(half.metrics["empty_completions"], 1.0);
    assert!(norm(&half) > 0.0 && half.metrics["samples"] < full.metrics["samples"]);
    let empty = shard(|all| all.completion_ids.fill(8), [1.0, -1.0]).execute().unwrap();
    assert_eq!((empty.metrics["empty_completions"], empty.metrics["states"]), (2.0, 0.0));
    assert_eq!(norm(&empty), 0.0);
}

mod learning;
mod sharding;
