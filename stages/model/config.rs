//! `config.json` of a LLaDA checkpoint: the fields that this project reads, and the document that it
//! writes. A configuration that asks for anything but bidirectional Llama blocks is refused.

use agrpo_spec::{CheckpointShape, Files, ModelShape, StageError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::weights::checkpoint_shapes;
use crate::error::data;
use crate::folder;
use crate::tensor_windows::one_line;

/// No size of a model comes near.
const LARGEST: i64 = 1 << 24;
const DEEPEST: i64 = 1 << 12;

/// What a policy's arithmetic depends on, and its special tokens.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ModelConfig {
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
    #[serde(default)]
    pub pad_token_id: Option<i64>,
    /// The mask.
    pub mask_token_id: i64,
}

/// The only values of the other settings whose arithmetic is computed here; null is as good.
fn architecture() -> [(&'static str, Value); 16] {
    [
        ("activation_type", json!("silu")),
        ("alibi", json!(false)),
        ("attention_layer_norm", json!(false)),
        ("bias_for_layer_norm", json!(false)),
        ("block_group_size", json!(1)),
        ("block_type", json!("llama")),
        ("clip_qkv", json!(null)),
        ("include_bias", json!(false)),
        ("include_qkv_bias", json!(false)),
        ("input_emb_norm", json!(false)),
        ("layer_norm_type", json!("rms")),
        ("layer_norm_with_affine", json!(true)),
        ("multi_query_attention", json!(false)),
        ("rope", json!(true)),
        ("scale_logits", json!(false)),
        ("weight_tying", json!(false)),
    ]
}

/// Keys of the rotary embedding that are read, or that change nothing in f32.
const OUR_ROPE: [&str; 2] = ["rope_theta", "rope_full_precision"];

/// The only values of keys that LLaDA's own code does not know, and that others read; null is as good.
fn variants(head_size: i64) -> [(&'static str, Vec<Value>); 10] {
    [
        ("sliding_window", vec![]),
        ("use_sliding_window", vec![json!(false)]),
        ("partial_rotary_factor", vec![json!(1), json!(1.0)]),
        ("head_dim", vec![json!(head_size)]),
        ("quantization_config", vec![]),
        ("attention_bias", vec![json!(false)]),
        ("mlp_bias", vec![json!(false)]),
        ("norm_after", vec![json!(false)]),
        ("attn_logit_softcapping", vec![]),
        ("final_logit_softcapping", vec![]),
    ]
}

/// Another model's configuration is told by its name, not by the first key that it lacks.
fn is_ours(document: &Value) -> Result<(), StageError> {
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
    /// The configuration of a new model.
    pub fn new(
        shape: &ModelShape,
        vocabulary: i64,
        eos_token_id: i64,
        mask_token_id: i64,
        max_sequence_length: i64,
    ) -> Self {
        Self {
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

    /// Reads a folder's `config.json`.
    pub(crate) fn of_folder(files: &Files) -> Result<Self, StageError> {
        Self::from_json(&folder::small(files, "policy", "config.json")?)
    }

    /// Reads `config.json`.
    pub fn from_json(bytes: &[u8]) -> Result<Self, StageError> {
        let read = |error: serde_json::Error| {
            data(format!("config.json: {error}; expected a LLaDA configuration"))
        };
        let document: Value = serde_json::from_slice(bytes).map_err(read)?;
        is_ours(&document)?;
        let config = Self::deserialize(&document).map_err(read)?;
        let heads = [("n_kv_heads", config.n_heads.into())];
        for (key, expected) in architecture().into_iter().chain(heads) {
            let found = &document[key];
            if !found.is_null() && *found != expected {
                return Err(data(format!("config.json: {key} = {found}: expected {expected}")));
            }
        }
        config.refuse_variants(&document)?;
        let sizes = [config.d_model, config.n_layers, config.n_heads, config.mlp_hidden_size];
        let id_ok = |id: i64| (0..config.embedding_size).contains(&id);
        if sizes.iter().chain([&config.embedding_size]).any(|n| !(1..=LARGEST).contains(n))
            || config.n_layers > DEEPEST
        {
            return Err(data(format!(
                "config.json: sizes must be from 1 to {LARGEST}, n_layers at most {DEEPEST}"
            )));
        }
        if config.d_model % (2 * config.n_heads) != 0 {
            return Err(data("config.json: d_model must be n_heads heads of an even size"));
        }
        if config.rope_theta <= 0.0 || config.rms_norm_eps < 0.0 {
            return Err(data(
                "config.json: rope_theta must be above 0 and rms_norm_eps at least 0",
            ));
        }
        if [config.eos_token_id, config.mask_token_id, config.pad()].iter().any(|&id| !id_ok(id)) {
            return Err(data("config.json: a special token lies outside the vocabulary"));
        }
        Ok(config)
    }

    /// Keys of other models, and of later versions of transformers, that would change what is computed.
    fn refuse_variants(&self, document: &Value) -> Result<(), StageError> {
        let refuse = |key: &str, found: &Value, expected: &str| {
            let found = one_line(found);
            Err(data(format!("config.json: {key} = {found}: {expected} is computed here")))
        };
        for (key, found) in document.as_object().into_iter().flatten() {
            let is_rope = key.starts_with("rope_") || key.starts_with("rotary_");
            if is_rope && !OUR_ROPE.contains(&key.as_str()) && !self.is_plain_rope(found) {
                return refuse(key, found, "only the plain rotary embedding of rope_theta");
            }
        }
        let has_no_window = document["use_sliding_window"] == false;
        for (key, plain) in variants(self.head_size()) {
            let found = &document[key];
            let is_unused = key == "sliding_window" && has_no_window;
            if !found.is_null() && !plain.contains(found) && !is_unused {
                let expected = plain.iter().map(Value::to_string).collect::<Vec<_>>().join(" or ");
                return refuse(key, found, &format!("only {expected}"));
            }
        }
        let mut layers = document["layer_types"].as_array().into_iter().flatten();
        match layers.find(|kind| *kind != "full_attention") {
            Some(kind) => refuse("layer_types", kind, "only full_attention"),
            None => Ok(()),
        }
    }

    /// Whether settings of the rotary embedding change nothing about it.
    fn is_plain_rope(&self, found: &Value) -> bool {
        match found {
            Value::Null | Value::Bool(false) => true,
            // A share or a factor of all.
            Value::Number(_) => found.as_f64() == Some(1.0),
            Value::String(kind) => kind == "default",
            Value::Object(entries) => entries.iter().all(|(key, value)| match key.as_str() {
                "rope_theta" => value.as_f64() == Some(self.rope_theta),
                _ => self.is_plain_rope(value),
            }),
            _ => false,
        }
    }

    /// Whether these are the sizes that a run file says. Data error that names the first other one.
    pub fn check_shape(&self, shape: &CheckpointShape) -> Result<(), StageError> {
        let sizes = [
            ("d_model", shape.d_model, self.d_model),
            ("n_layers", shape.n_layers, self.n_layers),
            ("n_heads", shape.n_heads, self.n_heads),
            ("mlp_hidden_size", shape.mlp_hidden_size, self.mlp_hidden_size),
            ("embedding_size", shape.embedding_size, self.embedding_size),
            ("max_sequence_length", shape.max_sequence_length, self.max_sequence_length),
        ];
        match sizes.into_iter().find(|&(_, said, found)| i64::from(said) != found) {
            Some((key, said, found)) => Err(data(format!(
                "checkpoint.shape.{key} = {said}: the checkpoint's config.json has {found}"
            ))),
            None => Ok(()),
        }
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

    /// Names and shapes of a checkpoint's tensors, sorted by name.
    pub fn tensors(&self) -> Vec<(String, Vec<i64>)> {
        checkpoint_shapes(self)
    }

    /// The token of padding.
    pub fn pad(&self) -> i64 {
        self.pad_token_id.unwrap_or(self.eos_token_id)
    }

    /// Size of a head, E.
    pub fn head_size(&self) -> i64 {
        self.d_model / self.n_heads
    }
}
