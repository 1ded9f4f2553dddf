//! Dream (Ye et al., arXiv 2508.15487): Qwen2 blocks that see in both directions, whose rows predict the next position.

use super::traits::{
    AttendsTo, BlocksFrom, ChatLayout, ConfigKeys, Conventions, EndsAfter, FamilyTraits, Predicts,
    Spread, TensorNames, ThresholdRule,
};

pub(super) const TRAITS: FamilyTraits = FamilyTraits {
    name: "Dream",
    model_type: "Dream",
    keys: ConfigKeys {
        d_model: "hidden_size",
        n_layers: "num_hidden_layers",
        n_heads: "num_attention_heads",
        n_kv_heads: Some("num_key_value_heads"),
        head_size: None,
        mlp_hidden_size: "intermediate_size",
        n_experts: None,
        experts_per_token: None,
        embedding_size: "vocab_size",
        max_sequence_length: "max_position_embeddings",
        attention_block: None,
    },
    document: r#"{
        "architectures": ["DreamModel"], "attention_dropout": 0.0, "hidden_act": "silu",
        "initializer_range": 0.02, "max_window_layers": 28, "rope_scaling": null,
        "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "float32",
        "use_cache": false, "use_sliding_window": false
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
    has_qkv_bias: true,
    predicts: Predicts::Next,
    attends_to: AttendsTo::All,
    sampling: Conventions {
        blocks_from: BlocksFrom::Completion,
        spread: Spread::TimeGrid,
        threshold: ThresholdRule::AtLeastOne,
        ends_after: EndsAfter::BlockOfEnds,
    },
    chat: ChatLayout {
        begin: "",
        roles: ["system", "user", "assistant"],
        role_start: "<|im_start|>",
        role_end: "\n",
        turn_end: "<|im_end|>\n",
        strips: false,
        system: Some("You are a helpful assistant."),
        pieces: &["<|im_start|>", "<|im_end|>"],
        mask: "<|mask|>",
    },
    code: Some(["modeling_dream.DreamModel", "Dream-org/Dream-v0-Instruct-7B"]),
};
