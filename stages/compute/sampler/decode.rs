//! The unmasking loop: blocks from left to right, each step by step. `passes.rs` computes a step, equal states once;
//! `step.rs` says what a row writes in it.
//!
//! With a threshold, rows need different numbers of steps. Each row counts its own steps, one for each pass over
//! it, so they are the same in any batch. Every pass writes a token: a block that its first pass
//! completes costs one pass, with a cache or without. States of a step are computed side by side; with a cache, rows
//! that share no keys and values are. Neither changes a byte. In half precision a pass takes states of one length, so that
//! nothing is padded.

use std::{collections::BTreeMap, ops::Range};

use agrpo_spec::{Cache, Message, Sampler, Seed};

use super::kept::is_filtered;
use super::passes::{Asking, Passes, State};
use super::step::{Draws, Step, Written};
use crate::error::{Result, invalid};
use crate::model::{Policy, padding};
use crate::threads::Threads;
use crate::trajectories::{KeptSets, Trajectories};
use crate::{dedup::Distinct, tensors::length};

/// One completion to sample.
#[derive(Clone, Debug)]
pub struct Row {
    /// The prompt's ids.
    pub prompt: Vec<i64>,
    /// The completion's own seed; greedy decoding in an order that draws nothing needs none.
    pub seed: Seed,
}

/// Samples a completion for every row; a forward pass takes up to `micro_batch` distinct states, on each of the
/// threads. All prompts have one length, the shorter ones by [`crate::model::PADDING`] on their left. Forward passes of
/// a row are its [`Trajectories::sampled_steps`].
pub fn sample(
    policy: &Policy,
    rows: &[Row],
    sampler: &Sampler,
    micro_batch: usize,
    threads: &Threads,
) -> Result<Trajectories> {
    sampler.check("sampler").map_err(|error| invalid(Message::of(error)))?;
    let prompts = rows.iter().flat_map(|row| row.prompt.iter().copied()).collect();
    let completion_len = sampler.completion_tokens as usize;
    let mask = policy.config().mask_token_id;
    let all = Trajectories::masked(prompts, rows.len(), completion_len, mask);
    let kept = is_filtered(sampler).then(|| vec![vec![]; rows.len() * completion_len]);
    let draws = rows.iter().map(|row| Draws { seed: row.seed, step: 0 }).collect();
    let decoding = Decoding {
        sampler,
        prompt_len: all.prompt_len,
        mask,
        micro_batch: micro_batch.max(1),
        may_pad: policy.pads(),
    };
    let mut decoder = Decoder { policy, threads, decoding, all, kept, draws };
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
    threads: &'a Threads,
    decoding: Decoding<'a>,
    all: Trajectories,
    /// One set a cell, where a filter is on.
    kept: Option<Vec<Vec<i64>>>,
    /// Of each row at its next step.
    draws: Vec<Draws>,
}

/// What decoding is for all blocks and rows.
struct Decoding<'a> {
    sampler: &'a Sampler,
    prompt_len: usize,
    mask: i64,
    micro_batch: usize,
    /// Whether states of several lengths share a pass.
    may_pad: bool,
}

/// A row in a block.
#[derive(Clone)]
struct Open {
    row: usize,
    /// Prompt and completion.
    ids: Vec<i64>,
    draws: Draws,
    /// With the step that wrote.
    written: Vec<(u32, Written)>,
}

