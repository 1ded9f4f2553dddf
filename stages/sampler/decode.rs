//! The unmasking loop: all rows step by step, equal states computed once.

use agrpo_spec::{PositionRule, Purpose, Sampler, Seed, StageError};
use tch::{Kind, Tensor, no_grad_guard};

use super::choice::{argmax, draw, entropy, kept_set};
use crate::model::{PADDING, Policy, Queries};
use crate::states::DistinctStates;
use crate::tensor_file::floats;
use crate::trajectories::{KeptSets, Trajectories};

/// One completion to sample.
#[derive(Clone, Debug)]
pub struct Row {
    /// The prompt's ids.
    pub prompt: Vec<i64>,
    /// The completion's own seed; greedy decoding in an order that draws nothing needs none.
    pub seed: Seed,
}

/// The distribution at one masked position of a state.
struct Distribution {
    position: usize,
    /// Tempered, filtered log-probabilities, V; -inf outside the kept set.
    logps: Vec<f32>,
    entropy: f64,
    kept: Option<Vec<i64>>,
}

/// The same for N queries at once.
struct LogProbabilities {
    /// N kept sets, where a filter is on.
    kept: Option<Vec<Vec<i64>>>,
    /// N x V, row-major.
    logps: Vec<f32>,
}

/// What was decided for one masked position of a row.
struct Candidate<'a> {
    at: &'a Distribution,
    token: usize,
    score: f64,
}

/// Samples a completion for every row; a forward pass takes up to `micro_batch` distinct states. All
/// prompts have one length, the shorter ones by [`PADDING`] on their left.
pub fn sample(
    policy: &Policy,
    rows: &[Row],
    sampler: &Sampler,
    micro_batch: usize,
) -> Result<Trajectories, StageError> {
    let _no_grad = no_grad_guard();
    let prompts = rows.iter().flat_map(|row| row.prompt.iter().copied()).collect();
    let completion_len = sampler.completion_tokens as usize;
    let mask = policy.config().mask_token_id;
    let all = Trajectories::masked(prompts, rows.len(), completion_len, mask);
    let filtered = sampler.top_k > 0 || sampler.top_p.get() < 1.0;
    let kept = filtered.then(|| vec![vec![]; rows.len() * completion_len]);
    let micro_batch = micro_batch.max(1);
    let mut decoder = Decoder { policy, sampler, rows, micro_batch, all, kept };
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
}

