//! `config.json` of a checkpoint: the fields that this project reads, by the keys of the model's family, and the document
//! that it writes. Refuses the configuration of a family that is not computed here.

use agrpo_grading::json_object;
use agrpo_spec::{AttendsTo, CheckpointShape, Family, Files, ModelShape, Predicts, memory::Sizes};
use serde_json::{Map, Value};

use crate::error::{Result, data};
use crate::folder;

mod document;
mod family;
mod keys;

use document::{Read, keys, unread};
use family::family_of;

/// Far above the sizes of any model or sequence.
const LARGEST: i64 = 1 << 24;
const DEEPEST: i64 = 1 << 12;
const LONGEST_BLOCK: i64 = 1 << 16;
/// Experts of all blocks: each has names that are made before any is looked for.
const MOST_EXPERTS: i64 = 1 << 16;

/// The sizes and constants of a policy's arithmetic, and its special tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family of models.
    pub family: Family,
    /// Width of the residual stream, D.
    pub d_model: i64,
    /// Transformer blocks.
    pub n_layers: i64,
    /// Attention heads, H.
    pub n_heads: i64,
    /// Heads of keys and values, K: a divisor of H.
    pub n_kv_heads: i64,
    /// Size of a head, E.
    pub head_size: i64,
    /// Tokens of a block of the attention, where the family has blocks.
    pub attention_block: Option<i64>,
    /// Width inside the SwiGLU, of each expert where there are some, M.
    pub mlp_hidden_size: i64,
    /// Experts of a block, where the family has them, X.
    pub n_experts: Option<i64>,
    /// How many of them a token chooses.
    pub experts_per_token: Option<i64>,
    /// Rows of the embedding and of the head, V.
    pub embedding_size: i64,
    /// Longest sequence the model was made for; not enforced.
    pub max_sequence_length: i64,
    /// Base of the rotary embedding's wavelengths.
    pub rope_theta: f64,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// End of sequence.
    pub eos_token_id: i64,
    /// Padding, where it is not the end of sequence.
    pub pad_token_id: Option<i64>,
    /// The mask.
    pub mask_token_id: i64,
}

impl ModelConfig {
    /// The sizes that estimates of memory are made of.
    pub(crate) fn memory_sizes(&self) -> Sizes {
        let size = |n: i64| u64::try_from(n).unwrap_or(0);
        Sizes {
            family: self.family,
            d_model: size(self.d_model),
            n_layers: size(self.n_layers),
            n_heads: size(self.n_heads),
            n_kv_heads: size(self.n_kv_heads),
            head_size: size(self.head_size),
            mlp_hidden_size: size(self.mlp_hidden_size),
            n_experts: size(self.n_experts.unwrap_or(1)),
            experts_per_token: size(self.experts_per_token.unwrap_or(1)),
            vocabulary: size(self.embedding_size),
        }
    }

    /// The configuration of a new model.
    pub fn new(
        shape: &ModelShape,
        vocabulary: i64,
        eos_token_id: i64,
        mask_token_id: i64,
        max_sequence_length: i64,
    ) -> Self {
        Self {
            family: shape.family,
            d_model: shape.d_model.into(),
            n_layers: shape.n_layers.into(),
            n_heads: shape.n_heads.into(),
            n_kv_heads: shape.n_kv_heads.unwrap_or(shape.n_heads).into(),
            head_size: shape.head_size.unwrap_or(shape.d_model / shape.n_heads).into(),
            attention_block: shape.attention_block.map(Into::into),
            mlp_hidden_size: shape.mlp_hidden_size.into(),
            n_experts: shape.n_experts.map(Into::into),
            experts_per_token: shape.experts_per_token.map(Into::into),
            embedding_size: vocabulary,
            max_sequence_length,
            rope_theta: shape.rope_theta.get(),
            rms_norm_eps: shape.rms_norm_eps.get(),
            eos_token_id,
            pad_token_id: Some(eos_token_id),
            mask_token_id,
        }
    }

    pub(crate) fn of_folder(files: &Files) -> Result<Self> {
        Self::from_json(&folder::small(files, "policy", "config.json")?)
    }

