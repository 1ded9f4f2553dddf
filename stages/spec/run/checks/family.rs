//! Checks what families of models differ in: the keys of a shape, and what a run may ask of models that attend in blocks.
//!
//! Whether logits are shifted, or heads have norms, is no key: the family decides it.

use crate::family::{AttendsTo, BlocksFrom};
use crate::run::base::{Base, FamilyShape};
use crate::run::error::{RunError, setting, within};
use crate::run::{Cache, EstimatorKind, RunConfig};

/// Checks the section of that name: that the family has its keys, and that its heads are whole and even.
pub(super) fn shape(section: &str, shape: &FamilyShape) -> Result<(), RunError> {
    let &FamilyShape { family, d_model, n_heads, .. } = shape;
    let (name, keys) = (family.traits().name, &family.traits().keys);
    let key = |key: &str| format!("{section}.{key}");
    within(&key("n_heads"), n_heads, 1..=1024)?;
    if let Some(heads) = shape.n_kv_heads {
        let found = || setting(key("n_kv_heads"), heads);
        found().ensure(
            keys.n_kv_heads.is_some(),
            format!("expected no such key: {name} has a head of keys for each of queries"),
        )?;
        found().ensure(
            heads > 0 && n_heads.is_multiple_of(heads),
            format!("expected a divisor of {section}.n_heads = {n_heads}"),
        )?;
    }
    match shape.head_size {
        Some(size) => {
            let found = || setting(key("head_size"), size);
            found().ensure(
                keys.head_size.is_some(),
                format!("expected no such key: heads of {name} have the size d_model / n_heads"),
            )?;
            found().ensure(
                (2..=65_536).contains(&size) && size.is_multiple_of(2),
                "expected an even number from 2 to 65536",
            )?;
        }
        None => setting(key("n_heads"), n_heads).ensure(
            d_model.is_multiple_of(2 * n_heads),
            format!(
                "expected a divisor of {section}.d_model = {d_model} that leaves an even head size"
            ),
        )?,
    }
    attention_block(&key("attention_block"), shape)?;
    experts(section, shape)
}

fn attention_block(key: &str, shape: &FamilyShape) -> Result<(), RunError> {
    let traits = shape.family.traits();
    let (name, has_blocks) = (traits.name, traits.attends_to == AttendsTo::ItsBlockAndBefore);
    match shape.attention_block {
        Some(block) if has_blocks => within(key, block, 1..=65_536),
        None if has_blocks => Err(setting(key, "left out").refused(format!(
            "expected the tokens of a block, such as 4: {name} attends to its block and those before it"
        ))),
        Some(block) => Err(setting(key, block)
            .refused(format!("expected no such key: {name} does not attend in blocks"))),
        None => Ok(()),
    }
}

fn experts(section: &str, shape: &FamilyShape) -> Result<(), RunError> {
    let name = shape.family.traits().name;
    let has_experts = shape.family.traits().tensors.experts.is_some();
    let key = |key: &str| format!("{section}.{key}");
    for (name_of_key, found) in
        [("n_experts", shape.n_experts), ("experts_per_token", shape.experts_per_token)]
    {
        match found {
            Some(found) if !has_experts => {
                return Err(setting(key(name_of_key), found)
                    .refused(format!("expected no such key: {name} has no experts")));
            }
            None if has_experts => {
                return Err(setting(key(name_of_key), "left out")
                    .refused(format!("expected a number: {name} has experts")));
            }
            _ => {}
        }
    }
    let (Some(experts), Some(chosen)) = (shape.n_experts, shape.experts_per_token) else {
        return Ok(());
    };
    within(&key("n_experts"), experts, 1..=4096)?;
    within(&key("experts_per_token"), chosen, 1..=experts)
}

/// Checks that a run samples in the blocks that its model attends in, where it attends in blocks, and that it asks for
/// nothing that needs the blocks of all completions at the same positions.
pub(super) fn blocks(config: &RunConfig, base: &Base) -> Result<(), RunError> {
    let (section, shape) = base.of_family();
    let traits = shape.family.traits();
    let name = traits.name;
    config.estimator.check_family(shape.family)?;
    if let Some(block) = shape.attention_block {
        for (key, tokens) in [
            ("rollout.block_tokens", config.rollout.block_tokens),
            ("evaluation.block_tokens", config.evaluation_block_tokens()),
        ] {
            setting(key, tokens).ensure(
                tokens == block,
                format!(
                    "expected {block}: {name} attends in blocks of {section}.attention_block = {block}"
                ),
            )?;
        }
        let kind = config.estimator.kind;
        setting("estimator.kind", format!("\"{kind}\"")).ensure(
            kind != EstimatorKind::ArGrpo || block == 1,
            format!(
                "expected another kind, or {section}.attention_block = 1: it writes blocks of one token"
            ),
        )?;
    }
    if traits.attends_to == AttendsTo::Before {
        left_to_right(config, name)?;
    }
    if traits.sampling.blocks_from == BlocksFrom::Completion {
        return Ok(());
    }
    let why = format!("{name} counts blocks from the prompt's first token");
    for (key, cache) in
        [("rollout.cache", config.rollout.cache), ("evaluation.cache", config.evaluation.cache)]
    {
        setting(key, format!("\"{cache}\"")).ensure(
            cache == Cache::None,
            format!("expected \"none\": {why}, so the completions of a pass share none"),
        )?;
    }
    Ok(())
}

/// Checks that an autoregressive model writes from left to right, and is asked for nothing that masks tokens.
fn left_to_right(config: &RunConfig, name: &str) -> Result<(), RunError> {
    for (key, tokens) in [
        ("rollout.block_tokens", config.rollout.block_tokens),
        ("evaluation.block_tokens", config.evaluation_block_tokens()),
    ] {
        setting(key, tokens).ensure(
            tokens == 1,
            format!("expected 1: {name} is autoregressive, and writes from left to right"),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
