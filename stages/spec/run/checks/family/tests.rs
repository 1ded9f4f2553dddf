//! What run files of each family may say, and how the rest is refused.

use crate::run::config::tests::words;
use crate::{Family, LoraConfig, Run, encode};

/// The smoke run with other lines for `n_heads = 4` and for the first `block_tokens = 8`.
fn own(keys: &str, block: u32) -> Result<Run, String> {
    let smoke = include_str!("../../../../../jobs/runs/smoke.toml");
    let text = smoke
        .replacen("\nn_heads = 4", &format!("\n{keys}"), 1)
        .replace("\nblock_tokens = 8", &format!("\nblock_tokens = {block}"));
    Run::parse(&text).map_err(|error| error.to_string())
}

fn refused(keys: &str) -> String {
    own(keys, 4).unwrap_err()
}

const SDAR: &str = "family = \"sdar\"\nn_heads = 4\nattention_block = 4";

/// The run of a checkpoint in words, of a family with such keys of its shape.
fn checkpoint(keys: &str, changes: &[(&str, &str)]) -> Result<Run, String> {
    let changes = [&[("checkpoint.shape", keys)][..], changes].concat();
    Run::parse(&words("agrpo", &changes)).map_err(|error| error.to_string())
}

#[test]
fn every_family_has_its_own_keys() {
    let of_family = |keys: &str, block| own(keys, block).unwrap();
    let llada = of_family("n_heads = 4", 8);
    assert_eq!(of_family("family = \"llada\"\nn_heads = 4", 8).id(), llada.id());
    let mut ids = vec![llada.id()];
    for (keys, block) in [
        ("family = \"dream\"\nn_heads = 4", 8),
        ("family = \"dream\"\nn_heads = 4\nn_kv_heads = 2", 8),
        (SDAR, 4),
        (&format!("{SDAR}\nn_kv_heads = 1"), 4),
        // Three heads of 16 of a residual stream of 64.
        ("family = \"sdar\"\nn_heads = 3\nhead_size = 16\nattention_block = 8", 8),
        ("family = \"llada-moe\"\nn_heads = 4\nn_experts = 8\nexperts_per_token = 2", 8),
        ("family = \"llada-moe\"\nn_heads = 4\nn_experts = 8\nexperts_per_token = 3", 8),
        ("family = \"llama\"\nn_heads = 4", 1),
    ] {
        let run = of_family(keys, block);
        assert!(!ids.contains(&run.id()), "{keys}");
        ids.push(run.id());
        // What is written out is the same run.
        let text = toml::to_string(run.config()).unwrap();
        assert_eq!(Run::parse(&text).unwrap().id(), run.id(), "{text}");
    }
    // What the heads are anyway makes no other run.
    let same = of_family("family = \"llama\"\nn_heads = 4\nn_kv_heads = 4\nhead_size = 16", 1);
    assert_eq!(same.id(), of_family("family = \"llama\"\nn_heads = 4", 1).id());
    let shape = checkpoint("family = \"dream\"\nn_kv_heads = 1", &[]).unwrap();
    assert_eq!(shape.config().family(), Family::Dream);
}

/// Of the runs of other families that are in the checkout.
#[test]
fn run_files_of_families_are_valid() {
    for (family, text) in [
        (Family::Dream, include_str!("../../../../../tests/runs/dream-sudoku.toml")),
        (Family::Sdar, include_str!("../../../../../tests/runs/sdar-sudoku.toml")),
        (Family::Llama, include_str!("../../../../../tests/runs/llama-sudoku.toml")),
        (Family::LladaMoe, include_str!("../../../../../tests/runs/llada-moe-sudoku.toml")),
    ] {
        assert_eq!(Run::parse(text).unwrap().config().family(), family);
    }
    let nothing = crate::ArtifactDigest::of(b"");
    for (family, weights, text) in [
        (
            Family::Dream,
            7_615_616_512,
            include_str!("../../../../../jobs/runs/dream-7b-gsm8k.toml"),
        ),
        (Family::Sdar, 8_190_735_360, include_str!("../../../../../jobs/runs/sdar-8b-gsm8k.toml")),
        (
            Family::LladaMoe,
            7_356_880_896,
            include_str!("../../../../../jobs/runs/llada-moe-7b-gsm8k.toml"),
        ),
    ] {
        let named = crate::sources(text).unwrap();
        let mut digests: std::collections::BTreeMap<_, _> =
            named.into_iter().map(|source| (source.key, nothing)).collect();
        digests.extend(
            ["checkpoint.config", "checkpoint.tokenizer"].map(|key| (key.to_owned(), nothing)),
        );
        let run = Run::parse(&crate::with_digests(text, &digests).unwrap()).unwrap();
        assert_eq!(run.config().family(), family);
        assert_eq!(crate::memory::Workload::of(&run, 0, 640).sizes.weights(), weights);
    }
}

