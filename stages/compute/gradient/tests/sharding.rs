//! Timesteps that are spread over groups do not depend on how an iteration's prompts are divided into shards.

use agrpo_spec::{Samples as Count, StageKey};

use super::*;
use crate::estimator::timesteps::{Draw, draw};
use crate::testing::{computed, run_file::run_file};

const PROMPTS: u32 = 8;
const GROUP: u32 = 4;

/// One iteration in so many shards. Adam's `eps` is large, so that a step is nearly linear in the gradient.
fn run(shards: u32, strata: &str) -> String {
    run_file(&[
        ("model.init_std", "0.5"),
        ("sft.steps", "2"),
        ("rollout.prompts", &PROMPTS.to_string()),
        ("rollout.group", &GROUP.to_string()),
        ("rollout.shards", &shards.to_string()),
        ("rollout.completion_tokens", "16"),
        ("rollout.block_tokens", "16"),
        ("rollout.temperature", "1.0"),
        ("reward.weights", "{ cells = 1.0 }"),
        ("estimator.k", "3"),
        ("estimator.strata", strata),
        ("optimizer.learning_rate", "1e-2"),
        ("optimizer.eps", "1e-3"),
        ("training.iterations", "1"),
        ("evaluation.problems", "1"),
        ("evaluation.steps", "[8]"),
    ])
    .replace("[task.countdown]", "[task.sudoku]")
}

/// What was drawn in the iteration, by completion, and the parameters after it.
fn left(shards: u32, strata: &str) -> (Vec<Draw>, Vec<f32>) {
    let (stages, inputs) = computed(&run(shards, strata), crate::execute);
    let (mut draws, mut parameters) = (vec![], vec![]);
    for (key, spec, outputs) in stages {
        if let StageSpec::Gradient(spec) = spec {
            draws.extend(of_shard(&spec, &inputs));
        } else if key == StageKey::update(1, 1) {
            let Artifact::Folder(files) = &outputs.artifacts["policy"] else { panic!("no folder") };
            let policy = Policy::from_folder(files).unwrap();
            let all = policy.parameters();
            parameters = all.values().flat_map(|p| tensors::numbers::<f32>(p).unwrap()).collect();
        }
    }
    (draws, parameters)
}

/// The draws of a gradient, with the row's number in the iteration.
fn of_shard(spec: &GradientSpec, inputs: &Inputs) -> Vec<Draw> {
    assert_eq!(spec.estimator.k, Count::Count(3));
    let shard = ShardSpec { trajectories: spec.trajectories, rewards: spec.rewards };
    let samples = Samples::read(shard, spec.behaviour, inputs).unwrap();
    let policy = Policy::from_folder(inputs.folder(spec.policy).unwrap()).unwrap();
    let of = (spec.shard, spec.group);
    let batch = samples.batch(of, &spec.sampler, policy.config()).unwrap();
    let seed = seed(spec.seed, spec.iteration, (spec.shard, spec.inner), &spec.estimator);
    let rows = batch.moving(false);
    let draws = draw(&batch, &rows, &spec.estimator, seed);
    assert!(draws.chunks(3).zip(&rows).all(|(of, row)| of.iter().all(|draw| draw.row == *row)));
    let first = spec.shard as usize * batch.rows();
    draws.into_iter().map(|draw| Draw { row: first + draw.row, ..draw }).collect()
}

#[test]
fn a_division_into_shards_changes_no_draw_and_no_update() {
    let (draws, parameters) = left(1, "\"group\"");
    assert!(draws.len() > 24 && parameters.len() > 100, "{}", draws.len());
    for shards in [2, 4, 8] {
        let (others, moved) = left(shards, "\"group\"");
        assert_eq!(others, draws, "{shards} shards");
        let apart = parameters.iter().zip(&moved).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-6, "{shards} shards: {apart}");
    }
    assert_ne!(left(4, "\"shard\"").0, left(1, "\"shard\"").0, "strata over a shard do");
}

/// A row's draws are the same whichever other rows have a term, and those of a group cover [0, 1) evenly.
#[test]
fn draws_of_a_group_do_not_depend_on_rewards() {
    let (stages, inputs) = computed(&run(2, "\"group\""), crate::execute);
    let gradient = stages.into_iter().find_map(|(_, spec, _)| match spec {
        StageSpec::Gradient(spec) if spec.shard == 1 => Some(spec),
        _ => None,
    });
    let spec = gradient.unwrap();
    let shard = ShardSpec { trajectories: spec.trajectories, rewards: spec.rewards };
    let samples = Samples::read(shard, spec.behaviour, &inputs).unwrap();
    let policy = Policy::from_folder(inputs.folder(spec.policy).unwrap()).unwrap();
    let batch = samples.batch((1, GROUP), &spec.sampler, policy.config()).unwrap();
    let all: Vec<usize> = (0..batch.rows()).collect();
    let draws = |rows: &[usize]| draw(&batch, rows, &spec.estimator, Seed::new(5));
    let whole = draws(&all);
    for rows in [vec![0, 3, 5], vec![7], vec![2, 4, 6, 9, 15]] {
        let own = whole.iter().filter(|draw| rows.contains(&draw.row)).copied();
        assert_eq!(draws(&rows), own.collect::<Vec<_>>());
    }
}
