//! Evaluation: accuracy on held-out problems, all of them or one shard's, by one or several samplers.
//!
//! A greedy sampler writes one completion of each problem, a sampler with a temperature as many as the spec asks for.
//! The result is the histogram of how many of them were right, from which pass@m follows for every m. Computes no
//! interval and no comparison. Completions are in memory a few passes at a time.
//!
//! Draws and padding of a problem depend on its number among all held-out problems, so on processors
//! shards write the completions of the whole. They also leave the counts by which their accuracies are joined.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use agrpo_spec::{
    Artifact, Evaluation, EvaluationResult, EvaluationSample, EvaluationSpec, Inputs, Outputs,
    Points, ProblemShard, Purpose, Sampler, metrics,
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
    Context { device, resources, cache, problems, scorer, .. }: Context<'_>,
) -> Result<Outputs> {
    let threads = &resources.passes;
    for (name, count) in [("samples", spec.samples), ("problems", spec.problems)] {
        if count == 0 {
            return Err(invalid(format!("evaluation: {name} = 0: expected at least 1")));
        }
    }
    let files = inputs.folder(spec.policy)?;
    let at = Placement::on(device, spec.precision);
    let problems = problems.problems(&spec.task, spec.language, inputs)?;
    let whole = ProblemShard { first_problem: 0, all_problems: spec.problems };
    let ProblemShard { first_problem, all_problems } = spec.shard.0.unwrap_or(whole);
    let own = first_problem as usize..first_problem.saturating_add(spec.problems) as usize;
    if own.end > all_problems as usize {
        return Err(invalid(format!("evaluation: a shard of problems {own:?} of {all_problems}")));
    }
    let evaluator = Evaluator {
        spec,
        threads,
        own,
        policy: cache.policy(spec.policy, files, spec.merge_adapter, at)?,
        asked: problems.held_out(all_problems)?,
        // Unused by a task that grades by itself.
        grader: Grader::open(&spec.grading.0.clone().unwrap_or_default(), inputs, scorer)?,
        problems,
    };
    let (mut results, mut shown) = (vec![], vec![]);
    let mut metrics = BTreeMap::from([(metrics::PROBLEMS.to_owned(), f64::from(spec.problems))]);
    let first = spec.samplers.first().map(|sampler| sampler.completion_tokens);
    let is_first = |sampler: &Sampler| Some(sampler.completion_tokens) == first;
    // Steps alone name the samplers of the first one's length, and with the length those of several.
    let is_grid = !spec.samplers.iter().all(is_first);
    for sampler in &spec.samplers {
        let grades = evaluator.evaluate(sampler, if results.is_empty() { SHOWN } else { 0 })?;
        let reward = grades.rewards.map(|rewards| (metrics::REWARD, grades.mean(rewards)));
        let passes = (metrics::PASSES, grades.mean(grades.passes as f64));
        let accuracy = (metrics::ACCURACY, grades.accuracy());
        let Points { earned, possible } = grades.points;
        let points = [(metrics::EARNED, earned), (metrics::POSSIBLE, possible)];
        let points = points.into_iter().filter(|_| !spec.shard.is_none());
        for (name, value) in [accuracy, passes].into_iter().chain(reward).chain(points) {
            if is_first(sampler) {
                metrics.insert(metrics::at_steps(name, sampler.steps), value);
            }
            if is_grid {
                metrics.insert(metrics::at_cell(name, sampler.into()), value);
            }
            metrics.entry(name.to_owned()).or_insert(value);
        }
        let length = is_grid.then_some(sampler.completion_tokens);
        let result = grades.result(sampler, !spec.shard.is_none());
        results.push(EvaluationResult { completion_tokens: length, ..result });
        shown.extend(grades.shown.into_values());
    }
    let bytes = Evaluation { problems: spec.problems, results, samples: shown }.to_bytes();
    Ok(Outputs {
        artifacts: BTreeMap::from([("evaluation", Artifact::Blob(bytes.into()))]),
        metrics,
    })
}

struct Evaluator<'a> {
    spec: &'a EvaluationSpec,
    /// The problems that this stage asks.
    own: Range<usize>,
    threads: &'a Threads,
    policy: Policy,
    problems: Arc<Problems>,
    /// Those of the whole evaluation.
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
    points: Points,
    /// The sum of all rewards, where training and evaluation grade alike.
    rewards: Option<f64>,
    /// Forward passes of all completions: each one's unmask steps before it was finished.
    passes: u64,
    /// By the problem's number.
    shown: BTreeMap<usize, EvaluationSample>,
}

/// Completions that are sampled at once, each by its number, counted problem by problem.
struct Batch {
    /// Those whose prompts are padded together.
    window: Vec<usize>,
    /// Those of them that this stage samples.
    cells: Vec<usize>,
}

