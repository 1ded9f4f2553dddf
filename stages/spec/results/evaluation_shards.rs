//! The shards of an evaluation, joined: documents and metrics, by counts and never by means of means.
//!
//! Joins nothing before all shards are there. From shards of the same completions comes out what one stage over all
//! problems leaves; only sums of fractions may differ in the last bit.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::evaluations::{Evaluation, EvaluationResult, Points};
use super::metrics::{ACCURACY, EARNED, POSSIBLE, PROBLEMS};
use crate::{plan::StageKey, run::Run};

/// Something that each shard of an evaluation leaves, and that adds up to that of the whole.
pub trait Together: Clone {
    /// The whole's, from those of all shards in their order. `None` where they are not of one evaluation in shards.
    fn together(shards: &[&Self]) -> Option<Self>;

    /// The whole's, from the one stage or the shards that computed it.
    fn whole(stages: &[&Self]) -> Option<Self> {
        match stages {
            [one] => Some((*one).clone()),
            shards => Self::together(shards),
        }
    }
}

impl Together for Evaluation {
    fn together(shards: &[&Self]) -> Option<Self> {
        let (first, _) = shards.split_first()?;
        let result = |number| {
            let parts = shards.iter().map(|shard| shard.results.get(number));
            EvaluationResult::together(&parts.collect::<Option<Vec<_>>>()?)
        };
        Some(Self {
            problems: shards.iter().map(|shard| shard.problems).sum(),
            results: (0..first.results.len()).map(result).collect::<Option<_>>()?,
            samples: shards.iter().flat_map(|shard| shard.samples.iter().cloned()).collect(),
        })
    }
}

impl Together for EvaluationResult {
    fn together(shards: &[&Self]) -> Option<Self> {
        let (first, others) = shards.split_first()?;
        let Points { mut earned, mut possible } = first.points?;
        let mut whole = Self { points: None, ..(*first).clone() };
        for shard in others {
            let points = shard.points?;
            earned += points.earned;
            possible += points.possible;
            whole.correct += shard.correct;
            let is_alike =
                (shard.label(), shard.solved_by.len()) == (whole.label(), whole.solved_by.len());
            let sums = whole.solved_by.iter().zip(&shard.solved_by).map(|(one, other)| one + other);
            whole.solved_by = is_alike.then(|| sums.collect())?;
        }
        Some(Self { accuracy: earned / possible, ..whole })
    }
}

/// Metrics of manifests. Every problem has the same number of completions, so means over completions are weighted by
/// problems.
impl Together for BTreeMap<String, f64> {
    fn together(shards: &[&Self]) -> Option<Self> {
        let sum =
            |name: &str| shards.iter().map(|shard| shard.get(name).copied()).sum::<Option<f64>>();
        let problems = sum(PROBLEMS)?;
        let joined = |name: &String| {
            let (metric, steps) = name.split_at(name.find('_').unwrap_or(name.len()));
            match metric {
                EARNED | POSSIBLE => None,
                PROBLEMS => Some(problems),
                ACCURACY => {
                    Some(sum(&format!("{EARNED}{steps}"))? / sum(&format!("{POSSIBLE}{steps}"))?)
                }
                _ => {
                    let weighted = |shard: &&Self| Some(shard.get(name)? * shard.get(PROBLEMS)?);
                    Some(shards.iter().map(weighted).sum::<Option<f64>>()? / problems)
                }
            }
        };
        let names = shards.first()?.keys();
        Some(names.filter_map(|name| Some((name.clone(), joined(name)?))).collect())
    }
}

/// What the evaluation stages of a run leave, by iteration, as it comes in.
#[derive(Clone, Debug)]
pub struct EvaluationShards<T> {
    shards: u32,
    found: BTreeMap<u32, BTreeMap<StageKey, T>>,
}

/// An evaluation of which only some shards are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Partial {
    /// Which policy is evaluated; 0 is the base.
    pub iteration: u32,
    /// Shards that are there.
    pub done: u32,
    /// Shards of the evaluation.
    pub shards: u32,
}

impl fmt::Display for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} shards", self.done, self.shards)
    }
}

impl<T: Together> EvaluationShards<T> {
    /// For the evaluations of a run, of which none is there yet.
    pub fn of(run: &Run) -> Self {
        Self { shards: run.config().evaluation_shards(), found: BTreeMap::new() }
    }

    /// Takes what an evaluation stage left; returns the whole evaluation's if all of it is there.
    pub fn add(&mut self, key: StageKey, part: T) -> Option<T> {
        let found = self.found.entry(key.iteration).or_default();
        found.insert(key, part);
        let is_whole = found.len() == self.shards as usize;
        is_whole.then(|| T::whole(&found.values().collect::<Vec<_>>()))?
    }

    /// Whether what this stage left is there.
    pub fn contains(&self, key: StageKey) -> bool {
        self.found.get(&key.iteration).is_some_and(|found| found.contains_key(&key))
    }

    /// The evaluations of which shards are missing, in the order of their policies.
    pub fn partial(&self) -> impl Iterator<Item = Partial> {
        let shards = self.shards;
        let partial = move |(&iteration, found): (&u32, &BTreeMap<StageKey, T>)| {
            let done = u32::try_from(found.len()).ok().filter(|&done| done < shards)?;
            Some(Partial { iteration, done, shards })
        };
        self.found.iter().filter_map(partial)
    }
}

#[cfg(test)]
mod tests;
