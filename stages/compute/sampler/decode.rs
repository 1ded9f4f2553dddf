//! The unmasking loop: blocks from left to right, each step by step. `passes.rs` computes a step, equal states once;
//! `step.rs` says what a row writes in it.
//!
//! Rows begin their n-th blocks together. Where blocks are counted from the prompt, these differ from row to row, and with a
//! threshold rows need different numbers of steps. Each row counts its own steps, one for each pass over
//! it, so they are the same in any batch. Every pass writes a token: a block that its first pass
//! completes costs one pass, with a cache or without. States of a step are computed side by side; with a cache, rows
//! that share no keys and values are. Neither changes a byte. In half precision a pass takes states of one length, so that
//! nothing is padded.

use std::{collections::BTreeMap, ops::Range};

use agrpo_spec::{BlocksFrom, Cache, EndsAfter, Message, Sampler, Seed};

use super::kept::is_filtered;
use super::passes::{Asking, Passes, State};
use super::step::{Draws, Step, Written};
use crate::blocks::{Blocks, UnmaskSchedule};
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
    let schedule = UnmaskSchedule::new(sampler, policy.config().family);
    check_cache(&schedule)?;
    let prompts = rows.iter().flat_map(|row| row.prompt.iter().copied()).collect();
    let completion_len = sampler.completion_tokens as usize;
    let mask = policy.config().mask_token_id;
    let all = Trajectories::masked(prompts, rows.len(), completion_len, mask);
    let kept = is_filtered(sampler).then(|| vec![vec![]; rows.len() * completion_len]);
    let draws = rows.iter().map(|row| Draws { seed: row.seed, step: 0 }).collect();
    let blocks = rows.iter().map(|row| schedule.blocks(row.prompt.len() - padding(&row.prompt)));
    let blocks = blocks.collect();
    let decoding = Decoding {
        schedule,
        prompt_len: all.prompt_len,
        mask,
        micro_batch: micro_batch.max(1),
        may_pad: policy.pads(),
    };
    let mut decoder = Decoder { policy, threads, decoding, all, kept, blocks, draws };
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

/// A cache keeps what lies beside one block of all rows.
fn check_cache(schedule: &UnmaskSchedule<'_>) -> Result<()> {
    let cache = schedule.sampler.cache;
    if cache == Cache::None || schedule.conventions.blocks_from == BlocksFrom::Completion {
        return Ok(());
    }
    Err(invalid(format!(
        "sampler.cache = \"{cache}\": expected \"none\": the policy's blocks are counted from the prompt's first token"
    )))
}

struct Decoder<'a> {
    policy: &'a Policy,
    threads: &'a Threads,
    decoding: Decoding<'a>,
    all: Trajectories,
    /// One set a cell, where a filter is on.
    kept: Option<Vec<Vec<i64>>>,
    /// Of each row.
    blocks: Vec<Blocks>,
    /// Of each row at its next step.
    draws: Vec<Draws>,
}

/// What decoding is for all blocks and rows.
struct Decoding<'a> {
    schedule: UnmaskSchedule<'a>,
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
    /// Positions of the completion.
    block: Range<usize>,
    /// Prompt and completion.
    ids: Vec<i64>,
    draws: Draws,
    /// With the step that wrote.
    written: Vec<(u32, Written)>,
}