impl Decoder<'_> {
    fn run(&mut self) -> Result<()> {
        let block_len = self.decoding.sampler.block_tokens as usize;
        let mut live: Vec<usize> = (0..self.draws.len()).collect();
        for block in 0..self.all.completion_len / block_len {
            let first = block * block_len;
            if block > 0 {
                self.finish_rows(&mut live, first, block_len);
            }
            let open = live.iter().map(|&row| self.open(row)).collect();
            self.block(open, &(first..first + block_len))?;
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

    fn open(&self, row: usize) -> Open {
        let ids = self.all.prompt(row).iter().chain(self.all.completion(row)).copied().collect();
        Open { row, ids, draws: self.draws[row], written: vec![] }
    }

    /// All steps of a block.
    fn block(&mut self, mut open: Vec<Open>, block: &Range<usize>) -> Result<()> {
        let decoding = &self.decoding;
        if decoding.sampler.cache == Cache::None {
            decoding.block(&mut open, block, |states, step| {
                let share = self.share(states.len());
                let one_length =
                    states.chunk_by(|a, b| decoding.skipped(&a.ids) == decoding.skipped(&b.ids));
                let parts: Vec<&[State]> =
                    one_length.flat_map(|states| states.chunks(share)).collect();
                self.side_by_side(parts.len(), |policy, part| {
                    let passes = decoding.passes(policy, block, &parts[part][0].ids);
                    passes.compute(parts[part], step, &mut None)
                })
            })?;
        } else {
            let parties = self.parties(open);
            open = self.side_by_side(parties.len(), |policy, party| {
                let mut open = parties[party].clone();
                let passes = decoding.passes(policy, block, &open[0].ids);
                let mut memory = None;
                decoding.block(&mut open, block, |states, step| {
                    let mut all = vec![];
                    for states in states.chunks(decoding.micro_batch) {
                        all.extend(passes.compute(states, step, &mut memory)?);
                    }
                    Ok(all)
                })?;
                Ok(open)
            })?;
        }
        open.into_iter().for_each(|row| self.record(row));
        Ok(())
    }

    /// What `compute` finds for each part, on the threads that are free, in the order of the parts.
    fn side_by_side<T: Send>(
        &self,
        parts: usize,
        compute: impl Fn(&Policy, usize) -> Result<Vec<T>> + Sync,
    ) -> Result<Vec<T>> {
        let mut all = vec![];
        let compute = |policy: &mut Policy, part| compute(policy, part);
        let join = |_, found| {
            all.extend::<Vec<T>>(found);
            Ok(())
        };
        self.threads.in_order(parts, || self.policy.handles(), compute, join)?;
        Ok(all)
    }

    /// How many of so many states a pass takes: a micro-batch, or fewer if that leaves a thread without any.
    fn share(&self, states: usize) -> usize {
        self.decoding.micro_batch.min(states.div_ceil(self.threads.count().get())).max(1)
    }

    /// The groups of rows that share the keys and values of one pass: those that begin the block in its states.
    fn parties(&self, open: Vec<Open>) -> Vec<Vec<Open>> {
        let mut distinct = Distinct::default();
        let numbers: Vec<usize> = open.iter().map(|row| distinct.number(row.ids.clone())).collect();
        let share = self.share(distinct.all().len());
        // By length, then in order of first appearance.
        let mut places = BTreeMap::<usize, Distinct<usize>>::new();
        let mut parties = BTreeMap::<(usize, usize), Vec<Open>>::new();
        for (row, number) in open.into_iter().zip(numbers) {
            let skipped = self.decoding.skipped(&row.ids);
            let place = places.entry(skipped).or_default().number(number);
            parties.entry((skipped, place / share)).or_default().push(row);
        }
        parties.into_values().collect()
    }

    /// Enters what a row wrote in a block.
    fn record(&mut self, open: Open) {
        self.draws[open.row] = open.draws;
        for (step, written) in open.written {
            let cell = open.row * self.all.completion_len + written.position;
            self.all.completion_ids[cell] = written.token;
            self.all.unmask_steps[cell] = i64::from(step);
            self.all.token_logps[cell] = written.logp;
            self.all.token_entropies[cell] = written.entropy;
            if let Some(sets) = self.kept.as_mut() {
                sets[cell] = written.kept;
            }
        }
    }
}

impl Decoding<'_> {
    /// Passes over states of this state's length.
    fn passes<'p>(
        &'p self,
        policy: &'p Policy,
        block: &'p Range<usize>,
        state: &[i64],
    ) -> Passes<'p> {
        let skipped = self.skipped(state);
        let prompt_len = self.prompt_len - skipped;
        Passes { policy, sampler: self.sampler, prompt_len, skipped, block }
    }

    /// How many places of a state, which have no token, a pass leaves out.
    fn skipped(&self, state: &[i64]) -> usize {
        if self.may_pad { 0 } else { padding(state) }
    }

    /// All steps of a block, of rows that begin it together; a row that has completed it waits. `compute` says what the
    /// rows of states write, by the places of the rows in `open`.
    fn block(
        &self,
        open: &mut [Open],
        block: &Range<usize>,
        mut compute: impl FnMut(&[State], &Step<'_>) -> Result<Vec<(usize, Vec<Written>)>>,
    ) -> Result<()> {
        // A step writes a token or more.
        for step_of_block in 0..block.len() {
            let step = Step::new(self.sampler, step_of_block);
            let states = self.states(open, block, &step);
            if states.is_empty() {
                break;
            }
            for (place, written) in compute(&states, &step)? {
                let row = &mut open[place];
                for token in &written {
                    row.ids[self.prompt_len + token.position] = token.token;
                }
                let at = row.draws.step;
                row.written.extend(written.into_iter().map(|token| (at, token)));
                row.draws.step += 1;
            }
        }
        Ok(())
    }

    /// The states of the rows that have masked positions in the block: in order of first appearance, those of one length
    /// one after another.
    fn states(&self, open: &[Open], block: &Range<usize>, step: &Step<'_>) -> Vec<State> {
        let mut distinct = Distinct::default();
        let mut states: Vec<State> = vec![];
        for (place, row) in open.iter().enumerate() {
            let is_masked = |position: &usize| row.ids[self.prompt_len + position] == self.mask;
            let masked: Vec<usize> = block.clone().filter(is_masked).collect();
            if masked.is_empty() {
                continue;
            }
            let number = distinct.number(row.ids.clone());
            if number == states.len() {
                states.push(State { ids: row.ids.clone(), rows: vec![] });
            }
            let positions = step.asked(row.draws, &masked);
            states[number].rows.push(Asking { row: place, draws: row.draws, positions });
        }
        states.sort_by_key(|state| self.skipped(&state.ids));
        states
    }
}

#[cfg(test)]
mod tests;
