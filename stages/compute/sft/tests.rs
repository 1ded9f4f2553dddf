//! Tests of which positions an example's masks take.

use agrpo_spec::{Plan, Run, StageSpec};

use super::*;

const SEQUENCES: u64 = 6400;

/// Completions of 8 tokens.
fn spec() -> SftSpec {
    let run = Run::parse(include_str!("../../../jobs/runs/smoke.toml")).unwrap();
    match Plan::new(run).pending().values().next() {
        Some(StageSpec::Sft(spec)) => spec.clone(),
        other => panic!("no fine-tuning: {other:?}"),
    }
}

/// How many of the sequences mask n positions of a block, by the block's first position and n.
fn counts(block: Option<i64>, blocks: &[Range<usize>]) -> BTreeMap<(usize, usize), u32> {
    let (spec, mut counts) = (spec(), BTreeMap::new());
    for index in 0..SEQUENCES {
        let stratum = u32::try_from(index % u64::from(spec.micro_batch)).unwrap();
        let masked = masked_positions((&spec, index), (11, block), stratum);
        let of = blocks.iter().find(|block| masked.iter().all(|at| block.contains(at))).unwrap();
        let distinct: std::collections::BTreeSet<_> = masked.iter().collect();
        assert_eq!(distinct.len(), masked.len(), "{masked:?}");
        *counts.entry((of.start, masked.len())).or_default() += 1;
    }
    counts
}

/// Of each sequence one block is masked, every block as often as another, with every number of its positions.
#[test]
fn a_model_that_attends_in_blocks_learns_one_block_of_a_sequence() {
    let blocks = [0..1, 1..5, 5..8];
    let counts = counts(Some(4), &blocks);
    for block in blocks {
        for n in 1..=block.len() {
            let expected = SEQUENCES as f64 / 3.0 / block.len() as f64;
            let found = f64::from(counts[&(block.start, n)]);
            // More than four standard deviations.
            assert!((found - expected).abs() < 4.5 * expected.sqrt(), "{block:?}, {n}: {found}");
        }
    }
    assert_eq!(counts.len(), 1 + 4 + 3);
}

#[test]
fn other_models_learn_any_number_of_the_completion_s_tokens() {
    let counts = counts(None, std::slice::from_ref(&(0..8)));
    assert_eq!(counts.keys().map(|(_, n)| *n).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(counts.values().all(|&count| count == 800), "spread evenly: {counts:?}");
}
