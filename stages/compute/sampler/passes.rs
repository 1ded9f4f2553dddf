//! From states to distributions: the forward passes of a block, over whole sequences or over the window
//! that a cache leaves to be computed. Draws nothing and writes nothing.
//!
//! With a cache, the first pass of a block computes everything and keeps keys and values; the later ones compute a
//! window: the block, or everything from its start (`model/llada/cache.rs`). During a block a row writes only in it, so
//! its state determines the state that its keys were kept from: equal states have equal caches, and are computed once,
//! as they are without a cache.

use std::{collections::BTreeMap, ops::Range};

use agrpo_spec::{Cache, Sampler};
use tch::{Kind, Tensor};

use super::choice::{entropy, kept_set};
use crate::error::{Result, internal, invalid};
use crate::model::{KeyValues, PADDING, Policy, Queries, Window};
use crate::tensors::{length, numbers};

/// The distribution at one masked position of a state.
pub(super) struct Distribution {
    /// In the completion.
    pub(super) position: usize,
    /// Tempered, filtered log-probabilities, V; -inf outside the kept set.
    pub(super) logps: Vec<f32>,
    pub(super) entropy: f64,
    pub(super) kept: Option<Vec<i64>>,
}

/// The passes of one block, for rows that go through it together.
pub(super) struct Passes<'a> {
    pub(super) policy: &'a Policy,
    pub(super) sampler: &'a Sampler,
    pub(super) prompt_len: usize,
    /// Positions of the completion.
    pub(super) block: Range<usize>,
    pub(super) micro_batch: usize,
    /// What the first pass kept.
    pub(super) kept: Option<Memory>,
}

/// One for each query.
type KeptSets = Vec<Vec<i64>>;

/// Keys and values of the states in which the rows began the block.
pub(super) struct Memory {
    all: KeyValues,
    /// The index of each in `all`.
    places: BTreeMap<Vec<i64>, i64>,
}

