//! One stage of all inner updates leaves what the separate stages leave, byte for byte, and measures what they measure;
//! it writes a small part of their bytes, and refuses what they refuse.

use std::num::NonZeroUsize;
use std::sync::Arc;

use agrpo_spec::{Artifact, ArtifactDigest, Precision, StageKey, StageSpec};

use super::*;
use crate::model::Policy;
use crate::problems::NoPrograms;
use crate::testing::published::{Adam, Published, drawn, flat};
use crate::testing::{computed, real, run_file};
use crate::{Device, Resources, Threads};

const LORA: &str = "\n[lora]\nrank = 2\nalpha = 4.0\nhead = true\n";

/// Two iterations of 24 inner updates, whose steps are large enough that ratios are clipped.
fn run(shards: u32, kl: &str, fused: bool) -> String {
    let text = run_file::run_file(&[
        ("name", "\"updates\""),
        ("model.init_std", "0.5"),
        ("sft.steps", "2"),
        ("rollout.group", "4"),
        ("rollout.shards", &shards.to_string()),
        ("rollout.completion_tokens", "16"),
        ("rollout.block_tokens", "16"),
        ("rollout.temperature", "1.0"),
        ("reward.weights", "{ cells = 1.0 }"),
        ("estimator.kl", kl),
        ("estimator.inner_updates", "24"),
        ("estimator.fused_updates", &fused.to_string()),
        ("optimizer.learning_rate", "2e-2"),
        ("training.iterations", "2"),
        ("evaluation.problems", "1"),
        ("evaluation.steps", "[8]"),
    ]);
    text.replace("[task.countdown]", "[task.sudoku]")
}

/// What an iteration leaves: policy, optimizer's state, and what its gradients and updates measured together.
type Left = (ArtifactDigest, ArtifactDigest, Metrics);

/// What each of the two iterations leaves on so many threads, and the bytes written between rewards and new policies,
/// these included.
fn left(text: &str, threads: usize, precision: Precision) -> (Vec<Left>, u64) {
    let threads = Threads::new(NonZeroUsize::new(threads).unwrap());
    let execute = crate::execute_with(Device::Cpu, Resources::of(threads), Arc::new(NoPrograms));
    let (stages, _) =
        computed(text, |spec, inputs| execute(&in_precision(spec, precision), inputs));
    let (mut left, mut gradients, mut updates, mut bytes) = (vec![], vec![], vec![], 0);
    for (key, spec, outputs) in stages {
        match spec {
            StageSpec::Gradient(_) => gradients.push(outputs.metrics.clone()),
            StageSpec::Update(_) => updates.push(outputs.metrics.clone()),
            StageSpec::Updates(_) => {}
            _ => continue,
        }
        bytes += outputs.artifacts.values().map(size).sum::<u64>();
        let digest = |name: &str| outputs.artifacts[name].digest().unwrap();
        if key == StageKey::update(key.iteration, 24) {
            let metrics = |kind, of: &mut Vec<Metrics>| {
                joined(kind, &std::mem::take(of).iter().collect::<Vec<_>>())
            };
            let mut all = metrics(StageKind::Gradient, &mut gradients);
            all.extend(metrics(StageKind::Update, &mut updates));
            left.push((digest("policy"), digest("optimizer"), all));
        } else if key.kind == StageKind::Updates {
            left.push((digest("policy"), digest("optimizer"), outputs.metrics));
        }
    }
    assert_eq!(left.len(), 2);
    (left, bytes)
}

/// The spec with weights of this format wherever trajectories are learned from.
fn in_precision(spec: &StageSpec, precision: Precision) -> StageSpec {
    let mut spec = spec.clone();
    match &mut spec {
        StageSpec::Gradient(spec) => spec.precision = precision,
        StageSpec::Updates(spec) => spec.precision = precision,
        _ => {}
    }
    spec
}

fn size(artifact: &Artifact) -> u64 {
    match artifact {
        Artifact::Blob(content) => content.size(),
        Artifact::Folder(files) => files.values().map(agrpo_spec::Content::size).sum(),
    }
}

#[test]
fn one_stage_leaves_what_the_separate_stages_leave_and_writes_little() {
    let f32 = Precision::F32;
    for (shards, kl, lora, precision) in [
        (1, "0.0", "", f32),
        (2, "0.04", "", f32),
        (2, "0.0", LORA, f32),
        (1, "0.04", LORA, f32),
        (2, "0.04", LORA, Precision::Bf16),
    ] {
        let text = |fused| run(shards, kl, fused) + lora;
        let what = format!("{shards} shards, kl {kl}, {precision:?}{lora}");
        let (separate, many) = left(&text(false), 1, precision);
        for threads in [1, 3] {
            let (fused, few) = left(&text(true), threads, precision);
            assert_eq!(fused, separate, "{what}, {threads} threads");
            // A policy's folder has a base that only the first of its updates' folders has to store.
            assert!(!lora.is_empty() || few * 20 < many, "{what}: {few} of {many} bytes");
        }
        for (_, _, metrics) in &separate {
            assert!(
                metrics["grad_norm"] > 0.0 && metrics["clip_share"] > 0.0,
                "{what}: {metrics:?}"
            );
        }
    }
}

