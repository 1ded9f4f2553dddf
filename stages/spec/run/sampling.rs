//! How completions are sampled: the sections `[rollout]` and `[evaluation]`, and the sampler of stage specs.
//!
//! Two settings make decoding faster (Fast-dLLM, Wu et al., arXiv 2505.22618): a cache of keys and values, and a
//! threshold above which a pass writes more tokens. Both are off by default. Which settings can be combined is in
//! `compatibility.rs`.

use bincode::{Encode, enc::Encoder, error::EncodeError};
use serde::{Deserialize, Deserializer, Serialize};

use super::{defaults, grid::GridCell};
use crate::digest::{Appended, Real};
use crate::names::named;

/// Which masked positions a step unmasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum PositionRule {
    /// Uniformly random ones.
    Random,
    /// Those whose drawn token has the highest probability.
    LowConfidence,
    /// Those whose distribution has the lowest entropy.
    Entropy,
    /// Those whose most probable token is ahead of the second by most.
    Margin,
    /// The leftmost ones.
    LeftToRight,
}

named!(PositionRule {
    Random: "random",
    LowConfidence: "low-confidence",
    Entropy: "entropy",
    Margin: "margin",
    LeftToRight: "left-to-right",
});

/// The distribution by which a drawn token is confident: low-confidence order ranks positions by it, and a threshold is
/// compared with it. Tokens are drawn, and recorded, from the sampler's distribution under either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// The sampler's: tempered and filtered (AGRPO).
    #[default]
    Sampling,
    /// The model's: the softmax of all its logits (LLaDA, d1, d2, Fast-dLLM).
    Model,
}

named!(Confidence { Sampling: "sampling", Model: "model" });

impl Confidence {
    fn is_sampling(&self) -> bool {
        *self == Self::Sampling
    }
}

/// A position rule and its distribution, as one number: a rule that ranks by the sampler's has the rule's own, so that
/// samplers from before there was a choice keep their names. Only low-confidence order has two; the rules that came after
/// its second one have the numbers after that.
struct Ranking(PositionRule, Confidence);

impl Encode for Ranking {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        match self.1 {
            Confidence::Sampling => match self.0 {
                PositionRule::Margin => 4u32.encode(encoder),
                PositionRule::LeftToRight => 5u32.encode(encoder),
                rule => rule.encode(encoder),
            },
            Confidence::Model => 3u32.encode(encoder),
        }
    }
}

/// Keys and values that the passes of a block reuse from the block's first pass, which computes all of them. They grow
/// stale as the block is written: an approximation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// None: every pass computes the whole sequence; the default.
    #[default]
    None,
    /// Those of the positions before the block.
    Prefix,
    /// Those of all positions outside the block.
    Dual,
}

named!(Cache { None: "none", Prefix: "prefix", Dual: "dual" });

/// How completions are sampled; shared by rollout and evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampler {
    /// Tokens of a completion.
    pub completion_tokens: u32,
    /// Tokens of a block.
    pub block_tokens: u32,
    /// Unmask steps.
    pub steps: u32,
    /// Divides the logits; 0 is greedy.
    pub temperature: Real,
    /// Keeps the k most probable tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps the most probable tokens up to this mass; 1 keeps all.
    pub top_p: Real,
    /// Which positions a step unmasks.
    pub position: PositionRule,
    /// By which distribution tokens are confident. Greedy samplers have one: [`Self::normalised`].
    #[serde(default, skip_serializing_if = "Confidence::is_sampling")]
    pub confidence: Confidence,
    /// Scale of classifier-free guidance; 0 is none.
    pub guidance: Real,
    /// Keys and values that the passes of a block reuse from its first.
    #[serde(default)]
    pub cache: Cache,
    /// A step also writes every token of at least this probability; without a threshold, steps write as `steps` says.
    pub threshold: Option<Real>,
}

impl Sampler {
    /// The same sampler with one name: at temperature 0 both distributions of confidence are the model's.
    #[must_use]
    pub fn normalised(self) -> Self {
        let is_greedy = self.temperature.get() == 0.0;
        let confidence = if is_greedy { Confidence::Sampling } else { self.confidence };
        Self { confidence, ..self }
    }
}

impl Encode for Sampler {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let Self {
            completion_tokens,
            block_tokens,
            steps,
            temperature,
            top_k,
            top_p,
            position,
            confidence: _,
            guidance,
            cache,
            threshold,
        } = self;
        let ranking = Ranking(*position, self.clone().normalised().confidence);
        (completion_tokens, block_tokens, steps, temperature, top_k, top_p).encode(encoder)?;
        (ranking, guidance, cache, threshold).encode(encoder)
    }
}

