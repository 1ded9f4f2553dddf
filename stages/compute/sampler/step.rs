//! A row's part in one step: the positions whose distributions it needs, those that it writes, and the tokens.
//!
//! Without a threshold a step writes as many tokens as the schedule says (`blocks.rs`). With one it writes
//! ```text
//! at least one       the most probable token, and every other of at least the threshold: Fast-dLLM's parallel decoding
//!                    (Wu et al., arXiv 2505.22618)
//! at least the step  every token above the threshold, if these are no fewer than the schedule's, else the schedule's:
//!                    SDAR's `low_confidence_dynamic` (Gen-Verse/dLLM-RL, 10b4fd1)
//! ```
//! In order of margin, a position's score is the probability of its most probable token minus that of the second: Dream's
//! `topk_margin` (Dream-org/Dream-v0-Instruct-7B). Ties go to the left. Draws nothing that it does not need: a uniform
//! number is named by what it decides, so the others are the same. Computes no distribution.

use std::collections::BTreeMap;

use agrpo_spec::{PositionRule, Purpose, Seed, ThresholdRule};

use super::choice::Distribution;
use crate::blocks::UnmaskSchedule;
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
    pub(super) schedule: UnmaskSchedule<'a>,
    /// Its number in the block, from 0.
    pub(super) number: usize,
}

/// The part of a row's step that its masked positions decide.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// Positions of the completion whose distributions the row needs, ascending.
    pub(super) positions: Vec<usize>,
    /// How many tokens the schedule writes.
    count: usize,
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

impl Step<'_> {
    /// What a row needs with so many masked positions in its block; `None` if the step writes nothing. Where positions are
    /// chosen without distributions, these are the ones that the step writes.
    pub(super) fn asked(&self, draws: Draws, masked: &[usize]) -> Option<Asked> {
        let count = self.schedule.count(self.number, masked.len());
        let has_threshold = self.schedule.sampler.threshold.is_some();
        if masked.is_empty() || count == 0 && !has_threshold {
            return None;
        }
        let mut positions = masked.to_vec();
        match self.schedule.sampler.position {
            PositionRule::Random if count < masked.len() => {
                let score = |&position: &usize| draws.uniform(Purpose::Position, position);
                positions.sort_by(|a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
                positions.truncate(count);
                positions.sort_unstable();
            }
            PositionRule::LeftToRight => positions.truncate(count),
            _ => {}
        }
        Some(Asked { positions, count })
    }

    /// What the row writes, from the distributions of its state by position.
    pub(super) fn write(
        &self,
        draws: Draws,
        asked: &Asked,
        state: &BTreeMap<usize, Distribution<'_>>,
    ) -> Vec<Written> {
        let choose = |position: usize, at: &Distribution<'_>| at.choose(|| draws.token(position));
        let candidate = |&position: &usize| {
            let at = &state[&position];
            self.candidate(position, at, || choose(position, at))
        };
        let all = asked.positions.iter().map(candidate).collect();
        let (mut candidates, count) = self.best_first(all, asked.count);
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
        let count = self.schedule.count(self.number, drawn.len());
        let (all, count) = self.best_first(all.collect(), count);
        (all.iter().map(|one| (one.position, one.score)).collect(), count)
    }

    /// `choose` says which token was drawn.
    fn candidate<'d, 'l>(
        &self,
        position: usize,
        at: &'d Distribution<'l>,
        choose: impl FnOnce() -> usize,
    ) -> Candidate<'d, 'l> {
        let (score, place) = match self.schedule.sampler.position {
            PositionRule::Random | PositionRule::LeftToRight => (0.0, None),
            PositionRule::Margin => (at.margin(), None),
            PositionRule::Entropy => (-at.entropy(), None),
            PositionRule::LowConfidence => {
                let place = choose();
                (f64::from(at.confidence(place)), Some(place))
            }
        };
        Candidate { position, at, score, place }
    }

    /// The candidates in their order, and how many of them the step writes, where the schedule writes `count`.
    fn best_first<'d, 'l>(
        &self,
        mut all: Vec<Candidate<'d, 'l>>,
        count: usize,
    ) -> (Vec<Candidate<'d, 'l>>, usize) {
        all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.position.cmp(&b.position)));
        let count = self.count_of(&all, count).min(all.len());
        (all, count)
    }

    /// How many of the candidates, best first, the step writes.
    fn count_of(&self, candidates: &[Candidate<'_, '_>], count: usize) -> usize {
        let Some(threshold) = self.schedule.sampler.threshold else { return count };
        let sure = |is_sure: &dyn Fn(f64) -> bool| {
            candidates.iter().take_while(|c| is_sure(libm::exp(c.score))).count()
        };
        match self.schedule.conventions.threshold {
            ThresholdRule::AtLeastOne => sure(&|p| p >= threshold.get()).max(1),
            ThresholdRule::AtLeastTheStep => sure(&|p| p > threshold.get()).max(count).max(1),
        }
    }
}

#[cfg(test)]
mod tests;
