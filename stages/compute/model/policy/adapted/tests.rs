//! Tests of an adapter of a run: it begins as its base, its files are PEFT's and its own, and the base
//! is neither changed nor held twice.

use agrpo_spec::{Family, Files, Real};
use tch::{Kind, Tensor};

use super::*;
use crate::model::tests::{logits, loss, small, small_of};
use crate::{model::Queries, model::linear::of_kind};

fn section(targets: &[&str], head: bool) -> LoraConfig {
    LoraConfig {
        rank: 3,
        alpha: Real::new(6.0).unwrap(),
        targets: targets.iter().map(|&target| target.to_owned()).collect(),
        head,
        rslora: false,
        merge_for_sampling: false,
    }
}

/// The small policy with an adapter that changes something.
fn moved(lora: &LoraConfig) -> Policy {
    moved_of(Family::Llada, lora)
}

fn moved_of(family: Family, lora: &LoraConfig) -> Policy {
    let policy = small_of(family).with_new_adapter(lora, Seed::new(4)).unwrap();
    for (n, (_, leaf)) in (1..).zip(policy.weights.adapters()) {
        let numbers = Tensor::arange(leaf.numel() as i64, (Kind::Float, tch::Device::Cpu));
        let change = ((numbers + n).sin() * 0.2).view_as(leaf);
        drop(leaf.shallow_clone().g_add_(&change));
    }
    policy
}

/// In every family: PEFT's files are read again as the same policy, and the merged policy computes the same.
#[test]
fn adapters_of_all_families_are_read_again_and_merged() {
    for family in Family::ALL {
        let names = family.traits().tensors.targets();
        for (targets, head) in [(&names[..], true), (&names[1..2], false), (&[], true)] {
            let lora = section(targets, head);
            let policy = moved_of(family, &lora);
            let (all, files) = (logits(&policy, &Queries::All), folder(&policy));
            let read = Policy::from_folder(&files).unwrap();
            assert!(same(&read.parameters(), &policy.parameters()), "{family:?}");
            assert_eq!(logits(&read, &Queries::All), all, "{family:?}");
            let apart = (logits(&read.merged(), &Queries::All) - &all).abs().max();
            assert!(apart.double_value(&[]) < 1e-5, "{family:?}");
            let exported = crate::model::MergedWeights::open(&files).unwrap();
            assert_eq!(exported.config().family, family);
        }
    }
}

/// A run's folder: the base's files and the adapter's.
fn folder(policy: &Policy) -> Files {
    let mut files = policy.without_adapter().to_files().unwrap();
    files.extend(policy.adapter_files().unwrap().unwrap());
    files
}

fn same(a: &NamedTensors, b: &NamedTensors) -> bool {
    a.keys().eq(b.keys()) && a.iter().all(|(name, tensor)| *tensor == b[name])
}

#[test]
fn a_new_adapter_is_its_base_to_the_bit() {
    let every = section(&LoraConfig::MODULES, true);
    let policy = small().with_new_adapter(&every, Seed::new(1)).unwrap();
    for queries in [Queries::All, Queries::Range { start: 1, len: 3 }] {
        assert_eq!(logits(&policy, &queries), logits(&small(), &queries));
    }
    for (name, matrix) in policy.parameters() {
        let bound = 1.0 / (matrix.size()[1] as f64).sqrt();
        let largest = matrix.abs().max().double_value(&[]);
        let is_drawn = name.contains("lora_A");
        assert!(if is_drawn { largest > 0.7 * bound && largest <= bound } else { largest == 0.0 });
    }
    policy.require_grad();
    loss(&policy).backward();
    let gradients = policy.gradients();
    let norm = |of: &str| -> f64 {
        let of = gradients.iter().filter(|(name, _)| name.contains(of));
        of.map(|(_, gradient)| gradient.abs().sum(Kind::Double).double_value(&[])).sum()
    };
    assert!(norm("lora_B") > 0.0 && norm("lora_A") == 0.0);
}

/// What is drawn for a module follows from the seed and the module alone.
#[test]
fn a_draw_does_not_depend_on_the_other_targets() {
    let draw = |lora: &LoraConfig, seed| {
        small().with_new_adapter(lora, Seed::new(seed)).unwrap().parameters()
    };
    let (all, one) =
        (draw(&section(&LoraConfig::MODULES, true), 1), draw(&section(&["v_proj"], false), 1));
    assert_eq!((all.len(), one.len()), (2 * 15, 2 * 2));
    assert!(one.iter().all(|(name, matrix)| all[name] == *matrix));
    assert!(!same(&one, &draw(&section(&["v_proj"], false), 2)));
}

