//! The keys of `config.json` that are accepted, and the errors of the others.

use serde_json::{Value, json};

use super::*;

fn small() -> Value {
    let config = ModelConfig {
        family: agrpo_spec::Family::Llada,
        attention_block: None,
        n_kv_heads: 2,
        head_size: 4,
        d_model: 8,
        n_layers: 2,
        n_heads: 2,
        mlp_hidden_size: 12,
        n_experts: None,
        experts_per_token: None,
        embedding_size: 16,
        max_sequence_length: 64,
        rope_theta: 1e4,
        rms_norm_eps: 1e-5,
        eos_token_id: 1,
        pad_token_id: None,
        mask_token_id: 2,
    };
    serde_json::from_slice(&config.to_json()).unwrap()
}

fn read(key: &str, value: Value) -> Result<ModelConfig, String> {
    let mut document = small();
    document[key] = value;
    ModelConfig::from_json(document.to_string().as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn keys_of_another_arithmetic_are_refused() {
    for (key, value) in [
        ("logit_softcapping", json!(30.0)),
        ("residual_multiplier", json!(0.22)),
        ("embedding_multiplier", json!(12)),
        ("attention_multiplier", json!(0.007_812_5)),
        ("logits_scaling", json!(8.0)),
        ("tie_word_embeddings", json!(true)),
        ("hidden_act", json!("gelu")),
        ("num_key_value_heads", json!(1)),
        ("layer_types", json!("sliding_attention")),
        ("vocab_size", json!(0)),
        ("vocab_size", json!(17)),
        ("a_later_kind_of_attention", json!(true)),
        ("a_later_norm", json!(false)),
    ] {
        let error = read(key, value).unwrap_err();
        assert!(error.starts_with(&format!("config.json: {key} = ")), "{error}");
        assert!(error.contains(": expected ") || error.contains(": unknown key"), "{error}");
    }
}

/// All that published LLaDA files have, and what transformers writes of a Llama, a Qwen2 or a Dream beside the
/// arithmetic, is no reason to refuse one.
#[test]
fn keys_of_published_files_are_known() {
    let published = json!({
        "alibi_bias_max": 8.0, "auto_map": {"AutoConfig": "configuration_llada.LLaDAConfig"},
        "init_cutoff_factor": null, "precision": "amp_bf16", "transformers_version": "4.46.3", "use_cache": false,
        "bos_token_id": 1, "hidden_act": "silu", "initializer_range": 0.02, "max_position_embeddings": 8192,
        "max_window_layers": 28, "mlp_bias": false, "attention_bias": false, "pretraining_tp": 1, "rope_scaling": null,
        "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_mrope": false,
        "use_sliding_window": false, "_attn_implementation_autoset": true, "_name_or_path": "x", "dtype": "float32",
        "hidden_size": 8, "num_attention_heads": 2, "residual_multiplier": 1.0, "logits_scaling": 1,
        "embedding_multiplier": 1, "id2label": {"0": "LABEL_0"}, "vocab_size": 15, "anything_else": null,
    });
    let mut document = small();
    document.as_object_mut().unwrap().extend(published.as_object().unwrap().clone());
    ModelConfig::from_json(document.to_string().as_bytes()).unwrap();
}

#[test]
fn a_refusal_names_what_is_computed() {
    insta::assert_snapshot!(
        [
            read("sliding_window", json!(4096)),
            read("quantization_config", json!({"bits": 4})),
            read("final_logit_softcapping", json!(30.0)),
            read("hidden_act", json!("gelu")),
            read("partial_rotary_factor", json!(0.5)),
            read("rope_scaling", json!({"type": "ntk"})),
            read("layer_types", json!(["sliding_attention"])),
            read("vocab_size", json!(10_000_000_000_000_000_000_u64)),
            read("embedding_size", json!(10_000_000_000_000_000_000_u64)),
            read("max_sequence_length", json!(1_u64 << 40)),
            read("n_layers", json!(5000)),
            read("mask_token_id", json!(16)),
            read("a_later_norm", json!(1)),
        ]
        .map(Result::unwrap_err)
        .join("\n"),
        @r#"
        config.json: sliding_window = 4096: expected null: nothing else is computed here
        config.json: quantization_config = {"bits":4}: expected null: nothing else is computed here
        config.json: final_logit_softcapping = 30.0: expected null: nothing else is computed here
        config.json: hidden_act = "gelu": expected "silu" or "swish": nothing else is computed here
        config.json: partial_rotary_factor = 0.5: expected 1: nothing else is computed here
        config.json: rope_scaling = {"type":"ntk"}: expected the plain rotary embedding of rope_theta: nothing else is computed here
        config.json: layer_types = ["sliding_attention"]: expected "full_attention" of every layer: nothing else is computed here
        config.json: vocab_size = 10000000000000000000: expected from 1 to embedding_size = 16
        config.json: embedding_size = 10000000000000000000: expected a whole number below 2^63
        config.json: max_sequence_length = 1099511627776: expected from 1 to 16777216
        config.json: n_layers = 5000: expected from 1 to 4096
        config.json: mask_token_id = 16: a special token lies outside the vocabulary of embedding_size = 16
        config.json: a_later_norm = 1: unknown key, which may change what is computed: remove it if it does not
        "#
    );
    let long = read("quantization_config", "x".repeat(200_000).into()).unwrap_err();
    assert!(long.len() < 400, "{long}");
    let long = read("d_model", "x".repeat(200_000).into()).unwrap_err();
    assert!(long.len() < 400, "{long}");
}

/// The document of a small model of a family, with one key changed.
fn of_family(family: Family, key: &str, value: Value) -> String {
    let shape = crate::testing::shape_of(family, 0.1);
    let config = ModelConfig::new(&shape, 16, 1, 2, 64);
    let mut document: Value = serde_json::from_slice(&config.to_json()).unwrap();
    document[key] = value;
    match ModelConfig::from_json(document.to_string().as_bytes()) {
        Ok(read) => format!("{:?}", read.family),
        Err(error) => error.to_string(),
    }
}

#[test]
fn keys_of_a_family_are_named_with_what_is_expected() {
    for family in Family::ALL {
        assert_eq!(of_family(family, "transformers_version", json!("4")), format!("{family:?}"));
    }
    insta::assert_snapshot!(
        [
            of_family(Family::Dream, "model_type", Value::Null),
            of_family(Family::Dream, "num_key_value_heads", json!(3)),
            of_family(Family::Dream, "shift_logits", json!(false)),
            of_family(Family::Llada, "shift_logits", json!(true)),
            of_family(Family::Sdar, "block_size", json!("4")),
            of_family(Family::Sdar, "block_size", Value::Null),
            of_family(Family::Sdar, "block_size", json!(70_000)),
            of_family(Family::Sdar, "head_dim", json!(5)),
            of_family(Family::Sdar, "rms_norm_eps", json!("x")),
            of_family(Family::Llama, "hidden_size", json!(4.5)),
            of_family(Family::LladaMoe, "num_experts", json!(4_000_000)),
            of_family(Family::LladaMoe, "num_experts_per_tok", json!(5)),
            of_family(Family::LladaMoe, "norm_topk_prob", json!(true)),
        ]
        .join("\n"),
        @r#"
        config.json: model_type = null: expected "llada" (LLaDA), "Dream" (Dream), "sdar" (SDAR), "llama" (Llama) or "lladamoe" (LLaDA-MoE), the families that are computed here; the weights of another architecture mean something else
        config.json: num_key_value_heads = 3: expected a divisor of the 2 heads
        config.json: shift_logits = false: expected true: nothing else is computed here
        config.json: shift_logits = true: expected false: nothing else is computed here
        config.json: block_size = "4": expected a whole number below 2^63
        config.json: block_size = null: expected a whole number below 2^63
        config.json: block_size = 70000: expected from 1 to 65536
        config.json: head_dim = 5: expected an even number
        config.json: rms_norm_eps = "x": expected a number
        config.json: hidden_size = 4.5: expected a whole number below 2^63
        config.json: num_experts = 4000000: expected from 1 to 4096
        config.json: num_experts_per_tok = 5: expected at most the 4 experts
        config.json: norm_topk_prob = true: expected false: nothing else is computed here
        "#
    );
}

#[test]
fn a_key_stands_once() {
    let text = small().to_string().replacen('{', "{\"d_model\":16,", 1);
    let error = ModelConfig::from_json(text.as_bytes()).unwrap_err().to_string();
    assert!(error.starts_with("config.json: the key \"d_model\" stands twice"), "{error}");
}
