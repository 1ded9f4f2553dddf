//! Tests of shards of evaluations: what is joined is what one stage over all problems would have left.

use super::*;
use crate::digest::Appended;
use crate::results::EvaluationSample;

fn run(shards: u32) -> Run {
    let smoke = include_str!("../../../../jobs/runs/smoke.toml");
    let mut config = Run::parse(smoke).unwrap().config().clone();
    config.evaluation.shards = Appended(Some(shards).filter(|&shards| shards != 1));
    Run::resolve(config).unwrap()
}

/// A document over problems of which these are right, as a stage writes it: of a shard, with points.
fn document(right: &[bool], is_shard: bool) -> Evaluation {
    let correct = right.iter().filter(|right| **right).count();
    let (earned, possible) = (correct as f64, right.len() as f64);
    let result = EvaluationResult {
        accuracy: earned / possible,
        completion_tokens: None,
        correct: correct as u64,
        points: is_shard.then_some(Points { earned, possible }),
        position: None,
        samples: Some(1),
        solved_by: vec![(right.len() - correct) as u64, correct as u64],
        steps: 8,
        temperature: None,
    };
    let sample = |(n, &correct): (usize, &bool)| EvaluationSample {
        completion: n.to_string(),
        correct,
        prompt: String::new(),
    };
    Evaluation {
        problems: u32::try_from(right.len()).unwrap(),
        results: vec![result],
        samples: right.iter().enumerate().map(sample).collect(),
    }
}

fn metrics(numbers: &[(&str, f64)]) -> BTreeMap<String, f64> {
    numbers.iter().map(|&(name, value)| (name.to_owned(), value)).collect()
}

fn key(shard: u32) -> StageKey {
    StageKey::evaluation(0, Some(shard))
}

#[test]
fn documents_join_to_the_bytes_of_the_whole_once_all_are_there() {
    let right = [true, false, true, true, false, false, true];
    let mut whole = document(&right, false);
    // Each document counts its completions from 0.
    for (sample, number) in whole.samples.iter_mut().zip([0, 1, 2, 0, 1, 0, 1]) {
        sample.completion = number.to_string();
    }
    let parts = [&right[..3], &right[3..5], &right[5..]].map(|part| document(part, true));
    let mut shards = EvaluationShards::of(&run(3));
    assert_eq!(shards.add(key(2), parts[2].clone()), None);
    assert_eq!(shards.add(key(0), parts[0].clone()), None);
    let partial: Vec<_> = shards.partial().collect();
    assert_eq!(partial, [Partial { iteration: 0, done: 2, shards: 3 }]);
    assert_eq!(partial[0].to_string(), "2 of 3 shards");
    assert!(shards.contains(key(0)) && !shards.contains(key(1)));
    // A result that comes twice counts once.
    assert_eq!(shards.add(key(0), parts[0].clone()), None);
    let joined = shards.add(key(1), parts[1].clone()).unwrap();
    assert_eq!(joined.to_bytes(), whole.to_bytes());
    assert_eq!(shards.partial().count(), 0);
}

#[test]
fn an_evaluation_in_one_stage_is_whole_at_once() {
    let whole = document(&[true, false], false);
    let mut shards = EvaluationShards::of(&run(1));
    assert_eq!(shards.add(StageKey::evaluation(0, None), whole.clone()), Some(whole));
    assert_eq!(shards.partial().count(), 0);
}

/// The mean of 1/1 and 0/3 is 1/2; one of four problems is right.
#[test]
fn accuracies_are_joined_by_counts() {
    let shard = |problems, right, passes| {
        metrics(&[
            ("accuracy", right / problems),
            ("accuracy_8", right / problems),
            ("earned", right),
            ("earned_8", right),
            ("passes", passes),
            ("possible", problems),
            ("possible_8", problems),
            ("problems", problems),
        ])
    };
    let joined = BTreeMap::together(&[&shard(1.0, 1.0, 8.0), &shard(3.0, 0.0, 4.0)]).unwrap();
    let whole = [("accuracy", 0.25), ("accuracy_8", 0.25), ("passes", 5.0), ("problems", 4.0)];
    assert_eq!(joined, metrics(&whole));
}

/// d1 counts the empty cells of Sudoku puzzles: a puzzle with more of them has more points.
#[test]
fn parts_of_points_are_summed_over_shards() {
    let part = |earned, possible| {
        let mut part = document(&[false, true], true);
        part.results[0].points = Some(Points { earned, possible });
        part
    };
    let joined = Evaluation::together(&[&part(3.0, 4.0), &part(1.0, 8.0)]).unwrap();
    assert_eq!(joined.results[0].accuracy, 4.0 / 12.0);
}

#[test]
fn what_are_no_shards_of_one_evaluation_is_not_joined() {
    let (whole, part) = (document(&[true], false), document(&[true], true));
    assert_eq!(Evaluation::together(&[&part, &whole]), None, "no points");
    let mut other = part.clone();
    other.results[0].steps = 4;
    assert_eq!(Evaluation::together(&[&part, &other]), None, "other steps");
    other.results.clear();
    assert_eq!(Evaluation::together(&[&part, &other]), None, "no result");
    assert_eq!(Evaluation::together(&[]), None);
    let bare = metrics(&[("accuracy", 1.0), ("problems", 1.0)]);
    let joined = BTreeMap::together(&[&bare, &bare]).unwrap();
    assert_eq!(joined, metrics(&[("problems", 2.0)]), "a mean without its counts is left out");
}
