//! The input of every estimator: trajectories and advantages that belong together.
//!
//! Only [`Batch::new`] makes one. It refuses what cannot be learned from, naming the sample and the number,
//! before anything is computed; estimators rely on it and check nothing again.

use std::ops::Range;

use agrpo_spec::{RowReward, Sampler};

use crate::blocks::{Blocks, UnmaskSchedule};
use crate::error::{Result, data};
use crate::model::{ModelConfig, padding};
use crate::trajectories::{NEVER, Trajectories};

/// A shard's trajectories, each with its advantage. Rows are completions, R of them.
#[derive(Debug)]
pub struct Batch<'a> {
    pub(super) trajectories: &'a Trajectories,
    worths: Vec<Worth>,
    group: usize,
    /// The number of the first group in its iteration.
    first_group: u64,
    pub(super) sampler: &'a Sampler,
    model: &'a ModelConfig,
    recorded: bool,
}

/// The result of grading a completion, as far as an estimator needs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worth {
    /// The factor of its log-probability.
    pub advantage: f64,
    /// Whether the mean over completions counts it; one that is not counted has no advantage.
    pub counted: bool,
}

impl From<&RowReward> for Worth {
    fn from(row: &RowReward) -> Self {
        Self { advantage: row.advantage, counted: row.counted }
    }
}

impl<'a> Batch<'a> {
    /// Checks that trajectories, worths, groups, sampler and model match. Data error that names the sample.
    pub fn new(
        trajectories: &'a Trajectories,
        worths: &[Worth],
        group: usize,
        sampler: &'a Sampler,
        model: &'a ModelConfig,
    ) -> Result<Self> {
        let rows = trajectories.rows;
        if worths.len() != rows {
            let found = worths.len();
            return Err(data(format!("{found} rewards do not fit {rows} trajectories")));
        }
        if rows == 0 || group == 0 || !rows.is_multiple_of(group) {
            return Err(data(format!("{rows} trajectories do not make groups of {group}")));
        }
        for (row, worth) in worths.iter().enumerate() {
            let advantage = worth.advantage;
            let wrong = if !advantage.is_finite() {
                format!("has the advantage {advantage}, expected a finite number")
            } else if !worth.counted && advantage != 0.0 {
                format!("is left out, but its advantage is {advantage}, expected 0")
            } else {
                continue;
            };
            return Err(data(format!("sample {row} {wrong}")));
        }
        let batch = Self {
            trajectories,
            worths: worths.to_vec(),
            group,
            first_group: 0,
            sampler,
            model,
            recorded: true,
        };
        if (sampler.top_k > 0 || sampler.top_p.get() < 1.0) && trajectories.kept.is_none() {
            let Sampler { top_k, top_p, .. } = sampler;
            return Err(data(format!(
                "the trajectories lack their kept sets, expected those of top_k {top_k} and top_p {top_p}"
            )));
        }
        (0..rows).try_for_each(|row| batch.check_row(row))?;
        Ok(batch)
    }

    /// The same as this shard of an iteration, counted from 0; all shards have equally many groups.
    pub fn of_shard(self, shard: u32) -> Self {
        let first_group = u64::from(shard) * self.groups() as u64;
        Self { first_group, ..self }
    }

    /// The same without the recorded log-probabilities: the ratio's denominators are computed from the
    /// policy that sampled. For trajectories whose records are less exact than the arithmetic.
    #[cfg(test)]
    pub(crate) fn without_records(self) -> Self {
        Self { recorded: false, ..self }
    }