#[test]
fn keys_that_a_family_lacks_or_cannot_have_are_named() {
    let all = [
        refused("n_heads = 4\nn_kv_heads = 2"),
        refused("n_heads = 4\nhead_size = 16"),
        refused("n_heads = 4\nattention_block = 4"),
        refused("family = \"dream\"\nn_heads = 4\nn_kv_heads = 3"),
        refused("family = \"dream\"\nn_heads = 4\nn_kv_heads = 0"),
        refused("family = \"dream\"\nn_heads = 4\nhead_size = 16"),
        refused("family = \"dream\"\nn_heads = 3"),
        refused("family = \"sdar\"\nn_heads = 4"),
        refused("family = \"sdar\"\nn_heads = 4\nattention_block = 0"),
        refused("family = \"sdar\"\nn_heads = 4\nattention_block = 4\nhead_size = 5"),
        refused("n_heads = 4\nn_experts = 4"),
        refused("family = \"llada-moe\"\nn_heads = 4\nn_experts = 4"),
        refused("family = \"llada-moe\"\nn_heads = 4\nn_experts = 4\nexperts_per_token = 5"),
        checkpoint("n_kv_heads = 1", &[]).unwrap_err(),
        checkpoint("family = \"sdar\"", &[]).unwrap_err(),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    model.n_kv_heads = 2: expected no such key: LLaDA has a head of keys for each of queries
    model.head_size = 16: expected no such key: heads of LLaDA have the size d_model / n_heads
    model.attention_block = 4: expected no such key: LLaDA does not attend in blocks
    model.n_kv_heads = 3: expected a divisor of model.n_heads = 4
    model.n_kv_heads = 0: expected a divisor of model.n_heads = 4
    model.head_size = 16: expected no such key: heads of Dream have the size d_model / n_heads
    model.n_heads = 3: expected a divisor of model.d_model = 64 that leaves an even head size
    model.attention_block = left out: expected the tokens of a block, such as 4: SDAR attends to its block and those before it
    model.attention_block = 0: expected an integer from 1 to 65536
    model.head_size = 5: expected an even number from 2 to 65536
    model.n_experts = 4: expected no such key: LLaDA has no experts
    model.experts_per_token = left out: expected a number: LLaDA-MoE has experts
    model.experts_per_token = 5: expected an integer from 1 to 4
    checkpoint.shape.n_kv_heads = 1: expected no such key: LLaDA has a head of keys for each of queries
    checkpoint.shape.attention_block = left out: expected the tokens of a block, such as 4: SDAR attends to its block and those before it
    "#);
}

#[test]
fn a_family_that_is_not_known_is_refused_with_those_that_are() {
    let of = |family: &str| refused(&format!("family = \"{family}\"\nn_heads = 4"));
    let known = format!("expected one of {}", Family::ALL.map(Family::key).join(", "));
    let qwen = format!("`family = \"qwen\"`: unknown value `qwen` of `model.family`: {known}");
    assert!(of("qwen").ends_with(&qwen), "{}", of("qwen"));
    assert!(of("dreams").ends_with(&format!("did you mean `dream`? {known}")), "{}", of("dreams"));
}

#[test]
fn a_run_samples_in_the_blocks_that_its_model_attends_in() {
    let smoke = |from: &str, to: &str| {
        let text = include_str!("../../../../../jobs/runs/smoke.toml");
        let text = text.replacen("\nn_heads = 4", &format!("\n{SDAR}"), 1);
        let text = text.replace("\nblock_tokens = 8", "\nblock_tokens = 4");
        assert!(text.contains(from), "{from}");
        Run::parse(&text.replacen(from, to, 1)).unwrap_err().to_string()
    };
    let shape = "family = \"sdar\"\nattention_block = 4";
    let all = [
        own(SDAR, 8).unwrap_err(),
        smoke("\nblock_tokens = 4           # Tokens of a block. Default", "\nblock_tokens = 8 #"),
        smoke("cache = \"none\"", "cache = \"prefix\""),
        smoke("cache = \"none\"             # As", "cache = \"dual\" # As"),
        smoke("kind = \"agrpo\"", "kind = \"merged-step\""),
        smoke("kind = \"agrpo\"", "kind = \"ar-grpo\""),
        checkpoint(shape, &[]).unwrap_err(),
        own("family = \"llama\"\nn_heads = 4", 8).unwrap_err(),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    rollout.block_tokens = 8: expected 4: SDAR attends in blocks of model.attention_block = 4
    evaluation.block_tokens = 8: expected 4: SDAR attends in blocks of model.attention_block = 4
    rollout.cache = "prefix": expected "none": SDAR counts blocks from the prompt's first token, so the completions of a pass share none
    evaluation.cache = "dual": expected "none": SDAR counts blocks from the prompt's first token, so the completions of a pass share none
    estimator.kind = "merged-step": expected another kind: it cuts trajectories of equally many steps, and SDAR counts blocks from the prompt, so that rows take different numbers of steps
    estimator.kind = "ar-grpo": expected another kind, or model.attention_block = 1: it writes blocks of one token
    rollout.block_tokens = 8: expected 4: SDAR attends in blocks of checkpoint.shape.attention_block = 4
    rollout.block_tokens = 8: expected 1: Llama is autoregressive, and writes from left to right
    "#);
    // A cell of a grid has the evaluation's blocks, and any length and steps of them.
    let run = own(&format!("{SDAR}\nn_kv_heads = 2"), 4).unwrap();
    let mut config = run.config().clone();
    config.evaluation.grid = crate::Appended(Some(vec!["16x8".parse().unwrap()]));
    assert!(Run::resolve(config).is_ok());
}

/// Modules that are left out are the family's; another family's are refused by its name.
#[test]
fn adapters_are_of_the_family_s_modules() {
    assert_eq!(Family::Llada.traits().tensors.targets(), LoraConfig::MODULES);
    let targets = |keys: &str, changes: &[(&str, &str)]| {
        let run = checkpoint(keys, changes)?;
        Ok::<_, String>(run.config().lora.clone().unwrap().targets)
    };
    assert_eq!(targets("", &[]).unwrap(), LoraConfig::MODULES);
    let dream = "family = \"dream\"\nn_kv_heads = 1";
    let all = Family::Dream.traits().tensors.targets();
    assert_eq!(targets(dream, &[]).unwrap(), all);
    let written = format!("targets = {all:?}");
    let written = checkpoint(dream, &[("lora", &written)]).unwrap();
    assert_eq!(written.id(), checkpoint(dream, &[]).unwrap().id());
    let some = targets(dream, &[("lora", "targets = [\"o_proj\", \"q_proj\"]")]).unwrap();
    assert_eq!(some, ["o_proj", "q_proj"]);
    let wrong = targets(dream, &[("lora", "targets = [\"ff_out\"]")]).unwrap_err();
    insta::assert_snapshot!(wrong, @r#"lora.targets = "ff_out": expected modules of a block of Dream: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj; lora.head is for the head"#);
}

/// The bytes of a shape of LLaDA's are those from before there were families.
#[test]
fn a_shape_without_a_family_keeps_its_bytes() {
    let run = own("n_heads = 4", 8).unwrap();
    let bytes = encode(run.config().model.as_ref().unwrap());
    assert_eq!(bytes.len(), 4 * 4 + 3 * 8);
    assert_eq!(bytes[..16], [64, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 160, 0, 0, 0]);
    let dream = own("family = \"dream\"\nn_heads = 4", 8).unwrap();
    let of_dream = encode(dream.config().model.as_ref().unwrap());
    assert_eq!(of_dream[8..16], [4, 0, 0, 128, 1, 0, 0, 0]);
}
