//! Values that options choose from, each with its line of help. Names are those of run files wherever a run file has
//! them.

use agrpo_spec::{Benchmark, Cache, EstimatorKind, PositionRule};
use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// Names, each with its value and its line of help.
pub(super) type Choices<T> = &'static [(&'static str, T, &'static str)];

/// Reads one of these names.
pub(super) fn choice<T>(all: Choices<T>) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let values = all.iter().map(|(name, _, help)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(values).try_map(|name| {
        let chosen = all.iter().find(|(known, ..)| *known == name);
        chosen.map(|(_, value, _)| *value).ok_or("expected one of the possible values")
    })
}

/// Tasks that grade.
pub(super) const TASKS: Choices<Benchmark> = &[
    ("countdown", Benchmark::Countdown, "Reach a target with all of the given numbers"),
    ("sudoku", Benchmark::Sudoku, "Fill a 4x4 Sudoku"),
    ("gsm8k", Benchmark::Gsm8k, "Word problems with a number as answer"),
    ("math", Benchmark::Math, "Competition problems with a LaTeX expression as answer"),
];

/// Which positions a step unmasks.
pub(super) const POSITIONS: Choices<PositionRule> = &[
    ("low-confidence", PositionRule::LowConfidence, "The most probable tokens first"),
    ("entropy", PositionRule::Entropy, "The surest distributions first"),
    ("random", PositionRule::Random, "In random order"),
];

/// Keys and values that passes take over.
pub(super) const CACHES: Choices<Cache> = &[
    ("none", Cache::None, "Every pass computes the whole sequence"),
    ("prefix", Cache::Prefix, "Those of the positions before the block"),
    ("dual", Cache::Dual, "Those of all positions outside the block"),
];

/// Estimators of the policy gradient.
pub(super) const ESTIMATORS: Choices<EstimatorKind> = &[
    ("agrpo", EstimatorKind::Agrpo, "Drawn steps of the trajectory"),
    ("diffu-grpo", EstimatorKind::DiffuGrpo, "One pass over a masked completion"),
    ("coupled-grpo", EstimatorKind::CoupledGrpo, "Pairs of complementary masks"),
    ("merged-step", EstimatorKind::MergedStep, "Neighbouring steps in one pass"),
    ("ar-grpo", EstimatorKind::ArGrpo, "From left to right; needs rollout.block_tokens = 1"),
];

/// Published rules to grade by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RubricArg {
    /// d1's training rewards, part by part
    D1,
    /// d1's grades of evaluation
    D1Eval,
    /// AGRPO's training rewards, part by part
    Agrpo,
}

/// Policies of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyArg {
    /// The newest
    Latest,
    /// The one before reinforcement learning
    Base,
}
