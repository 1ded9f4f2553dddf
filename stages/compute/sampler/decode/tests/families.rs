//! Tests of decoding under the conventions of other families: blocks counted from the prompt, a time grid, and which block
//! ends a completion. What these say of steps is in `blocks/tests.rs`.

use super::*;

/// Prompts of 5, 6 and 8 tokens, padded to 9, of each four completions.
fn uneven() -> Vec<Row> {
    let lengths = [5, 6, 8];
    let row = |n: usize| {
        let prompt: Vec<i64> = (0..lengths[n / 4]).map(|j| (j * 7 + length(n / 4)) % 4).collect();
        let padding = std::iter::repeat_n(PADDING, 9 - prompt.len());
        let seed = Seed::new(9).child(Purpose::Sample, n as u64);
        Row { prompt: padding.chain(prompt).collect(), seed }
    };
    (0..12).map(row).collect()
}

/// Two tokens a step in every order, and one with a threshold.
fn samplers() -> Vec<Sampler> {
    let plain = |position| Sampler { temperature: real(0.8), ..sampler(8, 4, 4, position) };
    let sure = sampler(8, 4, 8, PositionRule::LowConfidence);
    let sure = Sampler { threshold: Some(real(0.5)), temperature: real(0.8), ..sure };
    PositionRule::ALL.into_iter().map(plain).chain([sure]).collect()
}

/// How many tokens each step of a row wrote.
fn written(all: &Trajectories, row: usize) -> Vec<usize> {
    let of_step = |t| all.steps(row).iter().filter(|&&at| at == i64::from(t)).count();
    (0..all.sampled_steps(row)).map(of_step).collect()
}

#[test]
fn a_row_is_the_same_in_any_company_in_every_family() {
    for family in Family::ALL {
        let (policy, rows) = (policy_of(family, 24), uneven());
        for sampler in samplers() {
            let sampled = |rows: &[Row], micro_batch, threads| {
                let threads = Threads::new(NonZeroUsize::new(threads).unwrap());
                sample(&policy, rows, &sampler, micro_batch, &threads).unwrap()
            };
            let alone: Vec<_> = rows
                .iter()
                .map(|row| of_row(&sampled(std::slice::from_ref(row), 1, 1), 0))
                .collect();
            for (micro_batch, threads) in [(1, 1), (5, 3), (64, 1)] {
                let all = sampled(&rows, micro_batch, threads);
                for (row, alone) in alone.iter().enumerate() {
                    assert_eq!(of_row(&all, row), *alone, "{family:?}, {row}, {sampler:?}");
                }
            }
        }
    }
}

/// Left of the completion, and between its blocks: where SDAR's blocks begin depends on the prompt's own tokens.
#[test]
fn blocks_from_the_prompt_are_written_one_after_another() {
    set_eos(&policy_of(Family::Sdar, 24), |policy| {
        for position in PositionRule::ALL {
            let sampler = sampler(8, 4, 4, position);
            let all = sample(policy, &uneven(), &sampler, 64, &Threads::one()).unwrap();
            for (row, expected) in [
                (0, vec![(0..3, vec![2, 1]), (3..7, vec![2, 2]), (7..8, vec![1])]),
                (4, vec![(0..2, vec![2]), (2..6, vec![2, 2]), (6..8, vec![2])]),
                (8, vec![(0..4, vec![2, 2]), (4..8, vec![2, 2])]),
            ] {
                let mut first = 0;
                for (block, counts) in &expected {
                    let steps = &all.steps(row)[block.clone()];
                    let last = first + i64::try_from(counts.len()).unwrap();
                    assert!(steps.iter().all(|step| (first..last).contains(step)), "{position}");
                    first = last;
                }
                let counts: Vec<usize> =
                    expected.into_iter().flat_map(|(_, counts)| counts).collect();
                assert_eq!(written(&all, row), counts, "{position}");
            }
        }
    });
}

/// Gives the same policy an end-of-sequence that it cannot write.
fn set_eos(policy: &Policy, check: impl Fn(&Policy)) {
    let config = ModelConfig { eos_token_id: 99, ..policy.config().clone() };
    check(&Policy::draw(config, 0.4, Seed::new(1)).unwrap());
}

#[test]
fn from_left_to_right_no_position_is_written_before_one_left_of_it() {
    let sampler = sampler(8, 8, 4, PositionRule::LeftToRight);
    for family in [Family::Llada, Family::Dream] {
        set_eos(&policy_of(family, 24), |policy| {
            let all = sample(policy, &uneven(), &sampler, 64, &Threads::one()).unwrap();
            for row in 0..all.rows {
                assert!(all.steps(row).is_sorted(), "{family:?}: {:?}", all.steps(row));
            }
        });
    }
}

/// On the grid of 17 steps for 17 tokens the first step writes nothing: it has no pass and no number.
#[test]
fn steps_that_write_nothing_are_passed_over() {
    let policy = policy_of(Family::Dream, 34);
    for position in PositionRule::ALL {
        let all = sample(&policy, &uneven(), &sampler(17, 17, 17, position), 64, &Threads::one())
            .unwrap();
        for row in 0..all.rows {
            assert_eq!(written(&all, row), [vec![1; 15], vec![2]].concat(), "{position}");
        }
    }
}

/// SDAR ends a completion after a block that holds an end, LLaDA and Dream after one of nothing else.
#[test]
fn a_completion_ends_after_the_block_that_its_family_names() {
    let again = |n| {
        let again = move |row: Row| Row { seed: row.seed.child(Purpose::Sample, n), ..row };
        uneven().into_iter().map(again)
    };
    let rows: Vec<Row> = (0..10).flat_map(again).collect();
    for family in Family::ALL {
        let policy = policy_of(family, 24);
        let likely = sampler(12, 2, 12, PositionRule::Random);
        let sampler = Sampler { temperature: real(5.0), ..likely };
        let all = sample(&policy, &rows, &sampler, 64, &Threads::one()).unwrap();
        let schedule = UnmaskSchedule::new(&sampler, family);
        let (mut early, mut mixed) = (0, 0);
        for row in 0..all.rows {
            let blocks = schedule.blocks(all.prompt(row).iter().filter(|&&id| id >= 0).count());
            let tokens = all.completion(row);
            let ends = |block: &Range<usize>| tokens[block.clone()].iter().filter(|&&t| t == EOS);
            let least = |block: &Range<usize>| if family == Family::Sdar { 1 } else { block.len() };
            let is_end = |block: &Range<usize>| ends(block).count() >= least(block);
            let last = blocks.all().find(is_end).unwrap_or(12..12);
            assert!(all.steps(row)[..last.end].iter().all(|&step| step != NEVER), "{family:?}");
            assert!(all.steps(row)[last.end..].iter().all(|&step| step == NEVER), "{family:?}");
            assert!(tokens[last.end..].iter().all(|&token| token == EOS));
            early += u32::from(last.end < 12);
            mixed += u32::from(last.end < 12 && ends(&last).count() < last.len());
        }
        assert!(
            early > 0 && (mixed > 0) == (family == Family::Sdar),
            "{family:?}: {early}, {mixed}"
        );
    }
}

#[test]
fn a_cache_is_refused_where_blocks_are_counted_from_the_prompt() {
    let exact = sampler(8, 4, 8, PositionRule::LowConfidence);
    let cached = Sampler { cache: Cache::Prefix, ..exact };
    let policy = policy_of(Family::Sdar, 24);
    let refused = sample(&policy, &uneven(), &cached, 1, &Threads::one()).unwrap_err().to_string();
    assert!(refused.contains("sampler.cache = \"prefix\": expected \"none\""), "{refused}");
}
