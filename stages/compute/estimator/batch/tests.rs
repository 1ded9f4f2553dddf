//! Tests of the checks before anything is computed: each error names the sample and the number.

use agrpo_spec::{Family, PositionRule, Purpose, Seed, StageError};

use super::*;
use crate::model::{PADDING, Policy};
use crate::sampler::{Row, sample};
use crate::testing::{real, shape};
use crate::threads::Threads;
use crate::trajectories::KeptSets;

const MASK: i64 = 9;
const EOS: i64 = 8;

fn sampler() -> Sampler {
    Sampler { top_k: 3, ..crate::testing::sampler(4, 2, 4, PositionRule::Random) }
}

fn model() -> ModelConfig {
    ModelConfig::new(&shape(0.1), 10, EOS, MASK, 6)
}

/// Two completions of two blocks; the second stopped after its first block.
fn trajectories() -> Trajectories {
    let mut all = Trajectories::masked(vec![1, 2, 3, 4], 2, 4, MASK);
    all.completion_ids = vec![1, 2, 3, EOS, EOS, EOS, EOS, EOS];
    all.unmask_steps = vec![1, 0, 2, 3, 0, 1, NEVER, NEVER];
    all.token_logps = vec![-1.0; 8];
    let sets = [vec![0, 1], vec![2], vec![3], vec![EOS], vec![EOS], vec![5, EOS], vec![], vec![]];
    let mut kept = KeptSets { offsets: vec![0], ids: vec![] };
    for set in sets {
        kept.ids.extend(set);
        kept.offsets.push(i64::try_from(kept.ids.len()).unwrap());
    }
    all.kept = Some(kept);
    all
}

fn worths(advantages: &[f64]) -> Vec<Worth> {
    advantages.iter().map(|&advantage| Worth { advantage, counted: true }).collect()
}

/// What is said of trajectories after a change.
fn refusal(change: impl Fn(&mut Trajectories)) -> String {
    let mut all = trajectories();
    change(&mut all);
    said(&all, &worths(&[1.0, -1.0]), 2)
}

fn said(all: &Trajectories, worths: &[Worth], group: usize) -> String {
    match Batch::new(all, worths, group, &sampler(), &model()) {
        Err(StageError::Data(text)) => text.to_string(),
        other => panic!("not refused as data: {other:?}"),
    }
}

#[test]
fn matching_parts_are_accepted() {
    let (all, sampler, model) = (trajectories(), sampler(), model());
    let batch = Batch::new(&all, &worths(&[1.0, -1.0]), 2, &sampler, &model).unwrap();
    assert_eq!((batch.horizon(0), batch.horizon(1)), (3, 0));
    assert_eq!((batch.content(0), batch.content(1)), (4, 1));
    assert_eq!(batch.passed_over(0, 0).collect::<Vec<_>>(), [0]);
    assert_eq!(batch.passed_over(0, 3).count(), 0);
}

#[test]
fn worths_have_to_fit_the_trajectories() {
    let all = trajectories();
    let cases = [
        (worths(&[1.0]), 1, "1 rewards do not fit 2 trajectories"),
        (worths(&[1.0, -1.0]), 3, "2 trajectories do not make groups of 3"),
        (worths(&[1.0, -1.0]), 0, "2 trajectories do not make groups of 0"),
        (worths(&[1.0, f64::NAN]), 2, "sample 1 has the advantage NaN, expected a finite number"),
        (
            worths(&[f64::INFINITY, 0.0]),
            2,
            "sample 0 has the advantage inf, expected a finite number",
        ),
    ];
    for (worths, group, expected) in cases {
        assert_eq!(said(&all, &worths, group), expected);
    }
    let left_out =
        [Worth { advantage: 1.0, counted: false }, Worth { advantage: 0.0, counted: true }];
    assert_eq!(
        said(&all, &left_out, 2),
        "sample 0 is left out, but its advantage is 1, expected 0"
    );
    let none = Trajectories::masked(vec![], 0, 4, MASK);
    assert_eq!(said(&none, &[], 2), "0 trajectories do not make groups of 2");
}

#[test]
fn steps_have_to_be_the_sampler_s() {
    assert_eq!(
        refusal(|all| all.unmask_steps[3] = 4),
        "sample 0: position 3 has the step 4, expected 0..=3"
    );
    assert_eq!(
        refusal(|all| all.unmask_steps[2] = 0),
        "sample 0: step 0 wrote position 2, outside its block"
    );
    assert_eq!(
        refusal(|all| all.unmask_steps[1] = 1),
        "sample 0: step 0 wrote 0 tokens, expected 1"
    );
    assert_eq!(
        refusal(|all| all.unmask_steps[0] = NEVER),
        "sample 0: position 0 was never written, but holds 1, expected 8"
    );
}

