//! Evaluation: accuracy on held-out problems, by one or several samplers.
//!
//! A greedy sampler writes one completion of each problem, a sampler with a temperature as many as the spec asks for.
//! The result is the histogram of how many of them were right, from which pass@m follows for every m. Computes no
//! interval and no comparison. Completions are in memory a few passes at a time.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use agrpo_spec::{
    Artifact, Evaluation, EvaluationResult, EvaluationSample, EvaluationSpec, Inputs, Outputs,
    Purpose, Sampler, metrics,
};

use crate::error::{Result, invalid};
use crate::model::{Placement, Policy};
use crate::problems::{Answered, Asked, Grader, Problems};
use crate::sampler::{Row, sample};
use crate::{context::Context, rollout::padded, threads::Threads};

const SHOWN: usize = 16;

/// Passes whose rows are in memory at once: enough for the threads of most machines, and that equal states of a problem's
/// completions mostly share a pass. Their prompts are padded together, so the number does not depend on the threads.
const PASSES: usize = 16;

pub(crate) fn execute(
    spec: &EvaluationSpec,
    inputs: &Inputs,
    Context { device, threads, cache, scorer }: Context<'_>,
) -> Result<Outputs> {
    if spec.samples == 0 {
        return Err(invalid("evaluation: samples = 0: expected at least 1"));
    }
    let files = inputs.folder(spec.policy)?;
    let at = Placement::on(device, spec.precision);
    let problems = cache.problems(&spec.task, spec.language, inputs)?;
    let merge = spec.merge_adapter;
    let evaluator = Evaluator {
        spec,
        threads,
        policy: cache.policy(spec.policy, merge, at, || Policy::for_sampling(files, merge, at))?,
        asked: problems.held_out(spec.problems)?,
        // Unused by a task that grades by itself.
        grader: Grader::open(&spec.grading.0.clone().unwrap_or_default(), inputs, scorer)?,
        problems,
    };
    let (mut results, mut shown) = (vec![], vec![]);
    let mut metrics = BTreeMap::from([(metrics::PROBLEMS.to_owned(), f64::from(spec.problems))]);
    for sampler in &spec.samplers {
        let grades = evaluator.evaluate(sampler, if results.is_empty() { SHOWN } else { 0 })?;
        let reward = grades.earned.map(|earned| (metrics::REWARD, grades.mean(earned)));
        let passes = (metrics::PASSES, grades.mean(grades.passes as f64));
        let accuracy = (metrics::ACCURACY, grades.accuracy());
        for (name, value) in [accuracy, passes].into_iter().chain(reward) {
            metrics.insert(metrics::at_steps(name, sampler.steps), value);
            metrics.entry(name.to_owned()).or_insert(value);
        }
        results.push(grades.result(sampler));
        shown.extend(grades.shown);
    }
    let bytes = Evaluation { problems: spec.problems, results, samples: shown }.to_bytes();
    Ok(Outputs {
        artifacts: BTreeMap::from([("evaluation", Artifact::Blob(bytes.into()))]),
        metrics,
    })
}

struct Evaluator<'a> {
    spec: &'a EvaluationSpec,
    threads: &'a Threads,
    policy: Policy,
    problems: Arc<Problems>,
    asked: Vec<Asked>,
    grader: Grader<'a>,
}

/// The grades of one sampler's completions.
#[derive(Default)]
struct Grades {
    draws: usize,
    /// For each problem, how many of its completions were right.
    right: Vec<usize>,
    /// What all completions added to the accuracy, and what they could have added.
    score: f64,
    most: f64,
    /// The sum of all rewards, where training and evaluation grade alike.
    earned: Option<f64>,
    /// Forward passes of all completions: each one's unmask steps before it was finished.
    passes: u64,
    shown: Vec<EvaluationSample>,
}

impl Evaluator<'_> {
    /// Samples and grades every completion; keeps the first completions of the first problems.
    fn evaluate(&self, sampler: &Sampler, shown: usize) -> Result<Grades> {
        let is_greedy = sampler.temperature.get() == 0.0;
        let draws = if is_greedy { 1 } else { self.spec.samples as usize };
        let micro_batch = self.spec.micro_batch.max(1) as usize;
        let right = vec![0; self.asked.len()];
        let mut grades = Grades { draws, right, ..Grades::default() };
        let all = self.asked.len() * draws;
        let at_once = micro_batch * PASSES;
        for first in (0..all).step_by(at_once) {
            let cells = first..all.min(first + at_once);
            let rows = self.rows(cells.clone(), draws);
            let trajectories = sample(&self.policy, &rows, sampler, micro_batch, self.threads)?;
            let answered = cells.clone().enumerate().map(|(row, cell)| Answered {
                id: format!("held-out {}/{}", cell / draws, cell % draws),
                asked: &self.asked[cell / draws],
                completion: trajectories.completion(row),
            });
            let answered: Vec<_> = answered.collect();
            let graded = self.problems.evaluate(&answered, &self.grader)?;
            for ((row, cell), grade) in cells.enumerate().zip(graded) {
                let (index, asked) = (cell / draws, &self.asked[cell / draws]);
                grades.right[index] += usize::from(grade.correct);
                grades.score += grade.score;
                grades.most += grade.most;
                if let Some(reward) = grade.reward {
                    *grades.earned.get_or_insert(0.0) += reward;
                }
                grades.passes += u64::from(trajectories.sampled_steps(row));
                if index < shown && cell % draws == 0 {
                    grades.shown.push(EvaluationSample {
                        completion: grade.text,
                        correct: grade.correct,
                        prompt: asked.shown.clone(),
                    });
                }
            }
        }
        Ok(grades)
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

impl Grades {
    /// The share of all completions that are right; of a benchmark that counts parts of an answer, the
    /// share of those.
    fn accuracy(&self) -> f64 {
        self.score / self.most
    }

    /// The mean over all completions.
    fn mean(&self, sum: f64) -> f64 {
        sum / (self.right.len() * self.draws) as f64
    }

    /// The sampler's entry in the result; `solved_by[c]` problems have c right completions.
    fn result(&self, sampler: &Sampler) -> EvaluationResult {
        let mut solved_by = vec![0; self.draws + 1];
        self.right.iter().for_each(|&right| solved_by[right] += 1);
        EvaluationResult {
            accuracy: self.accuracy(),
            correct: self.right.iter().sum::<usize>() as u64,
            position: Some(sampler.position),
            samples: Some(self.draws as u64),
            solved_by,
            steps: sampler.steps,
            temperature: Some(sampler.temperature),
        }
    }
}
