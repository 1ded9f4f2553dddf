//! The unmasking loop: blocks from left to right, each step by step. `passes.rs` computes the distributions of
//! a state, equal states once.
//!
//! Without a threshold a step writes a fixed number of tokens. With one (Fast-dLLM's parallel decoding,
//! Wu et al., arXiv 2505.22618) it writes the most probable token, and every other that is at least so
//! probable: rows then need different numbers of steps. Each row counts its own steps, one for each pass over
//! it, so they are the same in any batch. Makes no pass that could write nothing: a block that its first pass
//! completes costs one pass, with a cache or without.

use std::ops::Range;

use agrpo_spec::{Cache, Message, PositionRule, Purpose, Sampler, Seed};
use tch::no_grad_guard;

use super::choice::{argmax, draw};
use super::passes::{Distribution, Passes, is_filtered};
use crate::error::{Result, invalid};
use crate::trajectories::{KeptSets, Trajectories};
use crate::{dedup::Distinct, model::Policy, tensors::length};

/// One completion to sample.
#[derive(Clone, Debug)]
pub struct Row {
    /// The prompt's ids.
    pub prompt: Vec<i64>,
    /// The completion's own seed; greedy decoding in an order that draws nothing needs none.
    pub seed: Seed,
}

/// The decision for one masked position of a row.
struct Candidate<'a> {
    at: &'a Distribution,
    token: usize,
    score: f64,
}

/// Samples a completion for every row; a forward pass takes up to `micro_batch` distinct states. All
/// prompts have one length, the shorter ones by [`crate::model::PADDING`] on their left. Forward passes of
/// a row are its [`Trajectories::sampled_steps`].
pub fn sample(
    policy: &Policy,
    rows: &[Row],
    sampler: &Sampler,
    micro_batch: usize,
) -> Result<Trajectories> {
    sampler.check("sampler").map_err(|error| invalid(Message::of(error)))?;
    let _no_grad = no_grad_guard();
    let prompts = rows.iter().flat_map(|row| row.prompt.iter().copied()).collect();
    let completion_len = sampler.completion_tokens as usize;
    let mask = policy.config().mask_token_id;
    let all = Trajectories::masked(prompts, rows.len(), completion_len, mask);
    let kept = is_filtered(sampler).then(|| vec![vec![]; rows.len() * completion_len]);
    let (micro_batch, steps) = (micro_batch.max(1), vec![0; rows.len()]);
    let mut decoder = Decoder { policy, sampler, rows, micro_batch, all, kept, steps };
    decoder.run()?;
    let Decoder { mut all, kept, .. } = decoder;
    all.kept = kept.map(|sets| {
        let mut offsets = vec![0];
        let mut ids = vec![];
        for set in sets {
            ids.extend(set);
            offsets.push(length(ids.len()));
        }
        KeptSets { offsets, ids }
    });
    Ok(all)
}

struct Decoder<'a> {
    policy: &'a Policy,
    sampler: &'a Sampler,
    rows: &'a [Row],
    micro_batch: usize,
    all: Trajectories,
    /// One set a cell, where a filter is on.
    kept: Option<Vec<Vec<i64>>>,
    steps: Vec<u32>,
}

