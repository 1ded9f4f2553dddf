//! `step_every = "sample"` against an independent f64 program of the published loop: after every optimizer step the two
//! policies are the same, however the prompts fall into shards and micro-batches.

use agrpo_spec::{OptimizerConfig, Purpose, Schedule, StepEvery};

use super::*;
use crate::estimator::{Measured, steps_by_sample};
use crate::tensors::NamedTensors;
use crate::testing::published::{Adam, Published, drawn, flat};
use crate::trajectories::Trajectories;

const GROUP: usize = 2;

fn optimizer() -> OptimizerConfig {
    OptimizerConfig {
        learning_rate: real(0.03),
        beta1: real(0.9),
        beta2: real(0.99),
        eps: real(1e-8),
        weight_decay: real(0.01),
        max_grad_norm: real(0.05),
        warmup: 0,
        schedule: Schedule::Constant,
        final_ratio: real(0.0),
        starts_at_zero: false,
    }
}

/// Completions of these prompts, which are one shard's.
fn shard(policy: &Policy, sampler: &Sampler, prompts: std::ops::Range<u64>) -> Trajectories {
    let seed = |n| Seed::new(43).child(Purpose::Sample, n);
    let group = GROUP as u64;
    let rows = (prompts.start * group..prompts.end * group)
        .map(|n| Row { prompt: PROMPT.into(), seed: seed(n) });
    sample(policy, &rows.collect::<Vec<_>>(), sampler, 256, &Threads::one()).unwrap()
}

/// Three of the four groups of two are counted, and with them a completion without an advantage.
const WORTHS: [Worth; 8] = {
    const fn worth(advantage: f64) -> Worth {
        Worth { advantage, counted: true }
    }
    const LEFT_OUT: Worth = Worth { advantage: 0.0, counted: false };
    let first = [worth(0.7), worth(-0.7), LEFT_OUT, LEFT_OUT];
    let second = [worth(1.2), worth(-1.2), worth(0.0), worth(0.4)];
    [first[0], first[1], first[2], first[3], second[0], second[1], second[2], second[3]]
};

/// Two updates by both programs from four prompts in so many shards; the largest difference between any two parameters, and what ours measured.
fn differ(shards: u64, config: &EstimatorConfig, kl: bool) -> (f64, Measured, usize) {
    let behaviour = policy(4);
    let reference = kl.then(|| policy(5));
    let sampler = sampler(4, 2, 4, PositionRule::Random);
    let prompts = 4 / shards;
    let shards: Vec<_> = (0..shards).map(|n| n * prompts..(n + 1) * prompts).collect();
    let all: Vec<Trajectories> =
        shards.iter().map(|prompts| shard(&behaviour, &sampler, prompts.clone())).collect();
    let rows = |prompts: &std::ops::Range<u64>| {
        usize::try_from(prompts.start).unwrap() * GROUP
            ..usize::try_from(prompts.end).unwrap() * GROUP
    };
    let batch = |(shard, (trajectories, prompts))| {
        let worths = &WORTHS[rows(prompts)];
        let batch = Batch::new(trajectories, worths, GROUP, &sampler, behaviour.config());
        batch.unwrap().of_shard(shard).without_records()
    };
    let batches: Vec<Batch<'_>> = (0..).zip(all.iter().zip(&shards)).map(batch).collect();
    let optimizer = optimizer();
    let by = Published {
        estimator: config,
        optimizer: &optimizer,
        sampler: &sampler,
        group: GROUP,
        learning_rate: optimizer.learning_rate.get(),
        behaviour: Some(&behaviour),
        reference: reference.as_ref(),
    };
    let (ours, theirs) = (policy(4), policy(4));
    let (mut our_adam, mut their_adam) = (Adam::default(), Adam::default());
    let (mut measured, mut taken) = (Measured::default(), 0);
    for update in 0..2 {
        let seed = |shard: usize| Seed::new(7 + update).child(Purpose::Timestep, shard as u64);
        for step in steps_by_sample(&batches, config, seed) {
            let policies = Policies {
                policy: &ours,
                behaviour: Some(&behaviour),
                reference: reference.as_ref(),
            };
            let mut sum = NamedTensors::new();
            for estimator in &step {
                let part = accumulate(estimator, &policies, config, &Threads::one()).unwrap();
                crate::tensors::add(&mut sum, part.gradient);
                measured.add(&part.measured);
            }
            our_adam.step(&ours, &sum, &by);
        }
        let mut sampled = vec![];
        for (number, batch) in batches.iter().enumerate() {
            sampled.extend(drawn(batch, config, seed(number)));
        }
        taken += by.update(&theirs, &mut their_adam, &sampled);
    }
    let differences = flat(&ours).into_iter().zip(flat(&theirs)).map(|(a, b)| (a - b).abs());
    let moved = flat(&ours).into_iter().zip(flat(&behaviour)).map(|(a, b)| (a - b).abs());
    assert!(moved.fold(0.0, f64::max) > 0.05, "the policy moves");
    (differences.fold(0.0, f64::max), measured, taken)
}

#[test]
fn steps_for_every_sample_are_those_of_the_published_loop() {
    for (step_weights, strata, kl) in
        [(StepWeights::Uniform, Strata::None, 0.0), (StepWeights::Entropy, Strata::Group, 0.3)]
    {
        for accumulation_steps in [1, 2, 4] {
            let config = EstimatorConfig {
                k: Samples::Count(3),
                horizon: Horizon::Effective,
                step_weights,
                strata,
                kl: real(kl),
                step_every: StepEvery::Sample,
                fused_updates: true,
                accumulation_steps,
                ..config(EstimatorKind::Agrpo)
            };
            for shards in [1, 2, 4] {
                let (difference, measured, steps) = differ(shards, &config, kl > 0.0);
                let what = format!(
                    "{shards} shards, {step_weights:?}, {accumulation_steps} micro-batches"
                );
                assert!(difference < 1e-10, "{what}: {difference}");
                assert_eq!(steps, 6, "{what}");
                let clipped = measured.clipped_low + measured.clipped_high;
                assert!(clipped > 0.0 && measured.ratio_deviation > 0.2, "{what}: clipping acts");
            }
        }
    }
}
