//! How a step ranks tokens that another program drew, so that its order can be compared with ours. The order is the
//! sampler's own code. Draws nothing, writes nothing.

use agrpo_spec::{Family, Sampler};

use super::choice::Distribution;
use super::step::Step;
use crate::blocks::UnmaskSchedule;
use crate::error::{Result, data};

/// A token that was drawn at a masked position.
#[derive(Clone, Copy, Debug)]
pub struct Drawn<'a> {
    /// In the completion.
    pub position: usize,
    /// The logits there, V of them.
    pub logits: &'a [f32],
    /// Its id.
    pub token: usize,
}

/// Positions as a step ranks them.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// Best first, each with its score: in low-confidence order the token's log-probability.
    pub all: Vec<(usize, f64)>,
    /// How many of them the step writes.
    pub written: usize,
}

/// Ranks the masked positions of a block at its step of this number, from 0, as for models of this family. Data error
/// where a token is outside of its kept set.
pub fn rank<'a>(
    (sampler, family): (&Sampler, Family),
    mask: usize,
    step_of_block: usize,
    drawn: &[Drawn<'a>],
) -> Result<Ranked> {
    let of = |drawn: &Drawn<'a>| {
        let Drawn { position, token, .. } = *drawn;
        let at = Distribution::of_logits(drawn.logits, sampler, mask)?;
        let place = match at.kept() {
            Some(kept) => kept.binary_search(&token).ok(),
            None => (token < drawn.logits.len()).then_some(token),
        };
        let place = place.ok_or_else(|| {
            data(format!("position {position}: the kept set lacks the token {token}"))
        })?;
        Ok((position, at, place))
    };
    let all = drawn.iter().map(of).collect::<Result<Vec<_>>>()?;
    let schedule = UnmaskSchedule::new(sampler, family);
    let (all, written) = Step { schedule, number: step_of_block }.rank(&all);
    Ok(Ranked { all, written })
}