    /// Reads `config.json`.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let document = json_object(bytes).map_err(|error| unread("model's", error))?;
        let family = family_of(&document)?;
        let config = Self::of_fields(family, document::read(family, &document)?);
        config.check_sizes()?;
        config.check_keys(&document)?;
        Ok(config)
    }

    fn of_fields(family: Family, read: Read) -> Self {
        Self {
            family,
            d_model: read.d_model,
            n_layers: read.n_layers,
            n_heads: read.n_heads,
            n_kv_heads: read.n_kv_heads.unwrap_or(read.n_heads),
            // A number of heads below 1 is refused by its own name.
            head_size: read.head_size.unwrap_or(read.d_model / read.n_heads.max(1)),
            attention_block: read.attention_block,
            mlp_hidden_size: read.mlp_hidden_size,
            n_experts: read.n_experts,
            experts_per_token: read.experts_per_token,
            embedding_size: read.embedding_size,
            max_sequence_length: read.max_sequence_length,
            rope_theta: read.rope_theta,
            rms_norm_eps: read.rms_norm_eps,
            eos_token_id: read.eos_token_id,
            pad_token_id: read.pad_token_id,
            mask_token_id: read.mask_token_id,
        }
    }

    fn check_sizes(&self) -> Result<()> {
        let refuse = |what: String| Err(data(format!("config.json: {what}")));
        let key_of = |name: &str| keys(self.family).find(|(own, _)| *own == name);
        for (name, found) in self.sizes() {
            let Some((_, key)) = key_of(name) else { continue };
            let most = match name {
                "n_layers" | "n_experts" => DEEPEST,
                "attention_block" => LONGEST_BLOCK,
                _ => LARGEST,
            };
            if !(1..=most).contains(&found) {
                return refuse(format!("{key} = {found}: expected from 1 to {most}"));
            }
        }
        match key_of("head_size") {
            None if self.d_model % (2 * self.n_heads) != 0 => {
                let traits = self.family.traits();
                let (d_model, n_heads) = (traits.keys.d_model, traits.keys.n_heads);
                return refuse(format!(
                    "{d_model} = {}: {d_model} must be {n_heads} heads of an even size, and {n_heads} = {}",
                    self.d_model, self.n_heads
                ));
            }
            Some((_, key)) if self.head_size % 2 != 0 => {
                return refuse(format!("{key} = {}: expected an even number", self.head_size));
            }
            _ => {}
        }
        if self.n_heads % self.n_kv_heads != 0 {
            let key = key_of("n_kv_heads").map_or("n_kv_heads", |(_, key)| key);
            let (found, heads) = (self.n_kv_heads, self.n_heads);
            return refuse(format!("{key} = {found}: expected a divisor of the {heads} heads"));
        }
        if self.experts_per_token > self.n_experts {
            let key = key_of("experts_per_token").map_or("experts_per_token", |(_, key)| key);
            let [found, experts] = [self.experts_per_token, self.n_experts].map(|n| n.unwrap_or(0));
            return refuse(format!("{key} = {found}: expected at most the {experts} experts"));
        }
        let experts = self.n_experts.unwrap_or(0);
        if experts * self.n_layers > MOST_EXPERTS {
            let key = key_of("n_experts").map_or("n_experts", |(_, key)| key);
            let most = MOST_EXPERTS / self.n_layers;
            return refuse(format!("{key} = {experts}: expected at most {most} in so many layers"));
        }
        if self.rope_theta <= 0.0 || self.rms_norm_eps < 0.0 {
            return refuse("rope_theta must be above 0 and rms_norm_eps at least 0".into());
        }
        let ids = [
            ("eos_token_id", self.eos_token_id),
            ("mask_token_id", self.mask_token_id),
            ("pad_token_id", self.pad()),
        ];
        let size = self.embedding_size;
        match ids.iter().find(|(_, id)| !(0..size).contains(id)) {
            Some((key, id)) => refuse(format!(
                "{key} = {id}: a special token lies outside the vocabulary of {} = {size}",
                self.family.traits().keys.embedding_size
            )),
            None => Ok(()),
        }
    }

    /// Checks that the sizes are those of a run file. Data error that names the first that differs.
    pub fn check_shape(&self, shape: &CheckpointShape) -> Result<()> {
        if self.family != shape.family {
            return Err(data(format!(
                "checkpoint.shape.family = \"{}\": the checkpoint's config.json has model_type = \"{}\"",
                shape.family.key(),
                self.family.traits().model_type,
            )));
        }
        let said = [
            shape.d_model,
            shape.n_layers,
            shape.n_heads,
            shape.n_kv_heads.unwrap_or(shape.n_heads),
            shape.head_size.unwrap_or(shape.d_model / shape.n_heads.max(1)),
            shape.attention_block.unwrap_or(0),
            shape.mlp_hidden_size,
            shape.n_experts.unwrap_or(0),
            shape.experts_per_token.unwrap_or(0),
            shape.embedding_size,
            shape.max_sequence_length,
        ];
        for ((key, found), said) in self.sizes().into_iter().zip(said) {
            if found != i64::from(said) {
                return Err(data(format!(
                    "checkpoint.shape.{key} = {said}: the checkpoint's config.json has {found}"
                )));
            }
        }
        Ok(())
    }

    /// By the names of run files.
    fn sizes(&self) -> [(&'static str, i64); 11] {
        [
            ("d_model", self.d_model),
            ("n_layers", self.n_layers),
            ("n_heads", self.n_heads),
            ("n_kv_heads", self.n_kv_heads),
            ("head_size", self.head_size),
            ("attention_block", self.attention_block.unwrap_or(0)),
            ("mlp_hidden_size", self.mlp_hidden_size),
            ("n_experts", self.n_experts.unwrap_or(0)),
            ("experts_per_token", self.experts_per_token.unwrap_or(0)),
            ("embedding_size", self.embedding_size),
            ("max_sequence_length", self.max_sequence_length),
        ]
    }

    /// The document for `config.json`, with every field that the family's own code asks for.
    pub fn to_json(&self) -> Vec<u8> {
        let traits = self.family.traits();
        let mut document: Map<String, Value> =
            serde_json::from_str(traits.document).expect("the documents of families are tested");
        document.insert("model_type".into(), traits.model_type.into());
        document.insert("vocab_size".into(), self.embedding_size.into());
        if traits.keys.n_kv_heads.is_none() {
            document.insert("n_kv_heads".into(), self.n_heads.into());
        }
        for (name, key) in keys(self.family) {
            let value = match name {
                "rope_theta" => self.rope_theta.into(),
                "rms_norm_eps" => self.rms_norm_eps.into(),
                "eos_token_id" => self.eos_token_id.into(),
                "pad_token_id" => self.pad().into(),
                "mask_token_id" => self.mask_token_id.into(),
                _ => {
                    let size = self.sizes().into_iter().find(|(own, _)| *own == name);
                    size.map_or(0, |(_, size)| size).into()
                }
            };
            document.insert(key.to_owned(), value);
        }
        serde_json::to_vec_pretty(&document).expect("numbers and strings serialise")
    }

    /// Tokens of a block, where queries see no block behind their own.
    pub(super) fn block(&self) -> Option<i64> {
        match self.family.traits().attends_to {
            AttendsTo::All => None,
            AttendsTo::ItsBlockAndBefore => self.attention_block,
            AttendsTo::Before => Some(1),
        }
    }

    /// How many rows before a position its prediction stands.
    pub(crate) fn rows_before(&self) -> usize {
        usize::from(self.family.traits().predicts == Predicts::Next)
    }

    /// Whether what is behind a position has no part in its prediction.
    pub(crate) fn is_causal(&self) -> bool {
        self.family.traits().attends_to == AttendsTo::Before
    }

    /// The id of the padding token.
    pub fn pad(&self) -> i64 {
        self.pad_token_id.unwrap_or(self.eos_token_id)
    }
}

#[cfg(test)]
mod tests;
