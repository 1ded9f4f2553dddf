//! The base of reinforcement learning: a model that the run makes (`[model]` and `[sft]`), or a `[checkpoint]`.

use bincode::{Encode, enc::Encoder, error::EncodeError};
use serde::{Deserialize, Serialize};

use super::{defaults, learning::OptimizerConfig};
use crate::digest::{ArtifactDigest, Real};
use crate::family::Family;

/// A family's architecture at any size. The vocabulary follows from the task's tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelShape {
    /// The family of models.
    #[serde(default, skip_serializing_if = "Family::is_llada")]
    pub family: Family,
    /// Width of the residual stream.
    pub d_model: u32,
    /// Transformer blocks.
    pub n_layers: u32,
    /// Attention heads; must divide `d_model` into even head sizes.
    pub n_heads: u32,
    /// Heads of keys and values, where the family may have fewer than of queries; else as many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_kv_heads: Option<u32>,
    /// Size of a head, where the family may choose it; else `d_model` / `n_heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_size: Option<u32>,
    /// Tokens of a block of the attention, where the family has blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_block: Option<u32>,
    /// Width inside the SwiGLU, of each expert where there are some.
    pub mlp_hidden_size: u32,
    /// Experts of a block, where the family has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_experts: Option<u32>,
    /// How many of them a token chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts_per_token: Option<u32>,
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
    /// How many of the last steps learn from noisy demonstrations: right on easy problems, mostly wrong on hard ones.
    /// The base then knows more than it answers greedily.
    #[serde(rename = "careless_steps", default)]
    pub noisy_steps: u32,
    /// Share of the hard problems whose noisy demonstrations are wrong.
    #[serde(rename = "careless_share", default = "defaults::ratio::<7, 10>")]
    pub noisy_share: Real,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}

/// The number format in which weights are multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32 bits, for the run's own small models.
    #[default]
    F32,
    /// 16 bits, eight of them for the exponent, as LLaDA is published.
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
    /// The sizes that its `config.json` must have; memory and time are estimated from them.
    pub shape: CheckpointShape,
    /// The number format of its weights.
    #[serde(default = "bf16")]
    pub precision: Precision,
}

/// The sizes of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointShape {
    /// The family of models.
    #[serde(default, skip_serializing_if = "Family::is_llada")]
    pub family: Family,
    /// Width of the residual stream.
    pub d_model: u32,
    /// Transformer blocks.
    pub n_layers: u32,
    /// Attention heads.
    pub n_heads: u32,
    /// Heads of keys and values, where the family may have fewer than of queries; else as many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_kv_heads: Option<u32>,
    /// Size of a head, where the family may choose it; else `d_model` / `n_heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_size: Option<u32>,
    /// Tokens of a block of the attention, where the family has blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_block: Option<u32>,
    /// Width inside the SwiGLU, of each expert where there are some.
    pub mlp_hidden_size: u32,
    /// Experts of a block, where the family has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_experts: Option<u32>,
    /// How many of them a token chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts_per_token: Option<u32>,
    /// Rows of the embedding.
    pub embedding_size: u32,
    /// Longest sequence.
    pub max_sequence_length: u32,
}

/// What both kinds of shapes say of heads, and of what only some families have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FamilyShape {
    pub(crate) family: Family,
    pub(crate) d_model: u32,
    pub(crate) n_heads: u32,
    pub(crate) n_kv_heads: Option<u32>,
    pub(crate) head_size: Option<u32>,
    pub(crate) attention_block: Option<u32>,
    pub(crate) n_experts: Option<u32>,
    pub(crate) experts_per_token: Option<u32>,
}

impl From<&ModelShape> for FamilyShape {
    fn from(shape: &ModelShape) -> Self {
        Self {
            family: shape.family,
            d_model: shape.d_model,
            n_heads: shape.n_heads,
            n_kv_heads: shape.n_kv_heads,
            head_size: shape.head_size,
            attention_block: shape.attention_block,
            n_experts: shape.n_experts,
            experts_per_token: shape.experts_per_token,
        }
    }
}

