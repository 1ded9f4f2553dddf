//! Tests of a policy: one arithmetic in two kinds, gradients that are derivatives, and a folder
//! that is read as a whole or refused.

use std::collections::BTreeMap;

use agrpo_spec::{AttendsTo, Family, ModelShape, Real, Seed};
use tch::{Kind, Tensor, no_grad_guard};

use super::*;
use crate::tensors;

pub(super) fn small() -> Policy {
    small_of(Family::Llada)
}

/// With whatever the family may choose: shared heads of keys, heads of their own size, blocks of two tokens.
pub(super) fn small_of(family: Family) -> Policy {
    let real = |value| Real::new(value).unwrap();
    let traits = family.traits();
    let shape = ModelShape {
        family,
        n_kv_heads: traits.keys.n_kv_heads.map(|_| 1),
        head_size: traits.keys.head_size.map(|_| 6),
        attention_block: traits.keys.attention_block.map(|_| 2),
        n_experts: traits.keys.n_experts.map(|_| 4),
        experts_per_token: traits.keys.experts_per_token.map(|_| 2),
        d_model: 8,
        n_layers: 2,
        n_heads: 2,
        mlp_hidden_size: 12,
        rope_theta: real(10_000.0),
        rms_norm_eps: real(1e-5),
        init_std: real(0.3),
    };
    let policy = Policy::draw(ModelConfig::new(&shape, 10, 8, 9, 6), 0.3, Seed::new(5)).unwrap();
    // Biases and norms begin at 0 and 1; here they are anything.
    let _no_grad = no_grad_guard();
    for (n, (_, mut tensor)) in (0u64..).zip(policy.parameters()).filter(|(_, (_, t))| t.dim() == 1)
    {
        if family != Family::Llada {
            let noise = (0..u32::try_from(tensor.numel()).unwrap())
                .map(|at| Seed::new(n).uniform(at, 0) - 0.5);
            drop(
                tensor
                    .g_add_(&Tensor::from_slice(&noise.collect::<Vec<f64>>()).to_kind(Kind::Float)),
            );
        }
    }
    policy
}

pub(super) fn ids_BL() -> Tensor {
    Tensor::from_slice(&[1i64, 2, 3, 9, 9, 9, 4, 8, 9, 9, 0, 7]).view([2, 6])
}

pub(super) fn logits(policy: &Policy, queries: &Queries) -> Tensor {
    policy.head(&policy.hidden(&ids_BL(), queries).unwrap())
}

pub(super) fn loss(policy: &Policy) -> Tensor {
    let at = Tensor::from_slice(&[3i64, 5, 2, 1]).view([2, 2]);
    let logp = logits(policy, &Queries::At(at.shallow_clone())).log_softmax(-1, None::<Kind>);
    -logp.select(2, 6).mean(None::<Kind>)
}

#[test]
fn a_policy_computes_in_the_kind_of_its_weights() {
    for family in Family::ALL {
        let (single, double) = (small_of(family), small_of(family).to_double());
        let (ours, exact) = (logits(&single, &Queries::All), logits(&double, &Queries::All));
        assert_eq!((ours.kind(), exact.kind()), (Kind::Float, Kind::Double));
        let worst = (ours - exact).abs().max().double_value(&[]);
        assert!(worst > 0.0 && worst < 1e-5, "{family:?}: {worst}");
        double.require_grad();
        loss(&double).backward();
        assert!(double.gradients().values().all(|gradient| gradient.kind() == Kind::Double));
        let read = Policy::from_folder(&double.to_files().unwrap()).unwrap();
        assert!(read.parameters().values().all(|weight| weight.kind() == Kind::Float));
    }
}

/// However positions are queried, with and without a graph, they have the logits of the whole pass.
#[test]
fn queried_positions_are_those_of_the_whole_pass() {
    for family in Family::ALL {
        let policy = small_of(family);
        let whole = logits(&policy, &Queries::All);
        let at = |positions: &[i64]| {
            let all = Tensor::from_slice(positions).view([1, -1]);
            Queries::At(all.expand([2, -1], false).contiguous())
        };
        let range = |start, len| Queries::Range { start, len };
        for (queries, start, len) in
            [(range(0, 3), 0, 3), (range(2, 4), 2, 4), (at(&[0, 1]), 0, 2), (at(&[3, 4, 5]), 3, 3)]
        {
            let expected = whole.narrow(1, start, len);
            assert_eq!(logits(&policy, &queries), expected, "{family:?}, {queries:?}");
            let without = no_grad_guard();
            assert_eq!(logits(&policy, &queries), expected, "{family:?}, {queries:?}");
            drop(without);
        }
    }
}

/// What a position's prediction depends on.
#[test]
fn families_see_what_they_say() {
    for family in Family::ALL {
        let policy = small_of(family);
        let of = |ids: &[i64]| {
            let ids_BL = Tensor::from_slice(ids).view([1, -1]);
            policy.head(&policy.hidden(&ids_BL, &Queries::All).unwrap()).get(0)
        };
        let before = of(&[1, 2, 3, 9, 9, 9]);
        let moved = |position: usize| {
            let mut ids = [1, 2, 3, 9, 9, 9];
            ids[position] = 5;
            let apart: Vec<f64> =
                Vec::try_from((of(&ids) - &before).abs().sum_dim_intlist(1, false, Kind::Double))
                    .unwrap();
            apart.into_iter().map(|apart| apart > 1e-6).collect::<Vec<bool>>()
        };
        let all = vec![true; 6];
        match family.traits().attends_to {
            AttendsTo::All => assert!((0..6).all(|position| moved(position) == all)),
            AttendsTo::ItsBlockAndBefore => {
                assert_eq!(moved(0), all);
                assert_eq!(moved(3), [false, false, true, true, true, true]);
                assert_eq!(moved(4), [false, false, false, false, true, true]);
            }
            // Row i predicts position i + 1; the first row its own too.
            AttendsTo::Before => {
                assert_eq!(moved(0), all);
                assert_eq!(moved(3), [false, false, false, false, true, true]);
            }
        }
    }
}

