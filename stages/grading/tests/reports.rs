//! Rows that failed once, as public reports describe them, with what the original programs pay.
//!
//! A row whose truth is not one of its task is refused.

use serde_json::Value;

use crate::{Benchmark, Protocol, problem_of_truth, reward, verdict};

const ROWS: &str = include_str!("reports.jsonl");

#[test]
fn reported_rows_are_paid_as_by_the_originals() {
    let rows: Vec<Value> = ROWS.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 73);
    for row in rows {
        let benchmark = match row["task"].as_str().unwrap() {
            "gsm8k" => Benchmark::Gsm8k,
            "countdown" => Benchmark::Countdown,
            _ => Benchmark::Math,
        };
        let completion = row["completion"].as_str().unwrap();
        let problem = problem_of_truth(benchmark, "", &row["ground_truth"]);
        let Some(expected) = row["reward"].as_f64() else {
            assert!(problem.is_err(), "{row}");
            continue;
        };
        let problem = problem.unwrap();
        let found = match row["rubric"].as_str().unwrap() {
            "d1" => reward(&problem, Protocol::D1, completion).reward,
            "d1-eval" => verdict(&problem, Protocol::D1, completion).score(),
            _ => reward(&problem, Protocol::Agrpo, completion).reward,
        };
        assert!((found - expected).abs() < 1e-9, "{row} is paid {found}");
    }
}
