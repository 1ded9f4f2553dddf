//! Evaluation: greedy accuracy on held-out problems, at one or several numbers of unmask steps.

use std::collections::BTreeMap;

use agrpo_spec::{Artifact, EvaluationSpec, Inputs, Outputs, Seed, StageError};
use serde_json::json;

use crate::error;
use crate::model::Policy;
use crate::sampler::{Row, sample};
use crate::tasks;
use crate::tokenizer::TaskTokenizer;

/// Completions kept in the result for people to look at.
const SHOWN: usize = 16;

pub(crate) fn execute(spec: &EvaluationSpec, inputs: &Inputs) -> Result<Outputs, StageError> {
    let files = inputs.folder(spec.policy)?;
    let policy = Policy::from_folder(files)?;
    let tokenizer = TaskTokenizer::of_policy(files)?;
    let problems =
        tasks::held_out_problems(&spec.task, spec.problems).map_err(|e| error::task(&e))?;
    let mut rows = vec![];
    for (index, problem) in (0..).zip(&problems) {
        // Random order draws its positions; greedy low-confidence decoding draws nothing.
        rows.push(Row { prompt: tokenizer.ids(&problem.prompt)?, seed: Seed::new(index) });
    }
    let (mut results, mut shown) = (vec![], vec![]);
    let mut metrics = BTreeMap::from([("problems".to_owned(), f64::from(spec.problems))]);
    for sampler in &spec.samplers {
        let trajectories = sample(&policy, &rows, sampler, spec.micro_batch as usize)?;
        let mut correct = 0u32;
        for (row, problem) in problems.iter().enumerate() {
            let completion = tokenizer.text(trajectories.completion(row))?;
            let grade = tasks::grade(&problem.question, &completion);
            correct += u32::from(grade.correct);
            if results.is_empty() && row < SHOWN {
                let prompt = problem.prompt.trim();
                shown.push(json!({
                    "prompt": prompt, "completion": completion, "correct": grade.correct,
                }));
            }
        }
        let accuracy = f64::from(correct) / f64::from(spec.problems);
        let steps = sampler.steps;
        results.push(json!({ "steps": steps, "correct": correct, "accuracy": accuracy }));
        metrics.insert(format!("accuracy_{steps}"), accuracy);
        metrics.entry("accuracy".to_owned()).or_insert(accuracy);
    }
    let document = json!({ "problems": spec.problems, "results": results, "samples": shown });
    let bytes = serde_json::to_vec_pretty(&document).expect("numbers and strings serialise");
    Ok(Outputs {
        artifacts: BTreeMap::from([("evaluation", Artifact::Blob(bytes.into()))]),
        metrics,
    })
}
