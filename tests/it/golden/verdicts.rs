//! AGRPO's evaluation and training rewards against its own program, through `agrpo score`: every extracted answer,
//! every verdict and every part of the reward of each row of `agrpo_verdicts/verdicts.jsonl`.

use serde_json::{Value, json};

use super::folder;
use crate::cli::alone;

const TASKS: [&str; 4] = ["countdown", "gsm8k", "math", "sudoku"];

fn rows() -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join("agrpo_verdicts/verdicts.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Each row of the reference with what `agrpo score` says of its completion.
fn scored(rubric: &str) -> Vec<(Value, Value)> {
    let of_task = |task: &str| {
        let rows: Vec<Value> = rows().into_iter().filter(|row| row["task"] == task).collect();
        let asked = rows.iter().map(|row| {
            let truth = match task {
                "countdown" => json!([row["nums"], row["target"]]),
                _ => row["answer"].clone(),
            };
            let question = row.get("puzzle").cloned().unwrap_or_else(|| json!(""));
            let completion = &row["completion"];
            json!({ "question": question, "ground_truth": truth, "completion": completion })
        });
        let asked: String = asked.map(|row| format!("{row}\n")).collect();
        let said = alone(&["score", "--task", task, "--rubric", rubric, "-"], &asked);
        assert_eq!(said.code, Some(0), "{task}: {}", said.stderr);
        let found = said.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
        let found: Vec<Value> = found.collect();
        assert_eq!(found.len(), rows.len(), "{task}");
        rows.into_iter().zip(found).collect::<Vec<_>>()
    };
    let all: Vec<_> = TASKS.into_iter().flat_map(of_task).collect();
    assert!(!all.is_empty() && all.len() == rows().len(), "a row is of no known task");
    all
}

fn near(found: &Value, expected: f64) -> bool {
    found.as_f64().is_some_and(|found| (found - expected).abs() < 1e-9)
}

#[test]
fn answers_and_verdicts_of_the_evaluation_are_the_published_ones() {
    let mut differing = vec![];
    for (row, found) in scored("agrpo-eval") {
        let verdict = row["verdict"].as_f64().or_else(|| row["verdict"].as_bool().map(f64::from));
        let verdict = verdict.unwrap();
        let is_alike = found["extracted"] == row["extracted"]
            && near(&found["reward"], verdict)
            && found["correct"] == json!(verdict == 1.0);
        if !is_alike {
            differing.push(format!("{row}: {found}"));
        }
    }
    assert_eq!(differing, Vec::<String>::new());
}

#[test]
fn parts_of_the_training_reward_are_the_published_ones() {
    let mut differing = vec![];
    for (row, found) in scored("agrpo") {
        for (name, expected) in row["reward"].as_object().unwrap() {
            let name = match name.as_str() {
                "countdown_correctness" => "countdown_correct",
                "sudoku_correctness" => "sudoku_correct",
                name => name,
            };
            if !near(&found["parts"][name], expected.as_f64().unwrap()) {
                differing.push(format!("{name}, {row}: {found}"));
            }
        }
    }
    assert_eq!(differing, Vec::<String>::new());
}