impl Passes<'_> {
    /// The distributions at every masked position of the block, for each state. With a cache, the first
    /// call has to bring all states in which rows begin, and no more than a micro-batch.
    pub(super) fn distributions(&mut self, states: &[Vec<i64>]) -> Result<Vec<Vec<Distribution>>> {
        let mut found = Vec::with_capacity(states.len());
        for states in states.chunks(self.micro_batch) {
            found.extend(self.pass(states)?);
        }
        Ok(found)
    }

    fn pass(&mut self, states: &[Vec<i64>]) -> Result<Vec<Vec<Distribution>>> {
        let masked: Vec<Vec<usize>> = states.iter().map(|state| self.masked(state)).collect();
        // With a threshold, states differ in their number of masked positions; the last query is repeated.
        let widest = masked.iter().map(Vec::len).max().unwrap_or(0);
        let (mut queries, mut asked) = (vec![], vec![]);
        for (n, positions) in masked.iter().enumerate() {
            let last = positions.last().copied().unwrap_or(self.block.start);
            let padded = positions.iter().copied().chain(std::iter::repeat(last)).take(widest);
            queries.extend(padded.map(|position| length(self.prompt_len + position)));
            asked.extend((0..positions.len()).map(|query| length(n * widest + query)));
        }
        let queries_BQ = self.matrix(&queries, states.len());
        let mut logits_NV = self.logits(states, &queries_BQ)?;
        if asked.len() < queries.len() {
            logits_NV = logits_NV
                .index_select(0, &Tensor::from_slice(&asked).to_device(logits_NV.device()));
        }
        let vocabulary = usize::try_from(self.policy.config().embedding_size).expect("sizes");
        let (kept, logps) = self.log_probabilities(&logits_NV, vocabulary)?;
        let (mut kept, mut logps) = (kept.map(Vec::into_iter), logps.chunks(vocabulary));
        let mut of_position = |position| {
            let logps = logps.next().expect("one row a query").to_vec();
            let kept = kept.as_mut().and_then(Iterator::next);
            Distribution { position, entropy: entropy(&logps), logps, kept }
        };
        let of_state = |masked: Vec<usize>| masked.into_iter().map(&mut of_position).collect();
        Ok(masked.into_iter().map(of_state).collect())
    }

    fn masked(&self, state: &[i64]) -> Vec<usize> {
        let mask = self.policy.config().mask_token_id;
        self.block.clone().filter(|&position| state[self.prompt_len + position] == mask).collect()
    }

    /// Logits of the queried positions, N x V, in f32 for the records, in whichever kind the policy computes.
    fn logits(&mut self, states: &[Vec<i64>], queries_BQ: &Tensor) -> Result<Tensor> {
        let ids_BL = self.matrix(&states.concat(), states.len());
        let hidden_BQD = match (&self.kept, self.sampler.cache) {
            (_, Cache::None) => return self.exact_logits(&ids_BL, queries_BQ),
            (None, _) => {
                let (hidden, all) = self.policy.hidden_and_keep(&ids_BL, queries_BQ)?;
                let places = states.iter().cloned().zip(0..).collect();
                self.kept = Some(Memory { all, places });
                hidden
            }
            (Some(memory), cache) => self.hidden_in_window(states, queries_BQ, memory, cache)?,
        };
        Ok(self.head(&hidden_BQD))
    }

    fn hidden_in_window(
        &self,
        states: &[Vec<i64>],
        queries_BQ: &Tensor,
        memory: &Memory,
        cache: Cache,
    ) -> Result<Tensor> {
        let first = self.prompt_len + self.block.start;
        let last = self.prompt_len + self.block.end;
        let mask = self.policy.config().mask_token_id;
        let (mut ids, mut places) = (vec![], vec![]);
        for state in states {
            let end = if cache == Cache::Dual { last } else { state.len() };
            ids.extend_from_slice(&state[first..end]);
            let mut begun_in = state.clone();
            begun_in[first..last].fill(mask);
            let missing = || internal("a row did not begin its block with the others");
            places.push(*memory.places.get(&begun_in).ok_or_else(missing)?);
        }
        let ids_NW = self.matrix(&ids, states.len());
        let kept_N = Tensor::from_slice(&places).to_device(self.policy.device());
        let window = Window { ids_NW: &ids_NW, start: length(first), kept_N: &kept_N };
        self.policy.hidden_in_window(&window, queries_BQ, &memory.all)
    }

    /// Logits of passes over the whole sequence. Guidance w makes them u + (w + 1) (c - u), where c are
    /// the policy's own and u those it has when it cannot see the prompt (unsupervised classifier-free
    /// guidance; Nie et al., arXiv 2410.18514).
    fn exact_logits(&self, ids_BL: &Tensor, queries_BQ: &Tensor) -> Result<Tensor> {
        let queries = Queries::At(queries_BQ.shallow_clone());
        let pass = |ids_BL: &Tensor| Ok(self.head(&self.policy.hidden(ids_BL, &queries)?));
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

    fn matrix(&self, ids: &[i64], rows: usize) -> Tensor {
        Tensor::from_slice(ids).view([length(rows), -1]).to_device(self.policy.device())
    }

    fn head(&self, hidden_BQD: &Tensor) -> Tensor {
        let v = self.policy.config().embedding_size;
        self.policy.head(hidden_BQD).view([-1, v]).to_kind(Kind::Float)
    }

    /// The N kept sets, where a filter is on, and the tempered, filtered log-probabilities, N x V row-major, by
    /// the same operations as the learner's. The mask is never written.
    fn log_probabilities(
        &self,
        logits_NV: &Tensor,
        vocabulary: usize,
    ) -> Result<(Option<KeptSets>, Vec<f32>)> {
        let temperature = self.sampler.temperature.get();
        if temperature == 0.0 {
            // Greedy decoding ranks positions by the raw distribution, as LLaDA's own code does.
            return Ok((None, values(&logits_NV.log_softmax(-1, Kind::Float))?));
        }
        let mut scaled_NV = logits_NV / temperature;
        let mask = self.policy.config().mask_token_id;
        drop(scaled_NV.narrow(1, mask, 1).fill_(f64::NEG_INFINITY));
        let mut sets = None;
        if is_filtered(self.sampler) {
            let values = values(&scaled_NV)?;
            let kept: Vec<_> =
                values.chunks(vocabulary).map(|row| kept_set(row, self.sampler)).collect();
            let mut dropped = vec![true; values.len()];
            for (n, set) in kept.iter().enumerate() {
                set.iter().for_each(|&v| dropped[n * vocabulary + v] = false);
            }
            let dropped =
                Tensor::from_slice(&dropped).to_device(scaled_NV.device()).view_as(&scaled_NV);
            scaled_NV = scaled_NV.masked_fill(&dropped, f64::NEG_INFINITY);
            sets =
                Some(kept.into_iter().map(|set| set.into_iter().map(length).collect()).collect());
        }
        Ok((sets, values(&scaled_NV.log_softmax(-1, Kind::Float))?))
    }
}

/// A tensor's values, row-major; refuses NaN, from which a token could be chosen by accident.
fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    let values: Vec<f32> = numbers(tensor)?;
    if values.iter().any(|value| value.is_nan()) {
        return Err(invalid(
            "the policy's logits are not numbers: training has diverged; lower the learning rate",
        ));
    }
    Ok(values)
}

/// Whether top-k or top-p drops tokens, and kept sets are recorded.
pub(super) fn is_filtered(sampler: &Sampler) -> bool {
    sampler.top_k > 0 || sampler.top_p.get() < 1.0
}