impl Evaluator<'_> {
    /// Samples and grades every completion; keeps the first completions of the first problems.
    fn evaluate(&self, sampler: &Sampler, shown: usize) -> Result<Grades> {
        let is_greedy = sampler.temperature.get() == 0.0;
        let draws = if is_greedy { 1 } else { self.spec.samples as usize };
        let micro_batch = self.spec.micro_batch.max(1) as usize;
        let right = vec![0; self.own.len()];
        let mut grades = Grades { draws, right, ..Grades::default() };
        for Batch { window, cells } in self.batches(draws, micro_batch * PASSES) {
            let rows = self.rows(&window, &cells, draws);
            let trajectories = sample(&self.policy, &rows, sampler, micro_batch, self.threads)?;
            let answered = cells.iter().enumerate().map(|(row, cell)| Answered {
                id: format!("held-out {}/{}", cell / draws, cell % draws),
                asked: &self.asked[cell / draws],
                completion: trajectories.completion(row),
            });
            let answered: Vec<_> = answered.collect();
            let graded = self.problems.evaluate(&answered, &self.grader)?;
            for ((row, cell), grade) in cells.iter().enumerate().zip(graded) {
                let (index, asked) = (cell / draws, &self.asked[cell / draws]);
                grades.right[index - self.own.start] += usize::from(grade.correct);
                grades.points.earned += grade.score;
                grades.points.possible += grade.most;
                if let Some(reward) = grade.reward {
                    *grades.rewards.get_or_insert(0.0) += reward;
                }
                grades.passes += u64::from(trajectories.sampled_steps(row));
                if index < shown && cell % draws == 0 {
                    let sample = EvaluationSample {
                        completion: grade.text,
                        correct: grade.correct,
                        prompt: asked.shown.clone(),
                    };
                    grades.shown.insert(index, sample);
                }
            }
        }
        Ok(grades)
    }

    /// The completions of this stage, so many at once. Where passes take no padding, those of prompts of one length follow
    /// one another; else they are in the order of problems.
    fn batches(&self, draws: usize, at_once: usize) -> Vec<Batch> {
        let (all, own) = (self.asked.len() * draws, self.own.start * draws..self.own.end * draws);
        if self.policy.pads() {
            return windows(own, all, at_once).collect();
        }
        let mut own: Vec<usize> = own.collect();
        own.sort_by_key(|cell| self.asked[cell / draws].prompt.len());
        let batch = |cells: &[usize]| Batch { window: cells.to_vec(), cells: cells.to_vec() };
        own.chunks(at_once).map(batch).collect()
    }

    /// The rows of completions `cells`. Their prompts are padded with those of the whole window: a prompt's padding moves
    /// its positions, and must not depend on the shards.
    fn rows(&self, window: &[usize], cells: &[usize], draws: usize) -> Vec<Row> {
        let prompts = window.iter().map(|cell| self.asked[cell / draws].prompt.clone());
        let row = |(cell, prompt): (&usize, Vec<i64>)| {
            let seed = self.spec.seed.child(Purpose::Prompt, (cell / draws) as u64);
            Row { prompt, seed: seed.child(Purpose::Sample, (cell % draws) as u64) }
        };
        let prompts = window.iter().zip(padded(prompts.collect()));
        prompts.filter(|(cell, _)| cells.contains(cell)).map(row).collect()
    }
}

/// The windows of `all` completions that hold some of this stage's `own`. They begin where they do in an evaluation in
/// one stage.
fn windows(own: Range<usize>, all: usize, at_once: usize) -> impl Iterator<Item = Batch> {
    (own.start / at_once * at_once..own.end).step_by(at_once).map(move |first| {
        let window = first..all.min(first + at_once);
        let cells = window.start.max(own.start)..window.end.min(own.end);
        Batch { window: window.collect(), cells: cells.collect() }
    })
}

impl Grades {
    /// The share of all completions that are right; of a benchmark that counts parts of an answer, the
    /// share of those.
    fn accuracy(&self) -> f64 {
        self.points.earned / self.points.possible
    }

    /// The mean over all completions.
    fn mean(&self, sum: f64) -> f64 {
        sum / (self.right.len() * self.draws) as f64
    }

    /// The sampler's entry in the result; `solved_by[c]` problems have c right completions.
    fn result(&self, sampler: &Sampler, is_shard: bool) -> EvaluationResult {
        let mut solved_by = vec![0; self.draws + 1];
        self.right.iter().for_each(|&right| solved_by[right] += 1);
        EvaluationResult {
            accuracy: self.accuracy(),
            completion_tokens: None,
            correct: self.right.iter().sum::<usize>() as u64,
            points: is_shard.then_some(self.points),
            position: Some(sampler.position),
            samples: Some(self.draws as u64),
            solved_by,
            steps: sampler.steps,
            temperature: Some(sampler.temperature),
        }
    }
}

#[cfg(test)]
mod tests;
