//! The autoregressive rival against transformers' `LlamaForCausalLM`: logits, greedy completions and gradients. Its folder
//! is this project's own, wherever `AGRPO_GOLDEN` points.

use std::collections::BTreeMap;

use agrpo_compute::model::PADDING;
use agrpo_spec::PositionRule;
use tch::{Kind, Tensor};

use super::forward::{apart, compare, logits, mean_loss};
use super::generate::{completions, greedy};
use super::{in_folder, policy_of};
use crate::golden::ids;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/llama_tiny");

fn tensors(name: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(format!("{FOLDER}/{name}")).unwrap().into_iter().collect()
}

/// Our logits of a position stand in their row before it.
#[test]
fn logits_are_those_of_transformers() {
    let (policy, all) = (policy_of(&in_folder(FOLDER.as_ref())), tensors("expected.safetensors"));
    let padded = all["padded.attention_mask"].eq(0);
    for (name, ids, hidden) in [
        ("forward", all["forward.input_ids"].shallow_clone(), None),
        ("padded", all["padded.input_ids"].masked_fill(&padded, PADDING), Some(&padded)),
    ] {
        let last = ids.size()[1] - 1;
        let mut ours = logits(&policy, &ids).narrow(1, 1, last);
        if let Some(hidden) = hidden {
            ours = ours.masked_fill(&hidden.narrow(1, 0, last).unsqueeze(-1), 0.0);
        }
        let worst = apart(&ours, &all[&format!("{name}.logits")].narrow(1, 0, last));
        assert!(worst < 1e-4, "{name}: largest difference {worst}");
    }
}

#[test]
fn greedy_completions_are_those_of_transformers() {
    let (policy, all) = (policy_of(&in_folder(FOLDER.as_ref())), tensors("expected.safetensors"));
    let (prompt, output) = (&all["generate.0.prompt"], &all["generate.0.output"]);
    let tokens = output.size()[1] - prompt.size()[1];
    let count = u32::try_from(tokens).unwrap();
    let mut sampler = greedy(count, count, PositionRule::LeftToRight);
    sampler.block_tokens = 1;
    let ours = completions(&policy, prompt, &sampler);
    assert_eq!(ours.completion_ids, ids(&output.narrow(1, prompt.size()[1], tokens)));
}

#[test]
fn gradients_are_those_of_transformers() {
    let policy = policy_of(&in_folder(FOLDER.as_ref()));
    let all = tensors("expected_gradient.safetensors");
    policy.require_grad();
    let loss = mean_loss(&policy, &all);
    assert!(apart(&loss, &all["loss"]) < 1e-5);
    loss.backward();
    let worst = compare(&policy.gradients(), &all);
    assert!(worst < 1e-4, "{worst}");
    assert_eq!(loss.kind(), Kind::Float);
}
