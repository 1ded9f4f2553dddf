//! A cached policy changes no byte of any stage, on any number of threads, is read once, and is dropped when its memory is needed.

use std::{cell::Cell, num::NonZeroUsize};

use agrpo_spec::{
    Artifact, ArtifactDigest, Files, Inputs, Outputs, Plan, Run, Seed, StageError, StageKey,
    StageSpec,
};
use tch::Kind;

use super::*;
use crate::{Device, Threads, model::ModelConfig, problems::NoPrograms, testing::real};

#[path = "../../../tests/support/run_file.rs"]
mod run_file;

/// Two iterations of everything that reads policies.
fn text() -> String {
    run_file::run_file(&[
        ("name", "\"policy-cache\""),
        ("model.d_model", "16"),
        ("model.n_layers", "2"),
        ("model.mlp_hidden_size", "16"),
        ("sft.steps", "2"),
        ("sft.micro_batch", "1"),
        ("rollout.prompts", "2"),
        ("rollout.steps", "4"),
        ("rollout.micro_batch", "1"),
        ("estimator.micro_batch", "1"),
        ("training.iterations", "2"),
        ("evaluation.problems", "2"),
        ("evaluation.every", "1"),
        ("evaluation.steps", "[4]"),
    ])
}

/// Every stage of a run with the digests of its outputs, computed one after the other.
fn computed(
    run: &str,
    execute: impl Fn(&StageSpec, &Inputs) -> Result<Outputs, StageError>,
) -> Vec<(StageKey, Vec<ArtifactDigest>)> {
    let (mut plan, mut inputs) = (Plan::new(Run::parse(run).unwrap()), Inputs::default());
    let mut all = vec![];
    while let Some((&key, spec)) = plan.pending().iter().next() {
        let made = execute(spec, &inputs).unwrap().artifacts;
        let digests: Vec<_> = made.values().map(|made| made.digest().unwrap()).collect();
        let digest_of = |name: &str| made.get(name).map(|artifact| artifact.digest().unwrap());
        plan.finished(key, digest_of).unwrap();
        for artifact in made.into_values() {
            inputs.insert(artifact.digest().unwrap(), artifact);
        }
        all.push((key, digests));
    }
    all
}

#[test]
fn stages_give_the_same_bytes_with_a_kept_policy_and_on_several_threads() {
    let lora = "\n[lora]\nrank = 2\nalpha = 4.0\nhead = true\n";
    let merged = "\n[lora]\nrank = 2\nalpha = 4.0\nhead = false\nmerge_for_sampling = true\n";
    let text = text();
    let more = text.replace("k = 2\n", "k = 2\nkl = 0.1\ninner_updates = 2\n");
    for run in [more, format!("{text}{lora}"), format!("{text}{merged}")] {
        let threads = Threads::new(NonZeroUsize::new(3).unwrap());
        let execute = crate::execute_with(Device::Cpu, threads, Arc::new(NoPrograms));
        let kept = computed(&run, execute);
        assert_eq!(kept, computed(&run, crate::execute), "{run}");
        assert!(kept.len() > 10);
    }
}

fn folder(seed: u64) -> (ArtifactDigest, Files) {
    let shape = agrpo_spec::ModelShape {
        d_model: 8,
        n_layers: 1,
        n_heads: 2,
        mlp_hidden_size: 8,
        rope_theta: real(1e4),
        rms_norm_eps: real(1e-5),
        init_std: real(0.5),
    };
    let config = ModelConfig::new(&shape, 10, 8, 9, 6);
    let files = Policy::draw(config, 0.5, Seed::new(seed)).unwrap().to_files().unwrap();
    (Artifact::Folder(files.clone()).digest().unwrap(), files)
}

/// A cache, and how often something was read for it.
#[derive(Default)]
struct Counted {
    cache: PolicyCache,
    reads: Cell<usize>,
}

impl Counted {
    fn policy(&self, (digest, files): &(ArtifactDigest, Files), is_merged: bool) -> Policy {
        let read = || {
            self.reads.set(self.reads.get() + 1);
            Policy::from_folder_at(files, Placement::CPU)
        };
        self.cache.policy(*digest, is_merged, Placement::CPU, read).unwrap()
    }
}

#[test]
fn a_policy_is_read_once_and_the_last_one_is_kept() {
    let (one, two) = (folder(1), folder(2));
    let counted = Counted::default();
    for (policy, is_merged, reads) in
        [(&one, false, 1), (&one, false, 1), (&one, true, 2), (&two, false, 3), (&one, false, 4)]
    {
        drop(counted.policy(policy, is_merged));
        assert_eq!(counted.reads.get(), reads);
    }
    // A stage without a model leaves the policy; a stage that takes memory without it does not.
    for (kind, reads) in [(StageKind::Reward, 4), (StageKind::Update, 5), (StageKind::Sft, 6)] {
        counted.cache.before(kind);
        drop(counted.policy(&one, false));
        assert_eq!(counted.reads.get(), reads, "{kind}");
    }
}

#[test]
fn gradients_belong_to_who_asked_for_them() {
    let (one, counted) = (folder(1), Counted::default());
    let (trained, other) = (counted.policy(&one, false), counted.policy(&one, false));
    let pointer = |policy: &Policy| policy.parameters().into_values().next().unwrap().data_ptr();
    assert_eq!(pointer(&trained), pointer(&other), "they stand on one memory");
    trained.require_grad();
    trained.head(&tch::Tensor::ones([1, 8], tch::kind::FLOAT_CPU)).sum(Kind::Float).backward();
    let flowed = |policy: &Policy| {
        let gradients = policy.gradients().into_values();
        gradients.map(|gradient| gradient.abs().sum(Kind::Float).double_value(&[])).sum::<f64>()
    };
    assert!(flowed(&trained) > 0.0);
    assert_eq!(flowed(&other), 0.0);
    assert_eq!(flowed(&counted.policy(&one, false)), 0.0);
    assert_eq!(counted.reads.get(), 1);
}

#[test]
fn a_reading_that_failed_leaves_nothing_and_can_be_tried_again() {
    let (one, counted) = (folder(1), Counted::default());
    drop(counted.policy(&one, false));
    let refused = || Err(StageError::Data("cut".into()));
    let other = ArtifactDigest::of(b"other");
    assert!(counted.cache.policy(other, false, Placement::CPU, refused).is_err());
    drop(counted.policy(&one, false));
    assert_eq!(counted.reads.get(), 2, "what was kept had made room");
}
