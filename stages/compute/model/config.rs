//! `config.json` of a LLaDA checkpoint: the fields that this project reads, and the document that it
//! writes. Refuses a configuration of anything but bidirectional Llama blocks.

use agrpo_grading::json_object;
use agrpo_spec::{CheckpointShape, Family, Files, ModelShape, memory::Sizes, one_line};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Result, data, data_from};
use crate::folder;

mod keys;

/// Far above the sizes of any model or sequence.
const LARGEST: i64 = 1 << 24;
const DEEPEST: i64 = 1 << 12;

/// The sizes and constants of a policy's arithmetic, and its special tokens.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct ModelConfig {
    /// The family of models.
    #[serde(skip)]
    pub family: Family,
    /// Tokens of a block of the model's attention, where it has blocks.
    #[serde(skip)]
    pub attention_block: Option<i64>,
    /// Heads of keys and values; as many as of queries, or a divisor.
    #[serde(skip)]
    pub n_kv_heads: i64,
    /// Size of a head, E.
    #[serde(skip)]
    pub head_size: i64,
    /// Width of the residual stream, D.
    pub d_model: i64,
    /// Transformer blocks.
    pub n_layers: i64,
    /// Attention heads, H.
    pub n_heads: i64,
    /// Width inside the SwiGLU, M.
    pub mlp_hidden_size: i64,
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

/// Refuses another model's configuration by the model's name, not by the first key that it lacks.
fn is_ours(document: &Map<String, Value>) -> Result<()> {
    let Some(found) = document.get("model_type") else { return Ok(()) };
    if found.is_null() || found == "llada" {
        return Ok(());
    }
    let why = match found.as_str().unwrap_or_default().to_ascii_lowercase().as_str() {
        "dream" => "Dream has biases, grouped keys and logits shifted by one position",
        "qwen2" | "qwen3" | "llama" | "mistral" | "gemma" | "gemma2" | "gemma3" | "gpt2" => {
            "an autoregressive model knows no mask and looks back only"
        }
        _ => "the weights of another architecture mean something else",
    };
    Err(data(format!(
        "config.json: model_type = {}: this program computes LLaDA (model_type \"llada\"); {why}",
        one_line(found)
    )))
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
            attention_block: shape.attention_block.map(Into::into),
            n_kv_heads: shape.n_kv_heads.unwrap_or(shape.n_heads).into(),
            head_size: shape.head_size.unwrap_or(shape.d_model / shape.n_heads).into(),
            d_model: shape.d_model.into(),
            n_layers: shape.n_layers.into(),
            n_heads: shape.n_heads.into(),
            mlp_hidden_size: shape.mlp_hidden_size.into(),
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
        let unread = |error: serde_json::Error| {
            let reason =
                format!("config.json: {}; expected a LLaDA configuration", one_line(&error));
            data_from(reason, error)
        };
        let document = json_object(bytes).map_err(unread)?;
        is_ours(&document)?;
        let config = Self::deserialize(&document).map_err(unread)?;
        let refuse = |what: String| Err(data(format!("config.json: {what}")));
        for (key, found) in config.sizes() {
            let most = if key == "n_layers" { DEEPEST } else { LARGEST };
            if !(1..=most).contains(&found) {
                return refuse(format!("{key} = {found}: expected from 1 to {most}"));
            }
        }
        if config.d_model % (2 * config.n_heads) != 0 {
            return refuse("d_model must be n_heads heads of an even size".into());
        }
        if config.rope_theta <= 0.0 || config.rms_norm_eps < 0.0 {
            return refuse("rope_theta must be above 0 and rms_norm_eps at least 0".into());
        }
        let ids = [
            ("eos_token_id", config.eos_token_id),
            ("mask_token_id", config.mask_token_id),
            ("pad_token_id", config.pad()),
        ];
        let size = config.embedding_size;
        if let Some((key, id)) = ids.iter().find(|(_, id)| !(0..size).contains(id)) {
            return refuse(format!(
                "{key} = {id}: a special token lies outside the vocabulary of embedding_size = {size}"
            ));
        }
        config.check_keys(&document)?;
        Ok(config)
    }

    /// Checks that the sizes are those of a run file. Data error that names the first that differs.
    pub fn check_shape(&self, shape: &CheckpointShape) -> Result<()> {
        let said = [
            shape.d_model,
            shape.n_layers,
            shape.n_heads,
            shape.mlp_hidden_size,
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

    fn sizes(&self) -> [(&'static str, i64); 6] {
        [
            ("d_model", self.d_model),
            ("n_layers", self.n_layers),
            ("n_heads", self.n_heads),
            ("mlp_hidden_size", self.mlp_hidden_size),
            ("embedding_size", self.embedding_size),
            ("max_sequence_length", self.max_sequence_length),
        ]
    }

    /// The document for `config.json`, with every field that LLaDA's own code asks for.
    pub fn to_json(&self) -> Vec<u8> {
        let document = json!({
            "activation_type": "silu", "alibi": false, "architectures": ["LLaDAModelLM"],
            "attention_dropout": 0.0, "attention_layer_norm": false,
            "attention_layer_norm_with_affine": true, "bias_for_layer_norm": false,
            "block_group_size": 1, "block_type": "llama", "d_model": self.d_model,
            "embedding_dropout": 0.0, "embedding_size": self.embedding_size,
            "eos_token_id": self.eos_token_id, "flash_attention": false, "include_bias": false,
            "include_qkv_bias": false, "init_device": "cpu", "init_fn": "mitchell",
            "init_std": 0.02, "input_emb_norm": false, "layer_norm_type": "rms",
            "layer_norm_with_affine": true, "mask_token_id": self.mask_token_id,
            "max_sequence_length": self.max_sequence_length,
            "mlp_hidden_size": self.mlp_hidden_size, "mlp_ratio": 4, "model_type": "llada",
            "multi_query_attention": null, "n_heads": self.n_heads, "n_kv_heads": self.n_heads,
            "n_layers": self.n_layers, "pad_token_id": self.pad(), "precision": "fp32",
            "residual_dropout": 0.0, "rms_norm_eps": self.rms_norm_eps, "rope": true,
            "rope_full_precision": true, "rope_theta": self.rope_theta, "scale_logits": false,
            "vocab_size": self.embedding_size, "weight_tying": false,
        });
        serde_json::to_vec_pretty(&document).expect("numbers and strings serialise")
    }

    /// The id of the padding token.
    pub fn pad(&self) -> i64 {
        self.pad_token_id.unwrap_or(self.eos_token_id)
    }

    /// Size of a head, E.
    pub fn head_size(&self) -> i64 {
        self.d_model / self.n_heads
    }
}

#[cfg(test)]
mod tests;