/// Prompts of one batch may differ in length: each gives what it gives alone, whatever lies beside it.
#[test]
fn padded_sequences_give_what_they_give_alone() {
    Family::ALL.into_iter().for_each(padded_sequences);
}

fn padded_sequences(family: Family) {
    let policy = small_of(family);
    let of = |ids: &[i64], rows: i64| {
        let ids_BL = Tensor::from_slice(ids).view([rows, -1]);
        policy.head(&policy.hidden(&ids_BL, &Queries::All).unwrap())
    };
    let (long, short) = ([1i64, 2, 3, 9, 9, 9], [4i64, 8, 9, 9]);
    let padded = [PADDING, PADDING, 4, 8, 9, 9];
    let batch = of(&[long, padded].concat(), 2);
    // Where the next position is predicted, that of the first token stands at padding.
    let apart = |a: Tensor, b: Tensor| {
        (a.slice(0, 1, None, 1) - b.slice(0, 1, None, 1)).abs().max().double_value(&[])
    };
    assert!(apart(batch.get(0), of(&long, 1).get(0)) < 1e-5);
    assert!(apart(batch.get(1).narrow(0, 2, 4), of(&short, 1).get(0)) < 1e-5);
    let unseen = apart(of(&[0, 0, 4, 8, 9, 9], 1).get(0).narrow(0, 2, 4), of(&short, 1).get(0));
    assert!(unseen > 1e-3, "a token in its place would have been attended to: {unseen}");
    let other = of(&[[PADDING, 5, 6, 7, 9, 9], padded].concat(), 2);
    assert_eq!(apart(batch.get(1), other.get(1)), 0.0, "neighbours do not matter, to the bit");
}

/// Along its own gradient g the loss rises by |g|^2: to seven digits, in f64.
#[test]
fn gradients_are_derivatives() {
    Family::ALL.into_iter().for_each(derivatives);
}

fn derivatives(family: Family) {
    let policy = small_of(family).to_double();
    policy.require_grad();
    loss(&policy).backward();
    let gradients = policy.gradients();
    let square: f64 =
        gradients.values().map(|g| g.square().sum(Kind::Double).double_value(&[])).sum();
    let _no_grad = no_grad_guard();
    let moved = |by: f64| {
        for (name, mut weight) in policy.parameters() {
            drop(weight.g_add_(&(&gradients[&name] * by)));
        }
        loss(&policy).double_value(&[])
    };
    let h = 1e-6;
    let rise = (moved(h) - moved(-2.0 * h)) / (2.0 * h);
    assert!((rise / square - 1.0).abs() < 1e-7, "{rise} against {square}");
}

#[test]
fn a_configuration_of_other_arithmetic_is_refused_by_name() {
    let ours = small().config().clone();
    assert_eq!(ModelConfig::from_json(&ours.to_json()).unwrap(), ours);
    let document: serde_json::Value = serde_json::from_slice(&ours.to_json()).unwrap();
    for (key, value, expected) in [
        (
            "layer_norm_type",
            "gemma_rms".into(),
            "layer_norm_type = \"gemma_rms\": expected \"rms\"",
        ),
        ("activation_type", "gelu".into(), "activation_type = \"gelu\": expected \"silu\""),
        ("n_kv_heads", 1.into(), "n_kv_heads = 1: expected 2"),
        ("rope", false.into(), "rope = false: expected true"),
        ("input_emb_norm", true.into(), "input_emb_norm = true: expected false"),
        ("rope_theta", 0.into(), "rope_theta must be above 0"),
        ("eos_token_id", 10.into(), "a special token lies outside"),
    ] {
        let mut changed = document.clone();
        changed[key] = value;
        let bytes = serde_json::to_vec(&changed).unwrap();
        let refused = ModelConfig::from_json(&bytes).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
}

/// Any split over files is one checkpoint, but no tensor comes twice.
#[test]
fn a_checkpoint_may_lie_in_several_files() {
    Family::ALL.into_iter().for_each(several_files);
}

fn several_files(family: Family) {
    let policy = small_of(family);
    let whole = policy.to_files().unwrap();
    let mut files = BTreeMap::from([("config.json".to_owned(), whole["config.json"].clone())]);
    for (n, (name, tensor)) in policy.parameters().into_iter().enumerate() {
        let shard = tensors::write(&BTreeMap::from([(name, tensor)])).unwrap();
        files.insert(format!("model-{n:05}.safetensors"), shard.into());
    }
    let read = Policy::from_folder(&files).unwrap();
    assert_eq!(read.to_files().unwrap(), whole);
    files.insert("model.safetensors".to_owned(), whole["model.safetensors"].clone());
    let refused = Policy::from_folder(&files).unwrap_err().to_string();
    assert!(refused.contains("twice, again in model.safetensors"), "{refused}");
}
