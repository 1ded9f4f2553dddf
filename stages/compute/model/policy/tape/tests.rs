//! Tests of checkpointing: the same gradients to the bit, whatever is trained and asked.

use agrpo_spec::{Family, LoraConfig, Real, Seed};
use tch::Kind;

use super::*;
use crate::model::tests::{ids_BL, small_of};
use crate::{model::PADDING, model::linear::of_kind};

/// Gradients of a loss over the hidden states, by the plain backward pass or by the tape; two passes, so that they add
/// up.
fn gradients(
    policy: &Policy,
    ids_BL: &Tensor,
    queries: &Queries,
    checkpointing: bool,
) -> Vec<(String, Tensor)> {
    policy.zero_grad();
    policy.require_grad();
    let loss = |hidden: &Tensor| {
        policy.head(hidden).log_softmax(-1, None::<Kind>).select(-1, 6).square().sum(None::<Kind>)
    };
    for _ in 0..2 {
        if checkpointing {
            let (hidden, tape) = policy.hidden_checkpointed(ids_BL, queries).unwrap();
            loss(&hidden).backward();
            tape.backward();
        } else {
            loss(&policy.hidden(ids_BL, queries).unwrap()).backward();
        }
    }
    policy.gradients().into_iter().map(|(name, gradient)| (name, gradient.copy())).collect()
}

fn assert_same(policy: &Policy, what: &str) {
    let at = Tensor::from_slice(&[3i64, 5, 2, 1, 1, 4]).view([2, 3]);
    let padded_BL = ids_BL();
    drop(padded_BL.get(1).narrow(0, 0, 2).fill_(PADDING));
    for ids_BL in [ids_BL(), padded_BL] {
        for queries in
            [Queries::All, Queries::Range { start: 2, len: 3 }, Queries::At(at.shallow_clone())]
        {
            let plain = gradients(policy, &ids_BL, &queries, false);
            let ours = gradients(policy, &ids_BL, &queries, true);
            for ((name, plain), (_, ours)) in plain.iter().zip(&ours) {
                assert_eq!(plain, ours, "{what}, {queries:?}: {name}");
            }
            assert!(plain.iter().any(|(_, gradient)| gradient.abs().max().double_value(&[]) > 0.0));
        }
    }
}

#[test]
fn gradients_are_those_of_the_plain_way_back() {
    crate::use_one_thread();
    for family in Family::ALL {
        let small = || small_of(family);
        let weights = small().weights.map(|tensor| of_kind(tensor, Kind::BFloat16));
        let half = Policy { weights, ..small() };
        assert_same(&small(), &format!("all weights, {family:?}"));
        assert_same(&small().to_double(), &format!("all weights in f64, {family:?}"));
        assert_same(&half, &format!("all weights in bf16, {family:?}"));
        let section = |targets: &[&str], head| LoraConfig {
            rank: 2,
            alpha: Real::new(3.0).unwrap(),
            targets: targets.iter().map(|&target| target.to_owned()).collect(),
            head,
            rslora: false,
            merge_for_sampling: false,
        };
        let every = family.traits().tensors.targets();
        for (targets, head) in
            [(&every[..], true), (&["v_proj"], false), (&every[6..], true), (&[], true)]
        {
            let lora = section(targets, head);
            for base in [small(), Policy { weights: half.weights.base(), ..small() }] {
                let policy = base.with_new_adapter(&lora, Seed::new(2)).unwrap();
                for (_, leaf) in policy.weights.adapters() {
                    drop(leaf.shallow_clone().g_add_scalar_(0.05));
                }
                assert_same(&policy, &format!("{family:?}, adapters of {targets:?}, head {head}"));
            }
        }
    }
}
