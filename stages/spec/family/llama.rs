//! Llama (Touvron et al., arXiv 2302.13971): autoregressive. The rival that diffusion models are compared with; runs make
//! such models themselves.

use super::traits::{
    AttendsTo, BlocksFrom, ChatLayout, ConfigKeys, Conventions, EndsAfter, FamilyTraits, Predicts,
    Spread, TensorNames, ThresholdRule,
};

pub(super) const TRAITS: FamilyTraits = FamilyTraits {
    name: "Llama",
    model_type: "llama",
    keys: ConfigKeys {
        d_model: "hidden_size",
        n_layers: "num_hidden_layers",
        n_heads: "num_attention_heads",
        n_kv_heads: Some("num_key_value_heads"),
        head_size: Some("head_dim"),
        mlp_hidden_size: "intermediate_size",
        n_experts: None,
        experts_per_token: None,
        embedding_size: "vocab_size",
        max_sequence_length: "max_position_embeddings",
        attention_block: None,
    },
    document: r#"{
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "hidden_act": "silu", "initializer_range": 0.02, "mlp_bias": false, "pretraining_tp": 1,
        "rope_scaling": null, "tie_word_embeddings": false, "torch_dtype": "float32",
        "use_cache": true
    }"#,
    tensors: TensorNames {
        prefix: "model.",
        embedding: "model.embed_tokens",
        norm: "model.norm",
        head: "lm_head",
        blocks: "model.layers.",
        attention_norm: "input_layernorm",
        modules: [
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        ],
        qk_norms: None,
        mlp_norm: "post_attention_layernorm",
        experts: None,
    },
    has_qkv_bias: false,
    predicts: Predicts::Next,
    attends_to: AttendsTo::Before,
    sampling: Conventions {
        blocks_from: BlocksFrom::Completion,
        spread: Spread::Even,
        threshold: ThresholdRule::AtLeastOne,
        ends_after: EndsAfter::BlockOfEnds,
    },
    chat: ChatLayout {
        begin: "<|begin_of_text|>",
        roles: ["system", "user", "assistant"],
        role_start: "<|start_header_id|>",
        role_end: "<|end_header_id|>\n\n",
        turn_end: "<|eot_id|>",
        strips: true,
        system: None,
        pieces: &["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        mask: "<|mdm_mask|>",
    },
    code: None,
};
