//! Forward passes of a block, and the tokens that rows write: passes over whole sequences, or over the window
//! that a cache leaves to be computed. The head is applied at the positions that were asked for alone.
//!
//! With a cache, the first pass of a block computes everything and keeps keys and values; the later ones compute a
//! window: the block, or everything from its start (`model/policy/cache.rs`). During a block a row writes only in it, so
//! its state determines the state that its keys were kept from: equal states have equal caches, and are computed once,
//! as they are without a cache. Its rows choose while the logits are in memory, one state after another.

use std::{collections::BTreeMap, ops::Range};

use agrpo_spec::{Cache, Sampler};
use tch::{Kind, Tensor, no_grad_guard};

use super::choice::Distribution;
use super::device::distributions;
use super::step::{Asked, Draws, Step, Written};
use crate::error::{Result, internal};
use crate::kernels::phases::{Phase, measured};
use crate::kernels::{self, memory};
use crate::model::{KeyValues, PADDING, Policy, Queries, Window};
use crate::tensors::{length, upload};

/// A state and the rows that are in it.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) ids: Vec<i64>,
    pub(super) rows: Vec<Asking>,
}

/// What a row asks of its state.
#[derive(Debug)]
pub(super) struct Asking {
    /// The row's number, by which the caller knows it.
    pub(super) row: usize,
    pub(super) draws: Draws,
    pub(super) asked: Asked,
}

impl State {
    /// The positions that its rows ask for, ascending.
    fn positions(&self) -> Vec<usize> {
        let mut all: Vec<usize> =
            self.rows.iter().flat_map(|row| row.asked.positions.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The numbers by which its rows may draw a token at a position.
    fn uniforms(&self, position: usize) -> Vec<f64> {
        let asks = |row: &&Asking| row.asked.positions.contains(&position);
        self.rows.iter().filter(asks).map(|row| row.draws.token(position)).collect()
    }
}

/// The passes over rows in one block; without a cache, each row may be in a block of its own.
pub(super) struct Passes<'a> {
    pub(super) policy: &'a Policy,
    pub(super) sampler: &'a Sampler,
    /// Places of the prompt, without those that no state has a token in and that are left out.
    pub(super) prompt_len: usize,
    /// How many these are.
    pub(super) skipped: usize,
    /// Positions of the completion: the block of all rows, where there is a cache.
    pub(super) block: Range<usize>,
}

/// Keys and values of the states in which rows began the block.
pub(super) struct Memory {
    all: KeyValues,
    /// The index of each in `all`.
    places: BTreeMap<Vec<i64>, i64>,
}

impl Passes<'_> {
    /// What each row writes, by its number. With a cache, `memory` is that of the block; the first
    /// pass, which fills it, has to bring all states in which rows begin.
    pub(super) fn compute(
        &self,
        states: &[State],
        step: &Step<'_>,
        memory: &mut Option<Memory>,
    ) -> Result<Vec<(usize, Vec<Written>)>> {
        let _no_grad = no_grad_guard();
        let positions: Vec<Vec<usize>> = states.iter().map(State::positions).collect();
        let logits_NV = self.logits(states, &positions, memory)?;
        let v = usize::try_from(self.policy.config().embedding_size).expect("sizes");
        let mask = usize::try_from(self.policy.config().mask_token_id).expect("ids");
        if kernels::compute(&logits_NV) {
            let mut logits = memory::numbers(&logits_NV).chunks(v);
            let next = || {
                let logits = logits.next().expect("one row for each position");
                Distribution::of_logits(logits, self.sampler, mask)
            };
            return measured(Phase::Choice, || self.choose(states, &positions, step, next));
        }
        let uniforms = states.iter().zip(&positions).flat_map(|(state, positions)| {
            positions.iter().map(|position| state.uniforms(*position))
        });
        let uniforms: Vec<Vec<f64>> = uniforms.collect();
        let all = distributions(logits_NV, self.sampler, mask, &uniforms)?;
        let mut all = all.into_iter();
        self.choose(states, &positions, step, || Ok(all.next().expect("one for each position")))
    }

