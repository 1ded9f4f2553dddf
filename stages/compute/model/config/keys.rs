//! The keys of `config.json` that are not read: those of which only one value is supported, and those that change no
//! policy's arithmetic. Refuses any other key, since it may change the arithmetic.

use agrpo_spec::{Predicts, StageError, one_line};
use serde_json::{Map, Value, json};

use super::ModelConfig;
use crate::error::data;

/// Keys that change no policy's arithmetic: names and versions, training from scratch, dropout, kernels and
/// caches, what transformers keeps for generation and for heads that a language model lacks. What begins with
/// `_` is a note.
#[rustfmt::skip]
const WITHOUT_EFFECT: [&str; 83] = [
    "architectures", "auto_map", "dtype", "model_type", "name_or_path", "precision", "tokenizer_class", "torch_dtype",
    "transformers_version", "adapted_from", "library_name", "license",
    "dense_intermediate_size", "output_router_logits", "router_aux_loss_coef",
    "attention_dropout", "classifier_dropout", "embedding_dropout", "hidden_dropout", "residual_dropout",
    "init_cutoff_factor", "init_device", "init_fn", "init_std", "initializer_range", "mlp_ratio", "scale_emb_init",
    "activation_checkpointing", "attn_implementation", "flash_attention", "fused_loss", "gradient_checkpointing",
    "fuse_cross_entropy", "max_position_embeddings", "max_window_layers", "rope_full_precision", "use_cache", "use_return_dict",
    // Used only beside a key that is refused.
    "alibi_bias_max", "attention_layer_norm_with_affine",
    "bos_token_id", "cls_token_id", "decoder_start_token_id", "sep_token_id", "unk_token_id",
    "bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping",
    "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id",
    "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams",
    "num_return_sequences", "prefix", "remove_invalid_values", "repetition_penalty", "suppress_tokens", "temperature",
    "top_k", "top_p", "typical_p",
    "finetuning_task", "id2label", "label2id", "num_labels", "problem_type", "task_specific_params",
    "output_attentions", "output_hidden_states", "output_scores", "return_dict", "return_dict_in_generate",
    "tf_legacy_loss", "torchscript", "use_bfloat16",
];

impl ModelConfig {
    /// Refuses a key that would change what is computed, or that is not known.
    pub(super) fn check_keys(&self, document: &Map<String, Value>) -> Result<(), StageError> {
        let has_no_window = document.get("use_sliding_window") == Some(&Value::Bool(false));
        let is_free = |key: &str| {
            super::document::keys(self.family).any(|(_, read)| read == key)
                || WITHOUT_EFFECT.contains(&key)
                || key.starts_with('_')
                || key == "sliding_window" && has_no_window
        };
        for (key, found) in document.iter().filter(|(key, found)| !found.is_null() && !is_free(key))
        {
            if let Some(expected) = self.expected(key, found) {
                let (key, found) = (one_line(key), one_line(found));
                return Err(data(format!("config.json: {key} = {found}: {expected}")));
            }
        }
        Ok(())
    }

    /// The expected value of a key; `None` where the found one computes the same.
    fn expected(&self, key: &str, found: &Value) -> Option<String> {
        let only = |expected: &str| format!("expected {expected}: nothing else is computed here");
        match key {
            "vocab_size" => {
                let size = self.embedding_size;
                let is_within = |found: i64| (1..=size).contains(&found);
                let within = || format!("expected from 1 to embedding_size = {size}");
                (!found.as_i64().is_some_and(is_within)).then(within)
            }
            "layer_types" => {
                let is_full =
                    |kinds: &Vec<Value>| kinds.iter().all(|kind| kind == "full_attention");
                let expected = || only("\"full_attention\" of every layer");
                (!found.as_array().is_some_and(is_full)).then(expected)
            }
            "moe_layer_freq" => {
                let is_one = |kinds: &Vec<Value>| kinds.iter().all(|kind| kind == 1);
                let expected = || only("1 of every layer");
                (!found.as_array().is_some_and(is_one)).then(expected)
            }
            _ if key.starts_with("rope_") || key.starts_with("rotary_") => {
                let expected = || only("the plain rotary embedding of rope_theta");
                (!self.is_plain_rope(found)).then(expected)
            }
            _ => match self.plain().into_iter().find(|(plain, _)| *plain == key) {
                Some((_, values)) if values.iter().any(|value| is_same(value, found)) => None,
                Some((_, values)) if values.is_empty() => Some(only("null")),
                Some((_, values)) => {
                    let values: Vec<String> = values.iter().map(Value::to_string).collect();
                    Some(only(&values.join(" or ")))
                }
                None => Some(
                    "unknown key, which may change what is computed: remove it if it does not"
                        .to_owned(),
                ),
            },
        }
    }