#[test]
fn a_folder_with_an_adapter_is_read_as_it_was_written() {
    for (targets, head) in [
        (&LoraConfig::MODULES[..], false),
        (&["ff_out"], false),
        (&[], true),
        (&["ff_out", "q_proj"], true),
    ] {
        let lora = section(targets, head);
        let policy = moved(&lora);
        let files = folder(&policy);
        let read = Policy::from_folder(&files).unwrap();
        let read = read.ready_to_train(Some(&lora), Seed::new(9)).unwrap();
        assert_eq!(read.adapter(), policy.adapter());
        assert!(same(&read.parameters(), &policy.parameters()));
        assert_eq!(read.adapter_files().unwrap(), policy.adapter_files().unwrap());
        assert_eq!(logits(&read, &Queries::All), logits(&policy, &Queries::All));
        let has_head = read.parameters().keys().any(|name| name.contains("transformer.ff_out"));
        assert_eq!(has_head, head);
        let (adapter, matrices) = adapter_of(&files, Some(&lora), Seed::new(9)).unwrap().unwrap();
        assert!(Some(&adapter) == policy.adapter() && same(&matrices, &policy.parameters()));
    }
}

#[test]
fn an_adapter_of_another_run_is_refused() {
    let files = folder(&moved(&section(&["q_proj", "v_proj"], false)));
    let refusal = |lora: &LoraConfig| {
        Policy::from_folder(&files)
            .unwrap()
            .ready_to_train(Some(lora), Seed::new(1))
            .unwrap_err()
            .to_string()
    };
    let mut other = section(&["q_proj", "v_proj"], false);
    other.rank = 4;
    assert_begins(
        &refusal(&other),
        "the policy's adapter has the rank 3 and the scale 2, expected 4 and 1.5",
    );
    assert_begins(
        &refusal(&section(&["q_proj"], false)),
        "the policy's adapter has 4 modules, expected the 2",
    );
}

fn assert_begins(text: &str, expected: &str) {
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn merging_changes_roundings_alone_and_not_the_base() {
    let lora = section(&["k_proj", "up_proj", "ff_out"], true);
    let policy = moved(&lora);
    let base = policy.without_adapter();
    let before = logits(&base, &Queries::All);
    let expected = logits(&policy, &Queries::All);
    let merged = policy.merged();
    assert!(merged.adapter().is_none());
    let worst = (logits(&merged, &Queries::All) - &expected).abs().max().double_value(&[]);
    assert!(worst < 1e-5, "{worst}");
    assert!((expected - &before).abs().max().double_value(&[]) > 1e-2);
    assert_eq!(logits(&base, &Queries::All), before);
}

#[test]
fn policies_of_one_run_share_their_base() {
    let lora = section(&["q_proj"], false);
    let policy = moved(&lora);
    let own = folder(&policy);
    let bases = small().to_files().unwrap();
    let reference = policy.beside(&own, &bases).unwrap();
    let place = |policy: &Policy| policy.weights.wte_VxD.data_ptr();
    assert_eq!(place(&reference), place(&policy));
    assert_eq!(logits(&reference, &Queries::All), logits(&small(), &Queries::All));
    let again = policy.beside(&own, &own).unwrap();
    assert_eq!(place(&again), place(&policy));
    assert_eq!(logits(&again, &Queries::All), logits(&policy, &Queries::All));
    let mut others = bases.clone();
    others.insert(
        "config.json".into(),
        [&bases["config.json"].bytes(1 << 20).unwrap()[..], b" "].concat().into(),
    );
    assert_ne!(place(&policy.beside(&own, &others).unwrap()), place(&policy));
}

/// Over a base of half precision the adapter stays f32, and a new one is still its base.
#[test]
fn adapters_over_half_precision_stay_single() {
    let lora = section(&LoraConfig::MODULES, true);
    let half = |policy: Policy| {
        let weights = policy.weights.map(|tensor| of_kind(tensor, Kind::BFloat16));
        Policy { weights, ..policy }
    };
    let policy = half(small()).with_new_adapter(&lora, Seed::new(1)).unwrap();
    assert_eq!(logits(&policy, &Queries::All), logits(&half(small()), &Queries::All));
    assert_eq!(logits(&policy, &Queries::All).kind(), Kind::BFloat16);
    policy.require_grad();
    loss(&policy).backward();
    assert!(policy.gradients().values().all(|gradient| gradient.kind() == Kind::Float));
    let exact = moved(&lora);
    let close = half(small()).with_adapter(&exact.adapter_files().unwrap().unwrap()).unwrap();
    let worst = (logits(&close, &Queries::All) - logits(&exact, &Queries::All)).abs().max();
    assert!(worst.double_value(&[]) < 0.1);
    assert!(close.parameters().values().all(|matrix| matrix.kind() == Kind::Float));
}