impl Decoder<'_> {
    fn run(&mut self) -> Result<()> {
        let mut live: Vec<usize> = (0..self.draws.len()).collect();
        for n in 0.. {
            if n > 0 {
                self.finish_rows(&mut live, n - 1);
            }
            let open: Vec<Open> = live.iter().filter_map(|&row| self.open(row, n)).collect();
            if open.is_empty() {
                break;
            }
            self.block(open)?;
        }
        Ok(())
    }

    /// Rows that end with their block of this number are finished: the rest is filled, not sampled.
    fn finish_rows(&mut self, live: &mut Vec<usize>, n: usize) {
        let eos = self.policy.config().eos_token_id;
        let c = self.all.completion_len;
        let ends_after = self.decoding.schedule.conventions.ends_after;
        live.retain(|&row| {
            let Some(block) = self.blocks[row].get(n) else { return false };
            let completion = &mut self.all.completion_ids[row * c..(row + 1) * c];
            let mut is_end = completion[block.clone()].iter().map(|&token| token == eos);
            let done = match ends_after {
                EndsAfter::BlockOfEnds => is_end.all(|is_end| is_end),
                EndsAfter::AnyEnd => is_end.any(|is_end| is_end),
            };
            if done {
                completion[block.end..].fill(eos);
            }
            !done
        });
    }

    /// The row at the start of its block of this number; `None` behind its last one.
    fn open(&self, row: usize, n: usize) -> Option<Open> {
        let block = self.blocks[row].get(n)?;
        let ids = self.all.prompt(row).iter().chain(self.all.completion(row)).copied().collect();
        Some(Open { row, block, ids, draws: self.draws[row], written: vec![] })
    }

    /// All steps of a block.
    fn block(&mut self, mut open: Vec<Open>) -> Result<()> {
        let decoding = &self.decoding;
        if decoding.schedule.sampler.cache == Cache::None {
            decoding.block(&mut open, |states, step| {
                let share = self.share(states.len());
                let one_length =
                    states.chunk_by(|a, b| decoding.skipped(&a.ids) == decoding.skipped(&b.ids));
                let parts: Vec<&[State]> =
                    one_length.flat_map(|states| states.chunks(share)).collect();
                self.side_by_side(parts.len(), |policy, part| {
                    let passes = decoding.passes(policy, 0..0, &parts[part][0].ids);
                    passes.compute(parts[part], step, &mut None)
                })
            })?;
        } else {
            let parties = self.parties(open);
            open = self.side_by_side(parties.len(), |policy, party| {
                let mut open = parties[party].clone();
                let passes = decoding.passes(policy, open[0].block.clone(), &open[0].ids);
                let mut memory = None;
                decoding.block(&mut open, |states, step| {
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
    fn passes<'p>(&'p self, policy: &'p Policy, block: Range<usize>, state: &[i64]) -> Passes<'p> {
        let skipped = self.skipped(state);
        let prompt_len = self.prompt_len - skipped;
        Passes { policy, sampler: self.schedule.sampler, prompt_len, skipped, block }
    }

    /// How many places of a state, which have no token, a pass leaves out.
    fn skipped(&self, state: &[i64]) -> usize {
        if self.may_pad { 0 } else { padding(state) }
    }

    /// All steps of a block, of rows that begin theirs together; a row that has completed it waits. `compute` says what the
    /// rows of states write, by the places of the rows in `open`.
    fn block(
        &self,
        open: &mut [Open],
        mut compute: impl FnMut(&[State], &Step<'_>) -> Result<Vec<(usize, Vec<Written>)>>,
    ) -> Result<()> {
        let longest = open.iter().map(|row| row.block.len()).max().unwrap_or(0);
        // With a threshold a step writes a token or more; without one, the steps of a block write all of it.
        for number in 0..longest.max(self.schedule.steps_of_block()) {
            let step = Step { schedule: self.schedule, number };
            let states = self.states(open, &step);
            if states.is_empty() {
                continue;
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

    /// The states of the rows that write in the step: in order of first appearance, those of one length one after another.
    fn states(&self, open: &[Open], step: &Step<'_>) -> Vec<State> {
        let mut distinct = Distinct::default();
        let mut states: Vec<State> = vec![];
        for (place, row) in open.iter().enumerate() {
            let is_masked = |position: &usize| row.ids[self.prompt_len + position] == self.mask;
            let masked: Vec<usize> = row.block.clone().filter(is_masked).collect();
            let Some(asked) = step.asked(row.draws, &masked) else { continue };
            let number = distinct.number(row.ids.clone());
            if number == states.len() {
                states.push(State { ids: row.ids.clone(), rows: vec![] });
            }
            states[number].rows.push(Asking { row: place, draws: row.draws, asked });
        }
        states.sort_by_key(|state| self.skipped(&state.ids));
        states
    }
}

#[cfg(test)]
mod tests;
