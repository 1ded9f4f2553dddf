//! Tests of blocks and of what steps write, against figures of the families' own programs.

use agrpo_spec::PositionRule;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::testing::sampler;

fn all(blocks: Blocks) -> Vec<Range<usize>> {
    blocks.all().collect()
}

/// How many tokens each step writes of one completion after a prompt of this length.
fn written(family: Family, sampler: &Sampler, prompt: usize) -> Vec<usize> {
    let schedule = UnmaskSchedule::new(sampler, family);
    let steps = schedule.steps(schedule.blocks(prompt));
    steps.into_iter().map(|(_, count)| count).collect()
}

#[test]
fn blocks_from_the_prompt_begin_and_end_in_the_middle() {
    assert_eq!(all(Blocks::new(11, 4, 10)), [0..1, 1..5, 5..9, 9..10]);
    assert_eq!(all(Blocks::new(8, 4, 8)), [0..4, 4..8]);
    let within = all(Blocks::new(5, 8, 2));
    assert_eq!((within.len(), &within[0]), (1, &(0..2)), "a completion within one block");
    assert!(all(Blocks::new(0, 4, 0)).is_empty());
    for before in 0..9 {
        let blocks = Blocks::new(before, 4, 10);
        assert_eq!(all(blocks).iter().map(Range::len).sum::<usize>(), 10);
        for (n, block) in all(blocks).into_iter().enumerate() {
            assert_eq!(blocks.get(n), Some(block.clone()));
            assert!(block.clone().all(|position| blocks.of(position) == block));
            let is_of_one = |position: usize| (before + position) / 4 == (before + block.start) / 4;
            assert!(block.clone().all(is_of_one), "{before}: {block:?}");
        }
    }
}

#[test]
fn a_family_says_from_where_blocks_are_counted() {
    let sampler = sampler(8, 4, 8, PositionRule::Random);
    let of = |family| all(UnmaskSchedule::new(&sampler, family).blocks(7));
    assert_eq!(of(Family::Llada), [0..4, 4..8]);
    assert_eq!(of(Family::Dream), [0..4, 4..8]);
    assert_eq!(of(Family::Sdar), [0..1, 1..5, 5..8]);
}

/// Masked positions of the block before each pass, as SDAR's program leaves them: prompts of 11, 9 and 8 tokens.
#[test]
fn a_shorter_block_takes_the_counts_of_a_whole_one_until_none_is_left() {
    let of = |tokens, block, steps, prompt| {
        let sampler = sampler(tokens, block, steps, PositionRule::LowConfidence);
        written(Family::Sdar, &sampler, prompt)
    };
    assert_eq!(of(21, 4, 10, 11), [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
    let of_nine = [2, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1];
    assert_eq!(of(23, 4, 15, 9), of_nine);
    assert_eq!(of(24, 8, 15, 8), [2, 2, 2, 1, 1].repeat(3));
}

/// `written_per_step` of Dream's program, without the steps that write nothing.
#[test]
fn steps_on_a_time_grid_write_what_dream_writes() {
    let of = |tokens, steps| {
        written(Family::Dream, &sampler(tokens, tokens, steps, PositionRule::Entropy), 9)
    };
    assert_eq!(of(23, 8), [2, 2, 3, 3, 3, 3, 3, 4]);
    let of_seventeen = [vec![1; 15], vec![2]].concat();
    assert_eq!(of(17, 17), of_seventeen);
    assert_eq!(of(16, 5), [3, 3, 3, 3, 4]);
    assert_eq!(of(15, 6), [2, 2, 2, 2, 3, 4]);
    // Every block has the grid of its own steps.
    let blocks = sampler(30, 15, 12, PositionRule::Entropy);
    assert_eq!(written(Family::Dream, &blocks, 9), [2, 2, 2, 2, 3, 4].repeat(2));
}

/// The same counts as from libtorch's own grid and arithmetic, for all lengths and steps of a block.
#[test]
fn the_time_grid_is_libtorch_s() {
    crate::use_one_thread();
    for steps in 1..=130u32 {
        let grid = Tensor::linspace(1.0, 1e-3, i64::from(steps) + 1, (Kind::Float, Device::Cpu));
        let grid: Vec<f32> = grid.try_into().unwrap();
        for tokens in [steps, 2 * steps, 3 * steps, 257.max(steps)] {
            let sampler = sampler(tokens, tokens, steps, PositionRule::Random);
            let schedule = UnmaskSchedule::new(&sampler, Family::Dream);
            let mut masked = tokens as usize;
            for (step, times) in grid.windows(2).enumerate() {
                #[expect(clippy::cast_possible_truncation, reason = "a share of the masked ones")]
                let expected = if step + 1 < steps as usize {
                    (masked as f32 * (1.0 - times[1] / times[0])) as usize
                } else {
                    masked
                };
                assert_eq!(schedule.count(step, masked), expected, "{tokens}, {steps}: {step}");
                masked -= expected;
            }
            assert_eq!(masked, 0);
        }
    }
}