impl Decoder<'_> {
    fn run(&mut self) -> Result<()> {
        let block_len = self.sampler.block_tokens as usize;
        let mut live: Vec<usize> = (0..self.rows.len()).collect();
        for block in 0..self.all.completion_len / block_len {
            let first = block * block_len;
            if block > 0 {
                self.finish_rows(&mut live, first, block_len);
            }
            for rows in self.parties(&live) {
                self.block(rows, first..first + block_len)?;
            }
        }
        Ok(())
    }

    /// Rows whose previous block is all end-of-sequence are finished: the rest is filled, not sampled.
    fn finish_rows(&mut self, live: &mut Vec<usize>, first: usize, block_len: usize) {
        let eos = self.policy.config().eos_token_id;
        let c = self.all.completion_len;
        let ids = &mut self.all.completion_ids;
        live.retain(|&row| {
            let completion = &mut ids[row * c..(row + 1) * c];
            let done = completion[first - block_len..first].iter().all(|&token| token == eos);
            if done {
                completion[first..].fill(eos);
            }
            !done
        });
    }

    /// The groups of rows that go through a block together: all rows; with a cache, which holds the keys and values of
    /// one pass, the rows that begin the block in one micro-batch of states.
    fn parties(&self, live: &[usize]) -> Vec<Vec<usize>> {
        if self.sampler.cache == Cache::None {
            return vec![live.to_vec()];
        }
        let mut distinct = Distinct::default();
        let mut parties = vec![];
        for &row in live {
            let party = distinct.number(self.state(row)) / self.micro_batch;
            parties.resize(parties.len().max(party + 1), vec![]);
            parties[party].push(row);
        }
        parties
    }

    /// All steps of a block, of rows that begin it together; a row that has completed it waits.
    fn block(&mut self, mut open: Vec<usize>, block: Range<usize>) -> Result<()> {
        let mut passes = Passes {
            policy: self.policy,
            sampler: self.sampler,
            prompt_len: self.all.prompt_len,
            block: block.clone(),
            micro_batch: self.micro_batch,
            kept: None,
        };
        let mask = self.policy.config().mask_token_id;
        // A step writes a token or more.
        for step_of_block in 0..block.len() {
            open.retain(|&row| self.all.completion(row)[block.clone()].contains(&mask));
            if open.is_empty() {
                break;
            }
            let mut distinct = Distinct::default();
            let numbers: Vec<usize> =
                open.iter().map(|&row| distinct.number(self.state(row))).collect();
            let distributions = passes.distributions(distinct.all())?;
            for (&row, &number) in open.iter().zip(&numbers) {
                self.write_best(row, &distributions[number], step_of_block);
                self.steps[row] += 1;
            }
        }
        Ok(())
    }

    fn state(&self, row: usize) -> Vec<i64> {
        self.all.prompt(row).iter().chain(self.all.completion(row)).copied().collect()
    }

    /// How many of the candidates, best first, a step of a block writes.
    fn count(&self, candidates: &[Candidate<'_>], step_of_block: usize) -> usize {
        if let Some(threshold) = self.sampler.threshold {
            let is_sure = |c: &&Candidate<'_>| libm::exp(c.score) >= threshold.get();
            return candidates.iter().take_while(is_sure).count().max(1);
        }
        let block_len = self.sampler.block_tokens as usize;
        let blocks = self.all.completion_len / block_len;
        let steps_per_block = (self.sampler.steps as usize / blocks).max(1);
        // The remainder goes to the first steps, as in LLaDA's own code.
        let uneven = usize::from(step_of_block < block_len % steps_per_block);
        (block_len / steps_per_block + uneven).min(candidates.len())
    }

    /// Draws a token for every masked position of the row, and writes those with the highest scores;
    /// ties go to the left.
    fn write_best(&mut self, row: usize, state: &[Distribution], step_of_block: usize) {
        let step = self.steps[row];
        let mut candidates: Vec<_> = state.iter().map(|at| self.decide(row, at, step)).collect();
        candidates
            .sort_by(|a, b| b.score.total_cmp(&a.score).then(a.at.position.cmp(&b.at.position)));
        let count = self.count(&candidates, step_of_block);
        for candidate in &candidates[..count] {
            let cell = row * self.all.completion_len + candidate.at.position;
            self.all.completion_ids[cell] = length(candidate.token);
            self.all.unmask_steps[cell] = i64::from(step);
            self.all.token_logps[cell] = candidate.at.logps[candidate.token];
            #[expect(clippy::cast_possible_truncation, reason = "entropies are recorded as f32")]
            let entropy = candidate.at.entropy as f32;
            self.all.token_entropies[cell] = entropy;
            if let (Some(sets), Some(kept)) = (self.kept.as_mut(), &candidate.at.kept) {
                sets[cell].clone_from(kept);
            }
        }
    }

    fn decide<'d>(&self, row: usize, at: &'d Distribution, step: u32) -> Candidate<'d> {
        let position = u32::try_from(at.position).expect("completions are short");
        let uniform = |purpose| self.rows[row].seed.child(purpose, 0).uniform(step, position);
        let token = if self.sampler.temperature.get() == 0.0 {
            argmax(&at.logps, self.policy.config().mask_token_id)
        } else {
            draw(&at.logps, uniform(Purpose::Token))
        };
        let score = match self.sampler.position {
            PositionRule::Random => uniform(Purpose::Position),
            PositionRule::LowConfidence => f64::from(at.logps[token]),
            PositionRule::Entropy => -at.entropy,
        };
        Candidate { at, token, score }
    }
}

#[cfg(test)]
mod tests;