    /// The only supported values of other settings, by the model's family; null counts as one of them. LLaDA's own keys
    /// first, then those of other readers.
    #[rustfmt::skip]
    fn plain(&self) -> Vec<(&'static str, Vec<Value>)> {
        let is = |value: Value| vec![value];
        let (yes, no, one) = (|| is(json!(true)), || is(json!(false)), || is(json!(1)));
        let none = Vec::new;
        let (heads, kv_heads) = (|| is(self.n_heads.into()), || is(self.n_kv_heads.into()));
        let traits = self.family.traits();
        let has = |feature: bool| is(feature.into());
        let (bias, qk_norm) = (|| has(traits.has_qkv_bias), || has(traits.tensors.qk_norms.is_some()));
        let shift = || has(traits.predicts == Predicts::Next);
        vec![
            ("activation_type", is(json!("silu"))), ("alibi", no()), ("attention_layer_norm", no()),
            ("bias_for_layer_norm", no()), ("block_group_size", one()), ("block_type", is(json!("llama"))),
            ("clip_qkv", none()), ("embedding_layer_norm", no()), ("include_bias", no()), ("include_qkv_bias", bias()),
            ("input_emb_norm", no()), ("layer_norm_type", is(json!("rms"))), ("layer_norm_with_affine", yes()),
            ("multi_query_attention", no()), ("n_kv_heads", kv_heads()), ("effective_n_kv_heads", kv_heads()),
            ("norm_after", no()), ("rope", yes()), ("scale_logits", no()), ("weight_tying", no()),

            ("hidden_size", is(self.d_model.into())), ("intermediate_size", is(self.mlp_hidden_size.into())),
            ("num_hidden_layers", is(self.n_layers.into())), ("num_attention_heads", heads()),
            ("num_key_value_heads", kv_heads()), ("head_dim", is(self.head_size.into())),
            ("hidden_act", vec![json!("silu"), json!("swish")]),
            ("hidden_activation", vec![json!("silu"), json!("swish")]),
            ("attention_bias", bias()), ("mlp_bias", no()), ("qkv_bias", bias()), ("use_bias", no()),
            ("qk_layernorm", qk_norm()), ("qk_norm", qk_norm()), ("use_qk_norm", qk_norm()),
            ("shift_logits", shift()), ("logit_shift", shift()), ("shifted_logits", shift()),
            ("tie_word_embeddings", no()), ("tie_encoder_decoder", no()),
            ("moe_router_enable_expert_bias", no()), ("moe_router_score_function", is(json!("softmax"))),
            ("norm_topk_prob", no()), ("routed_scaling_factor", one()), ("router_num_group", none()),
            ("router_topk_group", none()), ("shared_expert_intermediate_size", none()),
            ("is_causal", no()), ("is_decoder", no()), ("is_encoder_decoder", no()), ("add_cross_attention", no()),
            ("cross_attention_hidden_size", none()), ("chunk_size_feed_forward", is(json!(0))),
            ("pruned_heads", is(json!({}))), ("pretraining_tp", one()), ("quantization_config", none()),
            ("partial_rotary_factor", one()), ("use_mrope", no()), ("sliding_window", none()),
            ("use_sliding_window", no()), ("embedding_multiplier", one()), ("residual_multiplier", one()),
            ("logits_scaling", one()), ("logit_scale", one()), ("attention_multiplier", none()),
            ("query_pre_attn_scalar", is(self.head_size.into())), ("logit_softcapping", none()),
            ("logits_soft_cap", none()), ("attn_logit_softcapping", none()), ("final_logit_softcapping", none()),
        ]
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
            Value::Array(_) | Value::Bool(true) => false,
        }
    }
}

/// Whether two values are one, however a number is written.
fn is_same(one: &Value, other: &Value) -> bool {
    one == other || one.as_f64().is_some_and(|number| other.as_f64() == Some(number))
}
