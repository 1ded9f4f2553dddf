//! What reinforcement learning starts from: a model of the run's own making (`[model]` and `[sft]`), or a
//! `[checkpoint]`.

use serde::{Deserialize, Serialize};

use super::{defaults, learning::OptimizerConfig};
use crate::digest::{ArtifactDigest, Real};

/// LLaDA's architecture at any size. The vocabulary follows from the task's tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct ModelShape {
    /// Width of the residual stream.
    pub d_model: u32,
    /// Transformer blocks.
    pub n_layers: u32,
    /// Attention heads; must divide `d_model` into even head sizes.
    pub n_heads: u32,
    /// Width inside the SwiGLU.
    pub mlp_hidden_size: u32,
    /// Base of the rotary embedding's wavelengths.
    #[serde(default = "defaults::ratio::<10_000, 1>")]
    pub rope_theta: Real,
    /// Added to the mean square in RMSNorm.
    #[serde(default = "defaults::ratio::<1, 100_000>")]
    pub rms_norm_eps: Real,
    /// Standard deviation of the initial weights.
    #[serde(default = "defaults::ratio::<2, 100>")]
    pub init_std: Real,
}

/// Masked-diffusion fine-tuning on the task's own solutions, before iteration 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct SftConfig {
    /// Optimizer steps.
    pub steps: u32,
    /// Sequences of a step.
    pub batch: u32,
    /// Steps of one stage: what a crash can cost.
    pub steps_per_stage: u32,
    /// Sequences of one forward and backward pass.
    pub micro_batch: u32,
    /// The last of the steps, which learn from noisy demonstrations: right on easy problems, mostly wrong on
    /// hard ones. The base then knows more than it answers greedily.
    #[serde(default)]
    pub careless_steps: u32,
    /// Share of the hard problems whose noisy demonstrations are wrong.
    #[serde(default = "defaults::ratio::<7, 10>")]
    pub careless_share: Real,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}

/// How many bits a weight has where it is multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32: small models of the run's own.
    #[default]
    F32,
    /// 16, with eight of them for the exponent: how LLaDA is published.
    Bf16,
}

/// A checkpoint in Hugging Face layout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// The folder: configuration, tokenizer and weights, by the digest of its listing.
    pub folder: ArtifactDigest,
    /// The folder's `config.json`.
    pub config: ArtifactDigest,
    /// The folder's `tokenizer.json`.
    pub tokenizer: ArtifactDigest,
    /// What its `config.json` has to say; memory and time are estimated from it.
    pub shape: CheckpointShape,
    /// In which its weights are kept and multiplied.
    #[serde(default = "bf16")]
    pub precision: Precision,
}

/// The sizes of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct CheckpointShape {
    /// Width of the residual stream.
    pub d_model: u32,
    /// Transformer blocks.
    pub n_layers: u32,
    /// Attention heads.
    pub n_heads: u32,
    /// Width inside the SwiGLU.
    pub mlp_hidden_size: u32,
    /// Rows of the embedding.
    pub embedding_size: u32,
    /// Longest sequence.
    pub max_sequence_length: u32,
}

/// What turns text to ids and back: two files of a checkpoint, which graders read without its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct Language {
    /// `config.json`, which knows the special ids.
    pub config: ArtifactDigest,
    /// `tokenizer.json`.
    pub tokenizer: ArtifactDigest,
}

fn bf16() -> Precision {
    Precision::Bf16
}

/// Where a run starts.
#[derive(Clone, Debug, PartialEq)]
pub enum Base {
    /// New weights of this shape, fine-tuned from nothing.
    Scratch(ModelShape, SftConfig),
    /// Weights from elsewhere.
    Checkpoint(CheckpointConfig),
}

impl Base {
    /// What reads and writes the run's text, where it does not follow from the task.
    pub fn language(&self) -> Option<Language> {
        let Self::Checkpoint(checkpoint) = self else { return None };
        Some(Language { config: checkpoint.config, tokenizer: checkpoint.tokenizer })
    }

    /// In which the weights of all the run's policies are multiplied.
    pub fn precision(&self) -> Precision {
        match self {
            Self::Scratch(..) => Precision::F32,
            Self::Checkpoint(checkpoint) => checkpoint.precision,
        }
    }
}