    #[cfg(test)]
    pub(crate) fn trajectories(&self) -> &'a Trajectories {
        self.trajectories
    }

    /// Completions, R.
    pub fn rows(&self) -> usize {
        self.trajectories.rows
    }

    /// Groups of completions.
    pub fn groups(&self) -> usize {
        self.rows() / self.group
    }

    /// The group of a row: its number in the iteration, and its rows.
    pub fn group(&self, row: usize) -> (u64, Range<usize>) {
        let number = row / self.group;
        let first = number * self.group;
        (self.first_group + number as u64, first..first + self.group)
    }

    /// A row's advantage.
    pub fn advantage(&self, row: usize) -> f64 {
        self.worths[row].advantage
    }

    /// Rows that the mean over completions counts.
    pub fn counted(&self) -> impl Iterator<Item = usize> {
        (0..self.rows()).filter(|&row| self.worths[row].counted)
    }

    /// Counted rows of each prompt, in the order of prompts.
    pub fn counted_by_group(&self) -> impl Iterator<Item = Vec<usize>> {
        let is_counted = |row: &usize| self.worths[*row].counted;
        let counted = move |first| (first..first + self.group).filter(is_counted).collect();
        (0..self.rows()).step_by(self.group).map(counted)
    }

    /// The number of counted completions.
    pub fn completions(&self) -> f64 {
        count(self.counted().count())
    }

    /// Rows whose terms are not constant: those with an advantage; with a KL term, all.
    pub fn moving(&self, with_kl: bool) -> Vec<usize> {
        self.counted().filter(|&row| with_kl || self.advantage(row) != 0.0).collect()
    }

    /// The mask's id.
    pub fn mask(&self) -> i64 {
        self.model.mask_token_id
    }

    /// The end-of-sequence id.
    pub fn eos(&self) -> i64 {
        self.model.eos_token_id
    }

    /// Steps of a trajectory that is sampled to its end, without a threshold and in blocks counted from the completion.
    pub(super) fn steps(&self) -> u32 {
        let schedule = self.schedule();
        u32::try_from(schedule.steps(schedule.blocks(0)).len()).expect("completions are short")
    }

    fn schedule(&self) -> UnmaskSchedule<'a> {
        UnmaskSchedule::new(self.sampler, self.model.family)
    }

    fn blocks(&self, row: usize) -> Blocks {
        let prompt = self.trajectories.prompt(row);
        self.schedule().blocks(prompt.len() - padding(prompt))
    }

    /// Effective horizon of a row; 0 if it holds nothing but end-of-sequence.
    pub fn horizon(&self, row: usize) -> u32 {
        self.trajectories.horizon(row, self.eos())
    }

    /// The log-probability that the sampler recorded at a cell (row-major index), unless records are
    /// not to be used.
    pub fn recorded_logp(&self, cell: usize) -> Option<f64> {
        self.recorded.then(|| f64::from(self.trajectories.token_logps[cell]))
    }

    /// Positions of a row that step `step` wrote.
    pub fn written(&self, row: usize, step: u32) -> impl Iterator<Item = usize> {
        let steps = self.trajectories.steps(row).iter().enumerate();
        steps.filter(move |&(_, &at)| at == i64::from(step)).map(|(position, _)| position)
    }

    /// A row's prompt and completion before a step. A model that does not see what is behind a position, and wrote from left
    /// to right, has one state for all of a row's steps: the whole row, so that one pass gives its exact likelihood.
    pub(super) fn state(&self, row: usize, step: u32) -> Vec<i64> {
        let is_whole = self.model.is_causal() && self.sampler.block_tokens == 1;
        let step = if is_whole { i64::MAX } else { step.into() };
        self.trajectories.state(row, step, self.mask())
    }

    /// Positions that were masked before step `step` and stayed so, in the block that it wrote to.
    pub fn passed_over(&self, row: usize, step: u32) -> impl Iterator<Item = usize> {
        let block = self.block_of(row, step);
        let steps = self.trajectories.steps(row);
        block.filter(move |&position| steps[position] > i64::from(step))
    }

    /// Tokens up to and including the first end-of-sequence: the tokens that estimators without steps train on.
    pub fn content(&self, row: usize) -> usize {
        let tokens = self.trajectories.completion(row);
        let end = tokens.iter().position(|&token| token == self.eos());
        end.map_or(tokens.len(), |end| end + 1)
    }

    /// The block that a row's step wrote in.
    fn block_of(&self, row: usize, step: u32) -> Range<usize> {
        self.blocks(row).of(self.written(row, step).next().unwrap_or(0))
    }

    fn check_row(&self, row: usize) -> Result<()> {
        let (trajectories, sampler) = (self.trajectories, self.sampler);
        let refuse = |what: String| Err(data(format!("sample {row}: {what}")));
        let c = trajectories.completion_len;
        if c != sampler.completion_tokens as usize {
            let expected = sampler.completion_tokens;
            return refuse(format!("the completion has {c} tokens, expected {expected}"));
        }
        let is_id = |id: &&i64| !(0..self.model.embedding_size).contains(*id);
        let prompt = trajectories.prompt(row);
        let mut ids = prompt[padding(prompt)..].iter().chain(trajectories.completion(row));
        if let Some(id) = ids.find(is_id) {
            return refuse(format!("{id} is no token of the policy"));
        }
        // With a threshold, blocks take as many steps as their tokens need.
        let has_threshold = sampler.threshold.is_some();
        let plan = if has_threshold { vec![] } else { self.schedule().steps(self.blocks(row)) };
        let most = if has_threshold { sampler.steps as usize } else { plan.len() };
        let mut written = vec![0usize; most];
        for (position, &step) in trajectories.steps(row).iter().enumerate() {
            if step == NEVER {
                let (token, eos) = (trajectories.completion(row)[position], self.eos());
                if token != eos {
                    return refuse(format!(
                        "position {position} was never written, but holds {token}, expected {eos}"
                    ));
                }
                continue;
            }
            let known = u32::try_from(step).ok().filter(|&step| (step as usize) < most);
            let Some(step) = known else {
                let last = most.saturating_sub(1);
                return refuse(format!(
                    "position {position} has the step {step}, expected 0..={last}"
                ));
            };
            let planned = plan.get(step as usize).map(|(block, _)| block.clone());
            if !planned.unwrap_or_else(|| self.block_of(row, step)).contains(&position) {
                return refuse(format!("step {step} wrote position {position}, outside its block"));
            }
            written[step as usize] += 1;
            self.check_cell(row, position)?;
        }
        written.truncate(trajectories.sampled_steps(row) as usize);
        if has_threshold {
            return match written.iter().position(|&tokens| tokens == 0) {
                Some(step) => refuse(format!("step {step} wrote no token, expected 1 or more")),
                None => self.check_blocks(row),
            };
        }
        let mut all = written.iter().zip(&plan).enumerate();
        match all.find(|(_, (tokens, (_, expected)))| *tokens != expected) {
            Some((step, (tokens, (_, expected)))) => {
                refuse(format!("step {step} wrote {tokens} tokens, expected {expected}"))
            }
            None => check_end(row, written.len(), &plan),
        }
    }

    /// With a threshold, steps write any number of tokens: each block is written whole, by the steps after
    /// those of the block before it, or not at all.
    fn check_blocks(&self, row: usize) -> Result<()> {
        let mut next = 0;
        for (n, block) in self.blocks(row).all().enumerate() {
            let steps = &self.trajectories.steps(row)[block];
            let (first, last) = (steps.iter().min().copied(), steps.iter().max().copied());
            let (first, last) = (first.unwrap_or(NEVER), last.unwrap_or(NEVER));
            if (first, last) == (NEVER, NEVER) {
                next = i64::MAX;
            } else if first == next {
                next = last + 1;
            } else {
                return Err(data(format!(
                    "sample {row}: block {n} was written by the steps {first}..={last}, expected all of it, from the step after the block before it"
                )));
            }
        }
        Ok(())
    }

    fn check_cell(&self, row: usize, position: usize) -> Result<()> {
        let trajectories = self.trajectories;
        let cell = row * trajectories.completion_len + position;
        let token = trajectories.completion_ids[cell];
        let refuse = |what: String| Err(data(format!("sample {row}, position {position}: {what}")));
        if token == self.mask() {
            return refuse("the mask was written".to_owned());
        }
        let (logp, entropy) = (trajectories.token_logps[cell], trajectories.token_entropies[cell]);
        if !logp.is_finite() || !entropy.is_finite() || entropy < -1e-3 {
            return refuse(format!("log-probability {logp} and entropy {entropy} cannot be"));
        }
        let own = [token];
        let kept = trajectories.kept_at(cell).unwrap_or(&own);
        if !kept.contains(&token) {
            let size = kept.len();
            return refuse(format!(
                "the kept set of {size} tokens lacks the token {token} drawn from it"
            ));
        }
        match kept.iter().find(|id| !(0..self.model.embedding_size).contains(*id)) {
            Some(id) => refuse(format!("the kept id {id} is no token of the policy")),
            None => Ok(()),
        }
    }
}

/// A row stops early only at the end of a block: every position of a begun block is drawn.
fn check_end(row: usize, steps: usize, plan: &[(Range<usize>, usize)]) -> Result<()> {
    let is_inside = |last: usize| plan.get(steps).is_some_and(|(block, _)| *block == plan[last].0);
    if !steps.checked_sub(1).is_some_and(is_inside) {
        return Ok(());
    }
    let all = plan.len();
    Err(data(format!("sample {row} stopped after {steps} of {all} steps, inside a block")))
}

/// A count as a number to divide by.
pub(super) fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests;
