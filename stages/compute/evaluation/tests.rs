//! Completions are those of their problems, whichever others share a stage, a batch or a pass.

use agrpo_spec::{
    Appended, Content, DatasetTask, Language, Numerics, PositionRule, Precision, RewardConfig,
    Rule, Seed, StageKind, StageSpec, Task,
};

use super::*;
use crate::testing::sampler;
use crate::text::chat::tests as chat;

/// Held-out problems: more than a pass of one state takes at once.
const PROBLEMS: u32 = 20;

/// An evaluation in half precision of prompts of several lengths, whose order is not that of the problems.
fn in_half_precision() -> (EvaluationSpec, Inputs) {
    let mut inputs = Inputs::default();
    let mut insert = |artifact: Artifact| {
        let digest = artifact.digest().unwrap();
        inputs.insert(digest, artifact);
        digest
    };
    let policy = Policy::draw(chat::config(), 0.5, Seed::new(1)).unwrap().to_files().unwrap();
    let rows = |first: u32| -> String {
        let word = |n: u32| format!("{n} {}", "x".repeat((n * 7 % 5) as usize));
        (first..first + PROBLEMS).map(|n| format!("{{\"word\": \"{}\"}}\n", word(n))).collect()
    };
    let blob = |bytes: Vec<u8>| Artifact::Blob(bytes.into());
    let task = DatasetTask {
        train: insert(blob(rows(50).into_bytes())),
        test: insert(blob(rows(10).into_bytes())),
        prompt: "{{ word }}".to_owned(),
        answer: None,
        system: None,
        seed: 0,
        prompt_tokens: 64,
    };
    let rule = Rule::Regex { pattern: "[a-n]".to_owned(), is_answer: false };
    let rules = BTreeMap::from([("form".to_owned(), rule)]);
    let spec = EvaluationSpec {
        version: StageKind::Evaluation.version(),
        numerics: Numerics::CpuPortable,
        seed: Seed::new(2),
        task: Task::Dataset(task),
        language: Some(Language {
            config: insert(blob(chat::config().to_json())),
            tokenizer: insert(blob(chat::bytes(&chat::file()))),
        }),
        policy: insert(Artifact::Folder(policy)),
        precision: Precision::Bf16,
        problems: PROBLEMS,
        samples: 2,
        micro_batch: 1,
        samplers: vec![sampler(8, 8, 8, PositionRule::LowConfidence)],
        merge_adapter: false,
        grading: Appended(Some(RewardConfig { rules, ..RewardConfig::default() })),
        shard: Appended(None),
    };
    (spec, inputs)
}

/// There, those of one length share passes, since nothing is padded.
#[test]
fn in_half_precision_each_problem_gets_the_completion_that_it_gets_alone() {
    crate::use_one_thread();
    let (spec, inputs) = in_half_precision();
    let evaluated = |spec: EvaluationSpec| {
        let outputs = crate::execute(&StageSpec::Evaluation(spec), &inputs).unwrap();
        let Artifact::Blob(Content::Memory(bytes)) = &outputs.artifacts["evaluation"] else {
            panic!("not in memory")
        };
        Evaluation::from_bytes(bytes).unwrap()
    };
    let alone = |n| evaluated(spec.nth_shard(n, PROBLEMS).unwrap());
    let alone: Vec<Evaluation> = (0..PROBLEMS).map(alone).collect();
    let samples: Vec<_> = alone.iter().flat_map(|one| one.samples.clone()).collect();
    let mut solved_by = vec![0; 3];
    for result in alone.iter().flat_map(|one| &one.results) {
        solved_by.iter_mut().zip(&result.solved_by).for_each(|(sum, count)| *sum += count);
    }
    assert!(solved_by.iter().all(|&count| count > 0), "not one grade for all: {solved_by:?}");
    let lengths: Vec<_> = samples.iter().map(|sample| sample.prompt.len()).collect();
    assert!(!lengths.is_sorted(), "{lengths:?}");
    for micro_batch in [1, 3, 64] {
        let found = evaluated(EvaluationSpec { micro_batch, ..spec.clone() });
        assert_eq!(found.samples, samples, "{micro_batch}");
        assert_eq!(found.results[0].solved_by, solved_by, "{micro_batch}");
    }
}

/// A completion's padding is that of its window, so it must not depend on the shard that computes it.
#[test]
fn shards_compute_each_completion_once_and_in_the_window_of_the_whole() {
    let of = |own: Range<usize>| -> Vec<(usize, Vec<usize>)> {
        let cells = |Batch { window, cells }: Batch| {
            cells.into_iter().map(move |cell| (cell, window.clone()))
        };
        windows(own, 45, 16).flat_map(cells).collect()
    };
    let whole = of(0..45);
    assert_eq!(whole.iter().map(|(cell, _)| *cell).collect::<Vec<_>>(), Vec::from_iter(0..45));
    assert_eq!([&whole[0].1, &whole[44].1], [&Vec::from_iter(0..16), &Vec::from_iter(32..45)]);
    for ends in [vec![0, 45], vec![0, 15, 30, 45], vec![0, 16, 17, 33, 45], Vec::from_iter(0..46)] {
        let shards = ends.windows(2).flat_map(|ends| of(ends[0]..ends[1]));
        assert_eq!(shards.collect::<Vec<_>>(), whole, "{ends:?}");
    }
}