impl From<&CheckpointShape> for FamilyShape {
    fn from(shape: &CheckpointShape) -> Self {
        Self {
            family: shape.family,
            d_model: shape.d_model,
            n_heads: shape.n_heads,
            n_kv_heads: shape.n_kv_heads,
            head_size: shape.head_size,
            attention_block: shape.attention_block,
            n_experts: shape.n_experts,
            experts_per_token: shape.experts_per_token,
        }
    }
}

/// The number of heads, and what only some families have behind a bit of it that no number of heads reaches: shapes from
/// before there were families keep their bytes.
impl Encode for FamilyShape {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        const HAS_MORE: u32 = 1 << 31;
        let of_heads = (self.n_kv_heads, self.head_size, self.attention_block);
        let of_experts = (self.n_experts, self.experts_per_token);
        if (self.family, of_heads, of_experts) == (Family::Llada, (None, None, None), (None, None))
        {
            return self.n_heads.encode(encoder);
        }
        (self.n_heads | HAS_MORE, self.family, of_heads, of_experts).encode(encoder)
    }
}

/// Leaves out what the heads are anyway, so that one model has one name.
fn leave_out_defaults(
    family: Family,
    [d_model, n_heads]: [u32; 2],
    [n_kv_heads, head_size]: [&mut Option<u32>; 2],
) {
    let keys = &family.traits().keys;
    n_kv_heads.take_if(|found| keys.n_kv_heads.is_some() && *found == n_heads);
    let plain = d_model.checked_div(n_heads);
    head_size.take_if(|found| keys.head_size.is_some() && Some(*found) == plain);
}

impl ModelShape {
    /// The same model under its one name.
    pub(super) fn normalise(&mut self) {
        let of_heads = [&mut self.n_kv_heads, &mut self.head_size];
        leave_out_defaults(self.family, [self.d_model, self.n_heads], of_heads);
    }
}

impl CheckpointShape {
    /// The same model under its one name.
    pub(super) fn normalise(&mut self) {
        let of_heads = [&mut self.n_kv_heads, &mut self.head_size];
        leave_out_defaults(self.family, [self.d_model, self.n_heads], of_heads);
    }
}

impl Encode for ModelShape {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let Self { d_model, n_layers, mlp_hidden_size, rope_theta, rms_norm_eps, init_std, .. } =
            self;
        (d_model, n_layers, FamilyShape::from(self)).encode(encoder)?;
        (mlp_hidden_size, rope_theta, rms_norm_eps, init_std).encode(encoder)
    }
}

impl Encode for CheckpointShape {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let Self {
            d_model, n_layers, mlp_hidden_size, embedding_size, max_sequence_length, ..
        } = self;
        (d_model, n_layers, FamilyShape::from(self)).encode(encoder)?;
        (mlp_hidden_size, embedding_size, max_sequence_length).encode(encoder)
    }
}

/// The two files of a checkpoint that turn text into ids and back. Graders read them without the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct Language {
    /// `config.json`, which has the special ids.
    pub config: ArtifactDigest,
    /// `tokenizer.json`.
    pub tokenizer: ArtifactDigest,
}

fn bf16() -> Precision {
    Precision::Bf16
}

/// What reinforcement learning starts from.
#[derive(Clone, Debug, PartialEq)]
pub enum Base {
    /// New weights of this shape, fine-tuned from scratch.
    Scratch(ModelShape, SftConfig),
    /// A checkpoint's weights.
    Checkpoint(CheckpointConfig),
}

impl Base {
    /// The files of the tokenizer, if it does not follow from the task.
    pub fn language(&self) -> Option<Language> {
        let Self::Checkpoint(checkpoint) = self else { return None };
        Some(Language { config: checkpoint.config, tokenizer: checkpoint.tokenizer })
    }

    /// The section of the base's shape, and what it says of its family.
    pub(crate) fn of_family(&self) -> (&'static str, FamilyShape) {
        match self {
            Self::Scratch(shape, _) => ("model", shape.into()),
            Self::Checkpoint(checkpoint) => ("checkpoint.shape", (&checkpoint.shape).into()),
        }
    }

    /// The number format in which all of the run's policies compute.
    pub fn precision(&self) -> Precision {
        match self {
            Self::Scratch(..) => Precision::F32,
            Self::Checkpoint(checkpoint) => checkpoint.precision,
        }
    }
}
