//! LLaDA (Nie et al., arXiv 2502.09992): Llama blocks that see in both directions.

use super::traits::{
    AttendsTo, BlocksFrom, ChatLayout, ConfigKeys, Conventions, EndsAfter, FamilyTraits, Predicts,
    Spread, TensorNames, ThresholdRule,
};

pub(super) const TRAITS: FamilyTraits = FamilyTraits {
    name: "LLaDA",
    model_type: "llada",
    keys: ConfigKeys {
        d_model: "d_model",
        n_layers: "n_layers",
        n_heads: "n_heads",
        n_kv_heads: None,
        head_size: None,
        mlp_hidden_size: "mlp_hidden_size",
        n_experts: None,
        experts_per_token: None,
        embedding_size: "embedding_size",
        max_sequence_length: "max_sequence_length",
        attention_block: None,
    },
    document: r#"{
        "activation_type": "silu", "alibi": false, "architectures": ["LLaDAModelLM"],
        "attention_dropout": 0.0, "attention_layer_norm": false,
        "attention_layer_norm_with_affine": true, "bias_for_layer_norm": false,
        "block_group_size": 1, "block_type": "llama", "embedding_dropout": 0.0,
        "flash_attention": false, "include_bias": false, "include_qkv_bias": false,
        "init_device": "cpu", "init_fn": "mitchell", "init_std": 0.02, "input_emb_norm": false,
        "layer_norm_type": "rms", "layer_norm_with_affine": true, "mlp_ratio": 4,
        "multi_query_attention": null, "precision": "fp32", "residual_dropout": 0.0, "rope": true,
        "rope_full_precision": true, "scale_logits": false, "weight_tying": false
    }"#,
    tensors: TensorNames {
        prefix: "model.transformer.",
        embedding: "model.transformer.wte",
        norm: "model.transformer.ln_f",
        head: "model.transformer.ff_out",
        blocks: "model.transformer.blocks.",
        attention_norm: "attn_norm",
        modules: ["q_proj", "k_proj", "v_proj", "attn_out", "ff_proj", "up_proj", "ff_out"],
        qk_norms: None,
        mlp_norm: "ff_norm",
        experts: None,
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
        begin: "<|startoftext|>",
        roles: ["system", "user", "assistant"],
        role_start: "<|start_header_id|>",
        role_end: "<|end_header_id|>\n\n",
        turn_end: "<|eot_id|>",
        strips: true,
        system: None,
        pieces: &["<|startoftext|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        mask: "<|mdm_mask|>",
    },
    code: Some(["modeling_llada.LLaDAModelLM", "GSAI-ML/LLaDA-8B-Instruct"]),
};
