//! SDAR (Cheng et al., arXiv 2510.06303): Qwen3 blocks, autoregressive from block to block, diffusion within one.

use super::traits::{
    AttendsTo, BlocksFrom, ChatLayout, ConfigKeys, Conventions, EndsAfter, FamilyTraits, Predicts,
    Spread, TensorNames, ThresholdRule,
};

pub(super) const TRAITS: FamilyTraits = FamilyTraits {
    name: "SDAR",
    model_type: "sdar",
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
        attention_block: Some("block_size"),
    },
    document: r#"{
        "architectures": ["SDARForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "fuse_cross_entropy": true, "hidden_act": "silu", "initializer_range": 0.02,
        "max_window_layers": 28, "rope_scaling": null, "sliding_window": null,
        "tie_word_embeddings": false, "torch_dtype": "float32", "use_cache": false,
        "use_sliding_window": false
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
        qk_norms: Some(["self_attn.q_norm", "self_attn.k_norm"]),
        mlp_norm: "post_attention_layernorm",
        experts: None,
    },
    has_qkv_bias: false,
    predicts: Predicts::Itself,
    attends_to: AttendsTo::ItsBlockAndBefore,
    sampling: Conventions {
        blocks_from: BlocksFrom::Prompt,
        spread: Spread::Even,
        threshold: ThresholdRule::AtLeastTheStep,
        ends_after: EndsAfter::AnyEnd,
    },
    chat: ChatLayout {
        begin: "",
        roles: ["system", "user", "assistant"],
        role_start: "<|im_start|>",
        role_end: "\n",
        turn_end: "<|im_end|>\n",
        strips: false,
        system: None,
        pieces: &["<|im_start|>", "<|im_end|>"],
        mask: "<|MASK|>",
    },
    code: Some(["modeling_sdar.SDARForCausalLM", "JetLM/SDAR-8B-Chat"]),
};