#[test]
fn rows_stop_early_at_the_end_of_a_block() {
    assert_eq!(
        refusal(|all| all.unmask_steps[3] = NEVER),
        "sample 0 stopped after 3 of 4 steps, inside a block"
    );
}

#[test]
fn tokens_are_the_policy_s_and_from_the_kept_sets() {
    assert_eq!(refusal(|all| all.completion_ids[1] = 10), "sample 0: 10 is no token of the policy");
    assert_eq!(refusal(|all| all.prompt_ids[3] = -1), "sample 1: -1 is no token of the policy");
    assert_eq!(
        refusal(|all| all.completion_ids[4] = MASK),
        "sample 1, position 0: the mask was written"
    );
    assert_eq!(
        refusal(|all| all.completion_ids[0] = 2),
        "sample 0, position 0: the kept set of 2 tokens lacks the token 2 drawn from it"
    );
    assert_eq!(
        refusal(|all| all.kept = None),
        "the trajectories lack their kept sets, expected those of top_k 3 and top_p 1"
    );
    assert_eq!(
        refusal(|all| all.kept.as_mut().unwrap().ids[0] = 77),
        "sample 0, position 0: the kept id 77 is no token of the policy"
    );
    assert_eq!(
        refusal(|all| all.token_logps[2] = f32::NAN),
        "sample 0, position 2: log-probability NaN and entropy 0 cannot be"
    );
}

#[test]
fn completions_have_to_be_of_the_sampler_s_length() {
    let mut all = Trajectories::masked(vec![1, 2], 1, 5, MASK);
    all.kept = Some(KeptSets { offsets: vec![0; 6], ids: vec![] });
    assert_eq!(said(&all, &worths(&[0.0]), 1), "sample 0: the completion has 5 tokens, expected 4");
}

/// With a threshold a step writes one token or more, and a block takes as many steps as it needs.
#[test]
fn steps_with_a_threshold_write_any_number_of_tokens_block_by_block() {
    let sampler = Sampler {
        threshold: Some(real(0.9)),
        ..crate::testing::sampler(6, 3, 6, PositionRule::LowConfidence)
    };
    let model = model();
    let of = |steps: [i64; 6]| {
        let mut all = Trajectories::masked(vec![1, 2], 1, 6, MASK);
        all.completion_ids = vec![1, 2, 3, 4, EOS, 5];
        for (cell, &step) in steps.iter().enumerate() {
            if step == NEVER {
                all.completion_ids[cell] = EOS;
            }
        }
        all.unmask_steps = steps.to_vec();
        all.token_logps = vec![-1.0; 6];
        all
    };
    let said = |steps| {
        let all = of(steps);
        Batch::new(&all, &worths(&[1.0]), 1, &sampler, &model).map(|_| ()).unwrap_err().to_string()
    };
    let all = of([0, 1, 0, 2, 2, 2]);
    let batch = Batch::new(&all, &worths(&[1.0]), 1, &sampler, &model).unwrap();
    assert_eq!((batch.horizon(0), all.sampled_steps(0)), (3, 3));
    let written: Vec<_> = (0..3).map(|step| batch.written(0, step).collect::<Vec<_>>()).collect();
    assert_eq!(written, [vec![0, 2], vec![1], vec![3, 4, 5]]);
    assert_eq!(batch.passed_over(0, 0).collect::<Vec<_>>(), [1]);
    for steps in [[0, 0, 0, NEVER, NEVER, NEVER], [2, 1, 0, 5, 4, 3]] {
        Batch::new(&of(steps), &worths(&[1.0]), 1, &sampler, &model).unwrap();
    }
    for (steps, expected) in [
        ([0, 1, 0, 3, 3, 3], "sample 0: step 2 wrote no token, expected 1 or more"),
        ([0, 1, 0, 1, 2, 2], "sample 0: step 1 wrote position 3, outside its block"),
        ([2, 2, 3, 0, 1, 1], "block 0 was written by the steps 2..=3, expected all of it"),
        ([0, 1, 0, 2, 2, NEVER], "block 1 was written by the steps -1..=2, expected all of it"),
        ([NEVER, NEVER, NEVER, 0, 0, 0], "block 1 was written by the steps 0..=0"),
    ] {
        let said = said(steps);
        assert!(said.contains(expected), "{steps:?}: {said}");
    }
}