/// How trajectories are sampled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutConfig {
    /// Prompts of an iteration.
    pub prompts: u32,
    /// Completions of a prompt.
    pub group: u32,
    /// Stages that share an iteration's prompts. Part of the result, unlike the number of workers.
    pub shards: u32,
    /// Distinct states of one forward pass.
    pub micro_batch: u32,
    /// Tokens of a completion.
    pub completion_tokens: u32,
    /// Tokens of a block; blocks are written from left to right.
    pub block_tokens: u32,
    /// Unmask steps of a completion.
    pub steps: u32,
    /// Divides the logits.
    #[serde(default = "defaults::ratio::<6, 10>")]
    pub temperature: Real,
    /// Keeps the k most probable tokens; 0 keeps all.
    #[serde(default = "defaults::whole::<150>")]
    pub top_k: u32,
    /// Keeps the most probable tokens whose probabilities sum to at most this; 1 keeps all.
    #[serde(default = "defaults::ratio::<99, 100>")]
    pub top_p: Real,
    /// Which positions a step unmasks.
    #[serde(default = "random_position")]
    pub position: PositionRule,
    /// By which distribution tokens are confident. A run file that leaves it out means that of its task's protocol.
    #[serde(default)]
    pub confidence: Confidence,
    /// Keys and values that the passes of a block reuse from its first.
    #[serde(default)]
    pub cache: Cache,
    /// A step also writes every token of at least this probability; without a threshold, steps write as `steps` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Real>,
}

fn random_position() -> PositionRule {
    PositionRule::Random
}

impl Encode for RolloutConfig {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let Self {
            prompts,
            group,
            shards,
            micro_batch,
            completion_tokens,
            block_tokens,
            steps,
            temperature,
            top_k,
            top_p,
            position,
            confidence,
            cache,
            threshold,
        } = self;
        (prompts, group, shards, micro_batch).encode(encoder)?;
        (completion_tokens, block_tokens, steps, temperature, top_k, top_p).encode(encoder)?;
        (Ranking(*position, *confidence), cache, threshold).encode(encoder)
    }
}

/// Greedy decoding of held-out problems.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Held-out problems.
    pub problems: u32,
    /// Iterations from one evaluation to the next; base and final policy are always evaluated.
    pub every: u32,
    /// Unmask steps to evaluate at; the first is the one that progress and status report.
    pub steps: Vec<u32>,
    /// Which positions a step unmasks.
    #[serde(default = "low_confidence")]
    pub position: PositionRule,
    /// By which distribution tokens are confident where `agrpo evaluate` samples; if absent, that of the task's protocol.
    /// Not encoded: the run's own evaluations are greedy, where both are one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
    /// Tokens of a completion; if absent, as in rollouts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_tokens: Option<u32>,
    /// Tokens of a block; if absent, as in rollouts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_tokens: Option<u32>,
    /// Scale of classifier-free guidance; 0 is none.
    #[serde(default)]
    pub guidance: Real,
    /// As in rollouts, set separately.
    #[serde(default)]
    pub cache: Cache,
    /// As in rollouts, set separately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Real>,
    /// Distinct states of one forward pass.
    pub micro_batch: u32,
    /// Stages that share the problems; absent where one computes all. Changes names, and on
    /// processors no completion and no grade; elsewhere batches of other sizes may round otherwise.
    #[serde(default, deserialize_with = "shards", skip_serializing_if = "Appended::is_none")]
    pub shards: Appended<u32>,
    /// Further lengths and numbers of unmask steps to evaluate at. Encoded in a multiple of 8 bytes, as `shards` is not.
    #[serde(default, deserialize_with = "grid", skip_serializing_if = "Appended::is_none")]
    pub grid: Appended<Vec<GridCell>>,
}

/// An empty grid is the same as none.
fn grid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Appended<Vec<GridCell>>, D::Error> {
    Ok(Appended(Some(Vec::deserialize(deserializer)?).filter(|cells| !cells.is_empty())))
}

impl Encode for EvaluationConfig {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let Self {
            problems,
            every,
            steps,
            position,
            confidence: _,
            completion_tokens,
            block_tokens,
            guidance,
            cache,
            threshold,
            micro_batch,
            shards,
            grid,
        } = self;
        (problems, every, steps, position, completion_tokens, block_tokens).encode(encoder)?;
        (guidance, cache, threshold, micro_batch, shards, grid).encode(encoder)
    }
}

/// One shard is the same as none.
fn shards<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Appended<u32>, D::Error> {
    Ok(Appended(Some(u32::deserialize(deserializer)?).filter(|&shards| shards != 1)))
}

fn low_confidence() -> PositionRule {
    PositionRule::LowConfidence
}

impl From<&Sampler> for GridCell {
    fn from(sampler: &Sampler) -> Self {
        Self { completion_tokens: sampler.completion_tokens, steps: sampler.steps }
    }
}

impl From<&RolloutConfig> for Sampler {
    fn from(rollout: &RolloutConfig) -> Self {
        Self {
            completion_tokens: rollout.completion_tokens,
            block_tokens: rollout.block_tokens,
            steps: rollout.steps,
            temperature: rollout.temperature,
            top_k: rollout.top_k,
            top_p: rollout.top_p,
            position: rollout.position,
            confidence: rollout.confidence,
            // The learner knows the policy's own distribution, not a guided one.
            guidance: Real::default(),
            cache: rollout.cache,
            threshold: rollout.threshold,
        }
    }
}

/// Whether this many steps divide evenly over the blocks, and the tokens over the steps.
pub fn allows_steps(completion_tokens: u32, block_tokens: u32, steps: u32) -> bool {
    let blocks = completion_tokens / block_tokens;
    steps >= 1 && steps.is_multiple_of(blocks) && completion_tokens.is_multiple_of(steps)
}
