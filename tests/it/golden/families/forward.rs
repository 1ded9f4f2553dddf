//! Logits and gradients of Dream, SDAR and LLaDA-MoE against their modelling code.

use std::collections::BTreeMap;

use agrpo_compute::model::{PADDING, Policy, Queries};
use tch::{Kind, Tensor};

use super::super::tensors;
use super::policy;

const ALL: [&str; 3] = ["dream_tiny", "sdar_tiny", "llada_moe_tiny"];

pub(super) fn logits(policy: &Policy, ids_bl: &Tensor) -> Tensor {
    policy.head(&policy.hidden(ids_bl, &Queries::All).unwrap())
}

pub(super) fn apart(ours: &Tensor, expected: &Tensor) -> f64 {
    (ours - expected).abs().max().double_value(&[])
}

#[test]
fn logits_are_the_families_own() {
    for (name, ids, expected) in [
        ("dream_tiny", "forward.input_ids", "forward.shifted_logits"),
        ("sdar_tiny", "forward.input_ids", "forward.logits"),
        ("sdar_tiny", "odd.input_ids", "odd.logits"),
        ("llada_moe_tiny", "forward.input_ids", "forward.logits"),
    ] {
        let all = tensors(&format!("{name}/expected.safetensors"));
        let worst = apart(&logits(&policy(name), &all[ids]), &all[expected]);
        assert!(worst < 1e-4, "{name}, {expected}: largest difference {worst}");
    }
}

/// Dream counts positions from the first token that is no padding, we from the first place; only differences of positions
/// matter. Its rows are compared one position to the left of ours, where that is no padding.
#[test]
fn padding_is_seen_by_no_other_position() {
    for (name, shift) in [("dream_tiny", 1), ("llada_moe_tiny", 0)] {
        let all = tensors(&format!("{name}/expected.safetensors"));
        let padded_bl = all["padded.attention_mask"].eq(0);
        let ids_bl = all["padded.input_ids"].masked_fill(&padded_bl, PADDING);
        let ours = logits(&policy(name), &ids_bl);
        let length = ids_bl.size()[1] - shift;
        let is_token = padded_bl.logical_not().narrow(1, 0, length).unsqueeze(-1);
        let is_token = is_token.to_kind(Kind::Float);
        let expected = all["padded.logits"].narrow(1, 0, length) * &is_token;
        let worst = apart(&(ours.narrow(1, shift, length) * &is_token), &expected);
        assert!(worst < 1e-4, "{name}: largest difference {worst}");
    }
}

/// The mean cross-entropy at masked positions, and its gradient: tensors as a whole, or their norms.
#[test]
fn gradients_are_the_families_own() {
    for name in ALL {
        let policy = policy(name);
        let all = tensors(&format!("{name}/expected_gradient.safetensors"));
        policy.require_grad();
        let loss = mean_loss(&policy, &all);
        assert!(apart(&loss, &all["loss"]) < 1e-5, "{name}");
        loss.backward();
        let worst = compare(&policy.gradients(), &all);
        assert!(worst < 1e-4, "{name}: {worst}");
    }
}

/// The mean cross-entropy at masked positions.
pub(super) fn mean_loss(policy: &Policy, all: &BTreeMap<String, Tensor>) -> Tensor {
    let logp_blv = logits(policy, &all["input_ids"]).log_softmax(-1, Kind::Float);
    let target_bl1 = all["targets"].unsqueeze(-1);
    let logp_bl = logp_blv.gather(2, &target_bl1, false).squeeze_dim(-1);
    let masked_bl = all["masked"].to_kind(Kind::Float);
    -(logp_bl * &masked_bl).sum(Kind::Float) / masked_bl.sum(Kind::Float)
}

/// The largest difference of a tensor, as a share of its norm.
pub(super) fn compare(ours: &BTreeMap<String, Tensor>, all: &BTreeMap<String, Tensor>) -> f64 {
    let norm = |t: &Tensor| t.norm().double_value(&[]);
    let mut worst = 0f64;
    for (name, ours) in ours {
        let found = match (all.get(&format!("grad.{name}")), all.get(&format!("grad_norm.{name}")))
        {
            (Some(whole), _) => norm(&(ours - whole)) / norm(whole),
            (None, Some(expected)) => (norm(ours) / norm(expected) - 1.0).abs(),
            (None, None) => continue,
        };
        worst = worst.max(found);
    }
    worst
}
