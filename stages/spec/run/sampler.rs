//! How completions are sampled, as rollouts, evaluations and stage specs say it.
//!
//! Faster decoding (Fast-dLLM, Wu et al., arXiv 2505.22618) is two of the settings: what is kept from pass to
//! pass, and how many tokens a pass writes. Both are off where a run file leaves them out. Which settings can be
//! combined is in `compatibility.rs`.

use serde::{Deserialize, Serialize};

use crate::digest::Real;

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
}

impl PositionRule {
    /// The name in run files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::LowConfidence => "low-confidence",
            Self::Entropy => "entropy",
        }
    }
}

impl std::fmt::Display for PositionRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Keys and values that the passes of a block take over from the block's first pass, which computes
/// all. What is kept grows stale as the block is written: an approximation.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    bincode::Encode,
)]
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

impl Cache {
    /// The name in run files.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Prefix => "prefix",
            Self::Dual => "dual",
        }
    }
}

impl std::fmt::Display for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How completions are sampled; shared by rollout and evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
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
    /// Scale of classifier-free guidance; 0 is none.
    pub guidance: Real,
    /// Keys and values that the passes of a block take over from its first.
    #[serde(default)]
    pub cache: Cache,
    /// Probability from which on a step writes every token beside the most probable one; none writes as
    /// `steps` says.
    #[serde(default)]
    pub threshold: Option<Real>,
}
