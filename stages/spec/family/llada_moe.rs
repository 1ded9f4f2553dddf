//! LLaDA-MoE (Zhu et al., arXiv 2509.24389): blocks that see in both directions, with norms of queries and keys, in which
//! each token chooses a few experts.

use super::traits::{
    AttendsTo, BlocksFrom, ChatLayout, ConfigKeys, Conventions, EndsAfter, ExpertNames,
    FamilyTraits, Predicts, Spread, TensorNames, ThresholdRule,
};

pub(super) const TRAITS: FamilyTraits = FamilyTraits {
    name: "LLaDA-MoE",
    model_type: "lladamoe",
    keys: ConfigKeys {
        d_model: "hidden_size",
        n_layers: "num_hidden_layers",
        n_heads: "num_attention_heads",
        n_kv_heads: Some("num_key_value_heads"),
        head_size: None,
        mlp_hidden_size: "expert_intermediate_size",
        n_experts: Some("num_experts"),
        experts_per_token: Some("num_experts_per_tok"),
        embedding_size: "vocab_size",
        max_sequence_length: "max_position_embeddings",
        attention_block: None,
    },
    document: r#"{
        "architectures": ["LLaDAMoEModelLM"], "attention_bias": false, "attention_dropout": 0.0,
        "clip_qkv": null, "hidden_act": "silu", "initializer_range": 0.02,
        "moe_router_enable_expert_bias": false, "moe_router_score_function": "softmax",
        "norm_topk_prob": null, "output_router_logits": false, "partial_rotary_factor": 1,
        "qk_layernorm": true, "rope_scaling": null, "routed_scaling_factor": 1,
        "router_num_group": null, "router_topk_group": null,
        "shared_expert_intermediate_size": null, "tie_word_embeddings": false,
        "torch_dtype": "float32", "use_cache": false
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
            "gate_proj",
            "up_proj",
            "down_proj",
        ],
        qk_norms: Some(["self_attn.q_norm", "self_attn.k_norm"]),
        mlp_norm: "post_attention_layernorm",
        experts: Some(ExpertNames { router: "mlp.gate", before: "mlp.experts." }),
    },
    has_qkv_bias: false,
    predicts: Predicts::Itself,
    attends_to: AttendsTo::All,
    sampling: Conventions {
        blocks_from: BlocksFrom::Completion,
        spread: Spread::Even,
        threshold: ThresholdRule::AtLeastOne,
        ends_after: EndsAfter::BlockOfEnds,
    },
    chat: ChatLayout {
        begin: "",
        roles: ["SYSTEM", "HUMAN", "ASSISTANT"],
        role_start: "<role>",
        role_end: "</role>",
        turn_end: "<|role_end|>",
        strips: false,
        system: Some("detailed thinking off"),
        pieces: &["<role>", "</role>", "<|role_end|>"],
        mask: "<|mask|>",
    },
    code: Some(["modeling_lladamoe.LLaDAMoEModelLM", "inclusionAI/LLaDA-MoE-7B-A1B-Instruct"]),
};