/// A policy of another family, and completions of 8 tokens in blocks of 4 after prompts of 3 and 5 tokens.
fn sampled(family: Family, sampler: &Sampler) -> (Trajectories, ModelConfig) {
    crate::use_one_thread();
    let shape = crate::testing::shape_of(family, 0.4);
    let policy = Policy::draw(ModelConfig::new(&shape, 10, EOS, MASK, 16), 0.4, Seed::new(3));
    let policy = policy.unwrap();
    let prompt = |n: u64| if n < 3 { vec![PADDING, PADDING, 1, 2, 3] } else { vec![1, 2, 3, 4, 5] };
    let row = |n| Row { prompt: prompt(n), seed: Seed::new(5).child(Purpose::Sample, n) };
    let rows: Vec<Row> = (0..6).map(row).collect();
    let all = sample(&policy, &rows, sampler, 64, &Threads::one()).unwrap();
    (all, policy.config().clone())
}

/// Whatever its family's conventions and its order: every trajectory of the sampler is one to learn from.
#[test]
fn what_the_sampler_wrote_is_accepted_in_every_family() {
    for family in Family::ALL {
        for position in PositionRule::ALL {
            for (block, steps, threshold) in
                [(4, 8, None), (4, 4, None), (8, 4, None), (4, 8, Some(0.3))]
            {
                if threshold.is_some() && position != PositionRule::LowConfidence {
                    continue;
                }
                let exact = crate::testing::sampler(8, block, steps, position);
                let sampler = Sampler { threshold: threshold.map(real), ..exact };
                let (all, model) = sampled(family, &sampler);
                Batch::new(&all, &worths(&[1.0; 6]), 3, &sampler, &model).unwrap();
            }
        }
    }
}

/// A row of SDAR whose prompt has 3 tokens has the blocks 0..1, 1..5 and 5..8; one of 5 tokens 0..3 and 3..7 and 7..8.
#[test]
fn blocks_counted_from_the_prompt_are_those_of_each_row() {
    let sampler = crate::testing::sampler(8, 4, 4, PositionRule::Random);
    let (mut all, model) = sampled(Family::Sdar, &sampler);
    let written = [[0, 1, 1, 2, 2, 3, 3, 4], [0, 0, 1, 2, 2, 3, 3, 4]];
    let rows = [written[0], written[0], written[0], written[1], written[1], written[1]];
    all.unmask_steps = rows.concat();
    all.completion_ids = vec![1; 48];
    let worths = worths(&[1.0; 6]);
    let batch = Batch::new(&all, &worths, 3, &sampler, &model).unwrap();
    assert_eq!(batch.passed_over(0, 0).count(), 0, "a block of its own");
    assert_eq!(batch.passed_over(0, 1).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(batch.passed_over(0, 3).collect::<Vec<_>>(), [7]);
    assert_eq!(batch.passed_over(3, 0).collect::<Vec<_>>(), [2]);
    assert_eq!(batch.passed_over(3, 2).collect::<Vec<_>>(), [5, 6]);

    let said = |change: &dyn Fn(&mut Trajectories)| {
        let mut all = all.clone();
        change(&mut all);
        Batch::new(&all, &worths, 3, &sampler, &model).map(|_| ()).unwrap_err().to_string()
    };
    for (steps, expected) in [
        ([0, 0, 1, 1, 2, 3, 3, 4], "sample 0: step 0 wrote position 1, outside its block"),
        ([0, 1, 1, 1, 2, 3, 3, 4], "sample 0: step 1 wrote 3 tokens, expected 2"),
        ([0, 1, 1, 2, 2, 3, 4, 5], "sample 0: position 7 has the step 5, expected 0..=4"),
    ] {
        let said = said(&|all| all.unmask_steps[..8].copy_from_slice(&steps));
        assert!(said.contains(expected), "{said}");
    }
    let stopped = said(&|all| {
        all.unmask_steps[7] = NEVER;
        all.completion_ids[7] = EOS;
    });
    assert!(stopped.contains("sample 0 stopped after 4 of 5 steps, inside a block"), "{stopped}");
    // One token of the prompt more, and all blocks lie elsewhere.
    let longer = said(&|all| all.prompt_ids[1] = 1);
    assert!(longer.contains("sample 0: step 2 wrote position 3, outside its block"), "{longer}");
}

/// On Dream's grid of 4 steps for 8 tokens steps write 1, 2, 2 and 3 of them.
#[test]
fn a_time_grid_is_checked_step_by_step() {
    let sampler = crate::testing::sampler(8, 8, 4, PositionRule::Random);
    let (mut all, model) = sampled(Family::Dream, &sampler);
    all.completion_ids = vec![1; 48];
    let said = |all: &Trajectories| {
        Batch::new(all, &worths(&[1.0; 6]), 3, &sampler, &model)
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    all.unmask_steps = [0, 1, 1, 2, 2, 3, 3, 3].repeat(6);
    assert_eq!(said(&all), Ok(()));
    all.unmask_steps[..8].copy_from_slice(&[0, 0, 1, 1, 2, 2, 3, 3]);
    assert!(said(&all).unwrap_err().contains("sample 0: step 0 wrote 2 tokens, expected 1"));
}