/// The same run with a step for every sample of its second micro-batch.
fn by_sample(shards: u32) -> String {
    run(shards, "0.04", true)
        .replace("inner_updates = 24", "inner_updates = 2\nstep_every = \"sample\"")
        .replace("k = 2\n", "k = 4\n")
}

#[test]
fn a_step_for_every_sample_moves_the_policy_as_the_published_loop_does() {
    for shards in [1, 2] {
        let (stages, inputs) = computed(&by_sample(shards), crate::execute);
        let first = stages.iter().find_map(|(_, spec, made)| match spec {
            StageSpec::Updates(spec) => Some((spec, made)),
            _ => None,
        });
        let (spec, made) = first.unwrap();
        let (before, after) = {
            let Artifact::Folder(files) = &made.artifacts["policy"] else { panic!() };
            let of = |files| Policy::from_folder(files).unwrap().to_double();
            (of(inputs.folder(spec.policy).unwrap()), of(files))
        };
        let samples = samples(spec, &inputs).unwrap();
        let mut batches = vec![];
        for (shard, samples) in (0..).zip(&samples) {
            let batch = samples.batch((shard, spec.group), &spec.sampler, before.config());
            batches.push(batch.unwrap());
        }
        let by = Published {
            estimator: &spec.estimator,
            optimizer: &spec.optimizer,
            sampler: &spec.sampler,
            group: spec.group as usize,
            learning_rate: made.metrics["learning_rate"],
            behaviour: None,
            reference: Some(&before),
        };
        let theirs = Policy::from_folder(inputs.folder(spec.policy).unwrap()).unwrap().to_double();
        let (mut adam, mut steps) = (Adam::default(), 0);
        for inner in 1..=2 {
            let mut all = vec![];
            for (shard, batch) in (0..).zip(&batches) {
                let seed =
                    gradient::seed(spec.seed, spec.iteration, (shard, inner), &spec.estimator);
                all.extend(drawn(batch, &spec.estimator, seed));
            }
            steps += by.update(&theirs, &mut adam, &all);
        }
        assert_eq!(steps, 8, "4 of each inner update");
        let [before, after, theirs] = [&before, &after, &theirs].map(flat);
        let norm = |a: &[f64], b: &[f64]| {
            a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
        };
        let (apart, moved) = (norm(&after, &theirs), norm(&theirs, &before));
        assert!(moved > 0.1 && apart < 1e-3 * moved, "{shards} shards: {apart} of {moved}");
        assert!(made.metrics["clip_share"] > 0.0, "{:?}", made.metrics);
        assert_eq!(left(&by_sample(shards), 3, Precision::F32).0.len(), 2);
    }
}

#[test]
fn a_single_inner_update_is_fused_too() {
    let of = |fused| run(2, "0.0", fused).replace("inner_updates = 24", "inner_updates = 1");
    let policies = |text: &str| {
        let (stages, _) = computed(text, crate::execute);
        let made = stages.into_iter().filter(|(key, ..)| key.makes_policy());
        let policy = |(_, _, made): (_, _, Outputs)| made.artifacts["policy"].digest().unwrap();
        made.map(policy).collect::<Vec<_>>()
    };
    assert_eq!(policies(&of(true)), policies(&of(false)));
}

#[test]
fn what_cannot_be_learned_from_is_refused_by_name() {
    let (stages, inputs) = computed(&run(2, "0.04", true), crate::execute);
    let first = stages.iter().find_map(|(_, spec, _)| match spec {
        StageSpec::Updates(spec) => Some(spec),
        _ => None,
    });
    let policy = stages.iter().rev().find_map(|(_, _, made)| made.artifacts.get("policy"));
    let (first, other) = (first.unwrap(), policy.unwrap().digest().unwrap());
    let refusal = |change: &dyn Fn(&mut UpdatesSpec)| {
        let mut spec = first.clone();
        change(&mut spec);
        crate::execute(&StageSpec::Updates(spec), &inputs).unwrap_err().to_string()
    };
    assert_eq!(
        refusal(&|spec| spec.policy = other),
        format!(
            "shard 0: the trajectories were sampled by the policy {}, expected {other}",
            first.policy
        )
    );
    assert_eq!(
        refusal(&|spec| spec.shards.clear()),
        "the updates of no shard: expected at least one"
    );
    assert_eq!(
        refusal(&|spec| spec.estimator.inner_updates = 0),
        "estimator.inner_updates = 0: expected at least 1"
    );
    assert_eq!(
        refusal(&|spec| spec.reference = None),
        "estimator.kl = 0.04: expected a reference policy beside it"
    );
    assert!(refusal(&|spec| spec.optimizer.learning_rate = real(1e30)).contains("has diverged"));
}
