//! Values that options choose from, each with its line of help.
//!
//! The names are those of run files wherever a run file has them. Nothing is decided here.

use agrpo_spec::{Cache, EstimatorKind, PositionRule};
use clap::ValueEnum;
use clap::builder::PossibleValue;

/// Tasks that grade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TaskArg {
    /// Reach a target with all of the given numbers
    Countdown,
    /// Fill a 4x4 Sudoku
    Sudoku,
    /// Word problems with a number as answer
    Gsm8k,
    /// Competition problems with a LaTeX expression as answer
    Math,
}

/// Published rules to grade by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RubricArg {
    /// d1's training rewards, part by part
    D1,
    /// What d1's evaluation says
    D1Eval,
    /// AGRPO's training rewards, part by part
    Agrpo,
}

/// A rule for positions on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PositionArg(pub(crate) PositionRule);

impl ValueEnum for PositionArg {
    fn value_variants<'a>() -> &'a [Self] {
        const {
            &[
                Self(PositionRule::LowConfidence),
                Self(PositionRule::Entropy),
                Self(PositionRule::Random),
            ]
        }
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self.0 {
            PositionRule::LowConfidence => ("low-confidence", "The most probable tokens first"),
            PositionRule::Entropy => ("entropy", "The surest distributions first"),
            PositionRule::Random => ("random", "In random order"),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

/// A cache on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheArg(pub(crate) Cache);

impl ValueEnum for CacheArg {
    fn value_variants<'a>() -> &'a [Self] {
        const { &[Self(Cache::None), Self(Cache::Prefix), Self(Cache::Dual)] }
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self.0 {
            Cache::None => "Every pass computes the whole sequence",
            Cache::Prefix => "Those of the positions before the block",
            Cache::Dual => "Those of all positions outside the block",
        };
        Some(PossibleValue::new(self.0.name()).help(help))
    }
}

/// An estimator on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EstimatorArg(pub(crate) EstimatorKind);

impl ValueEnum for EstimatorArg {
    fn value_variants<'a>() -> &'a [Self] {
        const {
            &[
                Self(EstimatorKind::Agrpo),
                Self(EstimatorKind::DiffuGrpo),
                Self(EstimatorKind::CoupledGrpo),
                Self(EstimatorKind::MergedStep),
                Self(EstimatorKind::ArGrpo),
            ]
        }
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self.0 {
            EstimatorKind::Agrpo => "Drawn steps of the trajectory",
            EstimatorKind::DiffuGrpo => "One pass over a masked completion",
            EstimatorKind::CoupledGrpo => "Pairs of complementary masks",
            EstimatorKind::MergedStep => "Neighbouring steps in one pass",
            EstimatorKind::ArGrpo => "From left to right; needs rollout.block_tokens = 1",
        };
        Some(PossibleValue::new(self.0.name()).help(help))
    }
}

/// Policies of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyArg {
    /// The newest
    Latest,
    /// The one before reinforcement learning
    Base,
}
