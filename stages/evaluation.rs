//! Evaluation: accuracy on held-out problems, by one or several samplers.
//!
//! A greedy sampler writes one completion of a problem, one with a temperature as many as the spec
//! asks for. What is kept is the histogram of how many of them were right, from which pass@m follows
//! for every m; no interval and no comparison is computed here. Completions are in memory a few passes
//! at a time, however many there are.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use agrpo_spec::{
    Artifact, EvaluationSpec, Inputs, Outputs, Purpose, Sampler, Scorer, StageError, StageKind,
};
use serde_json::{Value, json};
use tch::Device;

use crate::model::{Placement, Policy};
use crate::problems::{Answered, Asked, Grader, Problems};
use crate::rollout::padded;
use crate::sampler::{Row, sample};
use crate::shelf::Shelf;

/// Completions kept in the result for people to look at.
const SHOWN: usize = 16;

/// Passes whose rows are in memory at once: enough that equal states of a problem's completions
/// mostly meet, and that few passes are left partly filled.
const PASSES: usize = 4;

pub(crate) fn execute(
    spec: &EvaluationSpec,
    inputs: &Inputs,
    device: Device,
    (shelf, scorer): (&Shelf, &dyn Scorer),
) -> Result<Outputs, StageError> {
    if spec.samples == 0 {
        let kind = StageKind::Evaluation;
        return Err(StageError::Invalid(format!("{kind}: samples = 0: expected at least 1")));
    }
    let files = inputs.folder(spec.policy)?;
    let at = Placement::new(device, spec.precision);
    let problems = shelf.problems(&spec.task, spec.language, inputs)?;
    let merge = spec.merge_adapter;
    let exam = Exam {
        spec,
        policy: shelf.policy(spec.policy, merge, at, || Policy::for_sampling(files, merge, at))?,
        asked: problems.held_out(spec.problems)?,
        grader: Grader::marking(&spec.marking, inputs, scorer)?,
        problems,
    };
    let (mut results, mut shown) = (vec![], vec![]);
    let mut metrics = BTreeMap::from([("problems".to_owned(), f64::from(spec.problems))]);
    for sampler in &spec.samplers {
        let marks = exam.sit(sampler, if results.is_empty() { SHOWN } else { 0 })?;
        let (accuracy, passes, steps) = (marks.accuracy(), marks.passes(), sampler.steps);
        let reward = marks.reward();
        results.push(marks.document(sampler));
        shown.extend(marks.shown);
        metrics.insert(format!("accuracy_{steps}"), accuracy);
        metrics.entry("accuracy".to_owned()).or_insert(accuracy);
        metrics.insert(format!("passes_{steps}"), passes);
        metrics.entry("passes".to_owned()).or_insert(passes);
        if let Some(reward) = reward {
            metrics.insert(format!("reward_{steps}"), reward);
            metrics.entry("reward".to_owned()).or_insert(reward);
        }
    }
    let document = json!({ "problems": spec.problems, "results": results, "samples": shown });
    let bytes = serde_json::to_vec_pretty(&document).expect("numbers and strings serialise");
    Ok(Outputs {
        artifacts: BTreeMap::from([("evaluation", Artifact::Blob(bytes.into()))]),
        metrics,
    })
}

struct Exam<'a> {
    spec: &'a EvaluationSpec,
    policy: Policy,
    problems: Arc<Problems>,
    asked: Vec<Asked>,
    grader: Grader<'a>,
}

/// What one sampler achieved.
struct Marks {
    draws: usize,
    /// For each problem, how many of its completions were right.
    right: Vec<usize>,
    /// What all completions added to the accuracy, and what they could have added.
    score: f64,
    most: f64,
    /// What all completions earned, where training and evaluation grade alike.
    earned: Option<f64>,
    /// Forward passes of all completions.
    passes: u64,
    shown: Vec<Value>,
}

impl Exam<'_> {
    /// Samples and grades every completion; keeps the first completions of the first problems.
    fn sit(&self, sampler: &Sampler, shown: usize) -> Result<Marks, StageError> {
        let is_greedy = sampler.temperature.get() == 0.0;
        let draws = if is_greedy { 1 } else { self.spec.samples as usize };
        let micro_batch = self.spec.micro_batch.max(1) as usize;
        let right = vec![0; self.asked.len()];
        let (score, most, passes, earned) = (0.0, 0.0, 0, None);
        let mut marks = Marks { draws, right, score, most, earned, passes, shown: vec![] };
        let all = self.asked.len() * draws;
        for first in (0..all).step_by(micro_batch * PASSES) {
            let cells = first..all.min(first + micro_batch * PASSES);
            let rows = self.rows(cells.clone(), draws);
            let trajectories = sample(&self.policy, &rows, sampler, micro_batch)?;
            let answered = cells.clone().enumerate().map(|(row, cell)| Answered {
                id: format!("held-out {}/{}", cell / draws, cell % draws),
                asked: &self.asked[cell / draws],
                completion: trajectories.completion(row),
            });
            let answered: Vec<_> = answered.collect();
            let marked = self.problems.mark(&answered, &self.grader)?;
            for ((row, cell), mark) in cells.enumerate().zip(marked) {
                let (index, asked) = (cell / draws, &self.asked[cell / draws]);
                marks.right[index] += usize::from(mark.correct);
                marks.score += mark.score;
                marks.most += mark.most;
                if let Some(reward) = mark.reward {
                    *marks.earned.get_or_insert(0.0) += reward;
                }
                marks.passes += u64::from(trajectories.sampled_steps(row));
                if index < shown && cell % draws == 0 {
                    marks.shown.push(json!({
                        "prompt": asked.shown, "completion": mark.text, "correct": mark.correct,
                    }));
                }
            }
        }
        Ok(marks)
    }

    /// The rows of completions `cells`, counted problem by problem.
    fn rows(&self, cells: Range<usize>, draws: usize) -> Vec<Row> {
        let prompts = cells.clone().map(|cell| self.asked[cell / draws].prompt.clone());
        let row = |(cell, prompt): (usize, Vec<i64>)| {
            let seed = self.spec.seed.child(Purpose::Prompt, (cell / draws) as u64);
            Row { prompt, seed: seed.child(Purpose::Sample, (cell % draws) as u64) }
        };
        cells.zip(padded(prompts.collect())).map(row).collect()
    }
}

impl Marks {
    fn correct(&self) -> usize {
        self.right.iter().sum()
    }

    /// The share of all completions that are right; of a benchmark that counts parts of an answer, the
    /// share of those.
    fn accuracy(&self) -> f64 {
        self.score / self.most
    }

    /// The mean reward of a completion.
    #[expect(clippy::cast_precision_loss, reason = "counts of completions")]
    fn reward(&self) -> Option<f64> {
        Some(self.earned? / (self.right.len() * self.draws) as f64)
    }

    /// Forward passes of a completion, in the mean: its unmask steps before it was finished.
    #[expect(clippy::cast_precision_loss, reason = "counts of completions and steps")]
    fn passes(&self) -> f64 {
        self.passes as f64 / (self.right.len() * self.draws) as f64
    }

    /// What the result says of the sampler; `solved_by[c]` problems have c right completions.
    fn document(&self, sampler: &Sampler) -> Value {
        let mut solved_by = vec![0u32; self.draws + 1];
        self.right.iter().for_each(|&right| solved_by[right] += 1);
        json!({
            "steps": sampler.steps,
            "temperature": sampler.temperature,
            "position": sampler.position,
            "samples": self.draws,
            "correct": self.correct(),
            "accuracy": self.accuracy(),
            "solved_by": solved_by,
        })
    }
}