impl Decoder<'_> {
    fn run(&mut self) -> Result<(), StageError> {
        let block_len = self.sampler.block_tokens as usize;
        let blocks = self.all.completion_len / block_len;
        let steps_per_block = self.sampler.steps as usize / blocks;
        let mut live: Vec<usize> = (0..self.rows.len()).collect();
        let mut step = 0u32;
        for block in 0..blocks {
            let first = block * block_len;
            if block > 0 {
                self.finish_rows(&mut live, first, block_len);
            }
            for step_of_block in 0..steps_per_block {
                // What does not share out evenly goes to the first steps, as in LLaDA's own code.
                let uneven = usize::from(step_of_block < block_len % steps_per_block);
                let per_step = block_len / steps_per_block + uneven;
                self.step(&live, first..first + block_len, per_step, step)?;
                step += 1;
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

    /// One step of every live row.
    fn step(
        &mut self,
        live: &[usize],
        block: std::ops::Range<usize>,
        per_step: usize,
        step: u32,
    ) -> Result<(), StageError> {
        let mut distinct = DistinctStates::default();
        let numbers: Vec<usize> = live
            .iter()
            .map(|&row| {
                let prompt = self.all.prompt(row).iter();
                distinct.number(prompt.chain(self.all.completion(row)).copied().collect())
            })
            .collect();
        let mask = self.policy.config().mask_token_id;
        let mut distributions = Vec::with_capacity(distinct.states().len());
        for states in distinct.states().chunks(self.micro_batch) {
            distributions.extend(self.distributions(states, &block, mask)?);
        }
        for (&row, &number) in live.iter().zip(&numbers) {
            self.write_best(row, &distributions[number], per_step, step);
        }
        Ok(())
    }

    /// The distributions at every masked position of the block, for each state. Every state of a
    /// step has equally many.
    fn distributions(
        &self,
        states: &[Vec<i64>],
        block: &std::ops::Range<usize>,
        mask: i64,
    ) -> Result<Vec<Vec<Distribution>>, StageError> {
        let p = self.all.prompt_len;
        let (mut queries, mut positions) = (vec![], vec![]);
        for state in states {
            let masked = block.clone().filter(|&position| state[p + position] == mask);
            let masked: Vec<usize> = masked.collect();
            queries.extend(masked.iter().map(|&position| length(p + position)));
            positions.push(masked);
        }
        let ids_BL = Tensor::from_slice(&states.concat()).view([length(states.len()), -1]);
        let queries_BQ = Tensor::from_slice(&queries).view([length(states.len()), -1]);
        let logits_NV = self.logits(&ids_BL, &Queries::At(&queries_BQ))?;
        let vocabulary = self.policy.config().embedding_size;
        let vocabulary = usize::try_from(vocabulary).expect("sizes are positive");
        let all = self.log_probabilities(&logits_NV, vocabulary)?;
        let (mut kept, mut logps) = (all.kept.map(Vec::into_iter), all.logps.chunks(vocabulary));
        let mut of_position = |position| {
            let logps = logps.next().expect("one row a query").to_vec();
            let kept = kept.as_mut().and_then(Iterator::next);
            Distribution { position, entropy: entropy(&logps), logps, kept }
        };
        let of_state = |masked: Vec<usize>| masked.into_iter().map(&mut of_position).collect();
        Ok(positions.into_iter().map(of_state).collect())
    }

    /// Logits of the queried positions, N x V. Guidance w makes them u + (w + 1) (c - u), where c are
    /// the policy's own and u those it has when it cannot see the prompt (unsupervised classifier-free
    /// guidance; Nie et al., arXiv 2410.18514).
    fn logits(&self, ids_BL: &Tensor, queries: &Queries<'_>) -> Result<Tensor, StageError> {
        let v = self.policy.config().embedding_size;
        let pass = |ids_BL: &Tensor| {
            let hidden_BQD = self.policy.hidden(ids_BL, queries)?;
            // What is recorded is f32, whatever the policy computes in.
            Ok(self.policy.head(&hidden_BQD).view([-1, v]).to_kind(Kind::Float))
        };
        let guidance = self.sampler.guidance.get();
        if guidance == 0.0 {
            return pass(ids_BL);
        }
        let blind_BL = ids_BL.copy();
        let mask = self.policy.config().mask_token_id;
        let mut prompt_BP = blind_BL.narrow(1, 0, length(self.all.prompt_len));
        drop(prompt_BP.masked_fill_(&prompt_BP.ne(PADDING), mask));
        let (seeing_NV, blind_NV) = (pass(ids_BL)?, pass(&blind_BL)?);
        Ok(&blind_NV + (seeing_NV - &blind_NV) * (guidance + 1.0))
    }

    /// Tempered, filtered log-probabilities, N x V, by the same operations as the learner's; with
    /// the kept sets where a filter is on. The mask is never written.
    fn log_probabilities(
        &self,
        logits_NV: &Tensor,
        vocabulary: usize,
    ) -> Result<LogProbabilities, StageError> {
        let temperature = self.sampler.temperature.get();
        if temperature == 0.0 {
            // Greedy decoding ranks positions by the raw distribution, as LLaDA's own code does.
            let logps = floats(&logits_NV.log_softmax(-1, Kind::Float))?;
            return Ok(LogProbabilities { kept: None, logps });
        }
        let mut scaled_NV = logits_NV / temperature;
        let mask = self.policy.config().mask_token_id;
        drop(scaled_NV.narrow(1, mask, 1).fill_(f64::NEG_INFINITY));
        let mut sets = None;
        if self.kept.is_some() {
            let values = floats(&scaled_NV)?;
            let kept: Vec<_> =
                values.chunks(vocabulary).map(|row| kept_set(row, self.sampler)).collect();
            let mut dropped = vec![true; values.len()];
            for (n, set) in kept.iter().enumerate() {
                set.iter().for_each(|&v| dropped[n * vocabulary + v] = false);
            }
            let dropped = Tensor::from_slice(&dropped).view_as(&scaled_NV);
            scaled_NV = scaled_NV.masked_fill(&dropped, f64::NEG_INFINITY);
            sets =
                Some(kept.into_iter().map(|set| set.into_iter().map(length).collect()).collect());
        }
        let logps = floats(&scaled_NV.log_softmax(-1, Kind::Float))?;
        Ok(LogProbabilities { kept: sets, logps })
    }

    /// Draws a token for every masked position of the row, and writes the `per_step` ones with the
    /// highest scores; ties go to the left.
    fn write_best(&mut self, row: usize, state: &[Distribution], per_step: usize, step: u32) {
        let mut candidates: Vec<_> = state.iter().map(|at| self.decide(row, at, step)).collect();
        candidates
            .sort_by(|a, b| b.score.total_cmp(&a.score).then(a.at.position.cmp(&b.at.position)));
        for candidate in &candidates[..per_step.min(candidates.len())] {
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

fn length(n: usize) -> i64 {
    i64::try_from(n).expect("lengths and ids fit")
}

#[cfg(test)]
mod tests {
    use agrpo_spec::{ModelShape, Real};

    use super::*;
    use crate::model::ModelConfig;

    #[test]
    fn the_first_steps_write_what_does_not_share_out_evenly() {
        let real = |value| Real::new(value).unwrap();
        let shape = ModelShape {
            d_model: 4,
            n_layers: 1,
            n_heads: 1,
            mlp_hidden_size: 4,
            rope_theta: real(10_000.0),
            rms_norm_eps: real(1e-5),
            init_std: real(0.1),
        };
        let policy =
            Policy::draw(ModelConfig::new(&shape, 6, 4, 5, 18), 0.1, Seed::new(1)).unwrap();
        let sampler = Sampler {
            completion_tokens: 16,
            block_tokens: 8,
            steps: 6,
            temperature: real(1.0),
            top_k: 0,
            top_p: real(1.0),
            position: PositionRule::Random,
            guidance: real(0.0),
        };
        let row = Row { prompt: vec![0, 1], seed: Seed::new(2) };
        let steps = sample(&policy, &[row], &sampler, 1).unwrap().unmask_steps;
        let written: Vec<_> = (0..6).map(|t| steps.iter().filter(|&&at| at == t).count()).collect();
        assert_eq!(written, [3, 3, 2, 3, 3, 2]);
    }
}