    /// Takes the distributions of one state after another, and lets its rows write.
    fn choose<'l>(
        &self,
        states: &[State],
        positions: &[Vec<usize>],
        step: &Step<'_>,
        mut next: impl FnMut() -> Result<Distribution<'l>>,
    ) -> Result<Vec<(usize, Vec<Written>)>> {
        let mut all = vec![];
        for (state, positions) in states.iter().zip(positions) {
            let at: Result<BTreeMap<_, _>> =
                positions.iter().map(|&position| Ok((position, next()?))).collect();
            let at = at?;
            let write = |row: &Asking| (row.row, step.write(row.draws, &row.asked, &at));
            all.extend(state.rows.iter().map(write));
        }
        Ok(all)
    }

    /// Logits at the positions of each state, one after another, N x V, in f32 for the records, in whichever kind the
    /// policy computes.
    fn logits(
        &self,
        states: &[State],
        positions: &[Vec<usize>],
        memory: &mut Option<Memory>,
    ) -> Result<Tensor> {
        // States differ in their number of positions; the last query is repeated.
        let widest = positions.iter().map(Vec::len).max().unwrap_or(0);
        let (mut queries, mut asked) = (vec![], vec![]);
        for (n, positions) in positions.iter().enumerate() {
            let last = positions.last().copied().unwrap_or(self.block.start);
            let padded = positions.iter().copied().chain(std::iter::repeat(last)).take(widest);
            queries.extend(padded.map(|position| length(self.prompt_len + position)));
            asked.extend((0..positions.len()).map(|query| length(n * widest + query)));
        }
        let queries_BQ = matrix(&queries, states.len());
        let of_state = |state: &State| state.ids[self.skipped..].to_vec();
        let ids: Vec<i64> = states.iter().flat_map(of_state).collect();
        let ids_BL = matrix(&ids, states.len());
        let hidden_BQD = match (&*memory, self.sampler.cache) {
            (_, Cache::None) => return self.exact_logits(&ids_BL, &queries_BQ, &asked),
            (None, _) => {
                let (hidden, all) = self.policy.hidden_and_keep(&ids_BL, &queries_BQ)?;
                let places = states.iter().map(|state| state.ids.clone()).zip(0..).collect();
                *memory = Some(Memory { all, places });
                hidden
            }
            (Some(memory), cache) => self.hidden_in_window(states, &queries_BQ, memory, cache)?,
        };
        Ok(self.head(&hidden_BQD, &asked))
    }

    fn hidden_in_window(
        &self,
        states: &[State],
        queries_BQ: &Tensor,
        memory: &Memory,
        cache: Cache,
    ) -> Result<Tensor> {
        let first = self.prompt_len + self.block.start;
        let last = self.prompt_len + self.block.end;
        // The row before a block predicts its first token in families whose rows predict the next position.
        let start = first.saturating_sub(self.policy.config().rows_before());
        let mask = self.policy.config().mask_token_id;
        let (mut window, mut places) = (vec![], vec![]);
        for State { ids, .. } in states {
            let own = &ids[self.skipped..];
            let end = if cache == Cache::Dual { last } else { own.len() };
            window.extend_from_slice(&own[start..end]);
            let mut begun_in = ids.clone();
            begun_in[self.skipped..][first..last].fill(mask);
            let missing = || internal("a row did not begin its block with the others");
            places.push(*memory.places.get(&begun_in).ok_or_else(missing)?);
        }
        let ids_NW = matrix(&window, states.len());
        let kept_N = Tensor::from_slice(&places);
        let window = Window { ids_NW: &ids_NW, start: length(start), kept_N: &kept_N };
        self.policy.hidden_in_window(&window, queries_BQ, &memory.all)
    }

    /// Logits of passes over the whole sequence. Guidance w makes them u + (w + 1) (c - u), where c are
    /// the policy's own and u those it has when it cannot see the prompt (unsupervised classifier-free
    /// guidance; Nie et al., arXiv 2410.18514).
    fn exact_logits(&self, ids_BL: &Tensor, queries_BQ: &Tensor, asked: &[i64]) -> Result<Tensor> {
        let queries = Queries::At(queries_BQ.shallow_clone());
        let pass = |ids_BL: &Tensor| Ok(self.head(&self.policy.hidden(ids_BL, &queries)?, asked));
        let guidance = self.sampler.guidance.get();
        if guidance == 0.0 {
            return pass(ids_BL);
        }
        let blind_BL = ids_BL.copy();
        let mask = self.policy.config().mask_token_id;
        let mut prompt_BP = blind_BL.narrow(1, 0, length(self.prompt_len));
        drop(prompt_BP.masked_fill_(&prompt_BP.ne(PADDING), mask));
        let (seeing_NV, blind_NV) = (pass(ids_BL)?, pass(&blind_BL)?);
        Ok(&blind_NV + (seeing_NV - &blind_NV) * (guidance + 1.0))
    }

    /// The logits of the queries that were asked for, N x V.
    fn head(&self, hidden_BQD: &Tensor, asked: &[i64]) -> Tensor {
        let asked_N = upload(&Tensor::from_slice(asked), hidden_BQD.device());
        let hidden_ND = hidden_BQD.flatten(0, 1).index_select(0, &asked_N);
        self.policy.head(&hidden_ND).to_kind(Kind::Float).contiguous()
    }
}

/// On the host; the policy uploads it.
fn matrix(ids: &[i64], rows: usize) -> Tensor {
    Tensor::from_slice(ids).view([length(rows), -1])
}
