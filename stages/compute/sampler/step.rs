//! A row's part in one step: the positions whose distributions it needs, those that it writes, and the tokens.
//!
//! Without a threshold a step writes a fixed number of tokens. With one (Fast-dLLM's parallel decoding,
//! Wu et al., arXiv 2505.22618) it writes the most probable token, and every other that is at least so
//! probable. Ties go to the left. Draws nothing that it does not need: a uniform number is named by what it decides,
//! so the others are the same. Computes no distribution.

use std::collections::BTreeMap;

use agrpo_spec::{PositionRule, Purpose, Sampler, Seed};

use super::choice::Distribution;
use crate::tensors::length;

/// The uniform numbers of one row at one of its steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draws {
    pub(super) seed: Seed,
    pub(super) step: u32,
}

impl Draws {
    /// The number by which a token is drawn.
    pub(super) fn token(self, position: usize) -> f64 {
        self.uniform(Purpose::Token, position)
    }

    fn uniform(self, purpose: Purpose, position: usize) -> f64 {
        let position = u32::try_from(position).expect("completions are short");
        self.seed.child(purpose, 0).uniform(self.step, position)
    }
}

/// How one step of a block chooses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'a> {
    pub(super) sampler: &'a Sampler,
    /// How many tokens it writes if there is no threshold and as many are masked.
    pub(super) count: usize,
}

/// A token that a step writes.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// In the completion.
    pub(super) position: usize,
    pub(super) token: i64,
    pub(super) logp: f32,
    /// Of the distribution it was drawn from, in nats.
    pub(super) entropy: f32,
    /// The kept set; empty where no filter is on.
    pub(super) kept: Vec<i64>,
}

/// What a step would write at one masked position.
struct Candidate<'d, 'l> {
    position: usize,
    at: &'d Distribution<'l>,
    score: f64,
    /// The token's place, where the score depends on it.
    place: Option<usize>,
}

impl<'a> Step<'a> {
    /// The step of this number in a block of `block_len` tokens.
    pub(super) fn new(sampler: &'a Sampler, step_of_block: usize) -> Self {
        let block_len = sampler.block_tokens as usize;
        let blocks = sampler.completion_tokens as usize / block_len;
        let steps_per_block = (sampler.steps as usize / blocks).max(1);
        // The remainder goes to the first steps, as in LLaDA's own code.
        let uneven = usize::from(step_of_block < block_len % steps_per_block);
        Self { sampler, count: block_len / steps_per_block + uneven }
    }

    /// The positions, of those that are masked, whose distributions the row needs; ascending. In random order these are
    /// the ones that the step writes.
    pub(super) fn asked(&self, draws: Draws, masked: &[usize]) -> Vec<usize> {
        let mut asked = masked.to_vec();
        if self.sampler.position == PositionRule::Random && self.count < asked.len() {
            let score = |&position: &usize| draws.uniform(Purpose::Position, position);
            asked.sort_by(|a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
            asked.truncate(self.count);
            asked.sort_unstable();
        }
        asked
    }

    /// What the row writes, from the distributions of its state by position.
    pub(super) fn write(
        &self,
        draws: Draws,
        asked: &[usize],
        state: &BTreeMap<usize, Distribution<'_>>,
    ) -> Vec<Written> {
        let choose = |position: usize, at: &Distribution<'_>| at.choose(|| draws.token(position));
        let candidate = |&position: &usize| {
            let at = &state[&position];
            self.candidate(position, at, || choose(position, at))
        };
        let (mut candidates, count) = self.best_first(asked.iter().map(candidate).collect());
        candidates.truncate(count);
        let write = |candidate: &Candidate<'_, '_>| {
            let Candidate { position, at, place, .. } = *candidate;
            let place = place.unwrap_or_else(|| choose(position, at));
            #[expect(clippy::cast_possible_truncation, reason = "entropies are recorded as f32")]
            let entropy = at.entropy() as f32;
            Written {
                position,
                token: length(at.token(place)),
                logp: at.logp(place),
                entropy,
                kept: at.kept().iter().flat_map(|kept| kept.iter().copied().map(length)).collect(),
            }
        };
        candidates.iter().map(write).collect()
    }

    /// Positions at which tokens were drawn, by their places, best first and with their scores; and how many of them the
    /// step writes.
    pub(super) fn rank(
        &self,
        drawn: &[(usize, Distribution<'_>, usize)],
    ) -> (Vec<(usize, f64)>, usize) {
        let all =
            drawn.iter().map(|(position, at, place)| self.candidate(*position, at, || *place));
        let (all, count) = self.best_first(all.collect());
        (all.iter().map(|one| (one.position, one.score)).collect(), count)
    }

    /// `choose` says which token was drawn.
    fn candidate<'d, 'l>(
        &self,
        position: usize,
        at: &'d Distribution<'l>,
        choose: impl FnOnce() -> usize,
    ) -> Candidate<'d, 'l> {
        let (score, place) = match self.sampler.position {
            PositionRule::Random => (0.0, None),
            PositionRule::Entropy => (-at.entropy(), None),
            PositionRule::LowConfidence => {
                let place = choose();
                (f64::from(at.confidence(place)), Some(place))
            }
        };
        Candidate { position, at, score, place }
    }

    /// The candidates in their order, and how many of them the step writes.
    fn best_first<'d, 'l>(
        &self,
        mut all: Vec<Candidate<'d, 'l>>,
    ) -> (Vec<Candidate<'d, 'l>>, usize) {
        all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.position.cmp(&b.position)));
        let count = self.count_of(&all).min(all.len());
        (all, count)
    }

    /// How many of the candidates, best first, the step writes.
    fn count_of(&self, candidates: &[Candidate<'_, '_>]) -> usize {
        let Some(threshold) = self.sampler.threshold else { return self.count };
        let is_sure = |c: &&Candidate<'_, '_>| libm::exp(c.score) >= threshold.get();
        candidates.iter().take_while(is_sure).count().max(1)
    }
}
