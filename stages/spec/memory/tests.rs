//! The formula on the published model, whose counts are known, and how estimates are printed.

use super::*;

fn llada_8b() -> Sizes {
    Sizes { d_model: 4096, n_layers: 32, mlp_hidden_size: 12_288, vocabulary: 126_464 }
}

fn published(head: bool) -> LoraConfig {
    toml::from_str(&format!("head = {head}")).unwrap()
}

/// AGRPO's setting: prompts of up to 200 tokens, 256 of a completion in blocks of 32, eight states a pass.
fn workload() -> Workload {
    let pass = |sequences, queried| PassSizes { sequences, length: 456, queried };
    Workload {
        sizes: llada_8b(),
        precision: Precision::Bf16,
        lora: Some(published(false)),
        inputs_in_memory: false,
        rollout: pass(8, 32),
        rollout_rows: 8,
        cached_sequences: 0,
        gradient: pass(8, 2),
        checkpointing: true,
        other_policies: 0,
        shards: 8,
        evaluation: pass(8, 32),
        threads: 1,
    }
}

fn part(estimate: &Estimate, name: &str) -> u64 {
    estimate.parts.iter().find(|part| part.name == name).map_or(0, |part| part.bytes)
}

fn stage(workload: &Workload, kind: StageKind) -> Estimate {
    workload.stage(kind).unwrap()
}

#[test]
fn numbers_are_counted_as_published() {
    assert_eq!(llada_8b().weights(), 8_015_581_184);
    assert_eq!(llada_8b().adapter(&published(false)), 167_772_160);
    assert_eq!(llada_8b().adapter(&published(true)), 167_772_160 + 8_355_840);
}

#[test]
fn the_large_model_part_by_part() {
    let plain = Workload { checkpointing: false, ..workload() };
    let whole = Workload { lora: None, ..plain.clone() };
    let kinds = StageKind::ALL.map(|kind| workload().stage(kind));
    let gradients = [&plain, &whole].map(|workload| workload.stage(StageKind::Gradient));
    let lines = kinds.into_iter().chain(gradients).flatten().map(|found| found.to_string());
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r"
    rollout 17.6 GiB: weights 14.9 GiB, block at work 1.8 GiB, adapters 640 MiB, program 200 MiB
    gradient 20.7 GiB: weights 14.9 GiB, block at work 2.8 GiB, block inputs 912 MiB, adapters 640 MiB, gradients 640 MiB, gradients of passes 640 MiB, program 200 MiB
    update 3.9 GiB: output 1.9 GiB, moments 1.2 GiB, new policy 640 MiB, program 200 MiB
    evaluation 17.6 GiB: weights 14.9 GiB, block at work 1.8 GiB, adapters 640 MiB, program 200 MiB
    gradient 48.5 GiB: activations 29.7 GiB, weights 14.9 GiB, block at work 1.8 GiB, adapters 640 MiB, gradients 640 MiB, gradients of passes 640 MiB, program 200 MiB
    gradient 100.9 GiB: gradients 29.9 GiB, gradients of passes 29.9 GiB, activations 25.2 GiB, weights 14.9 GiB, block at work 912 MiB, program 200 MiB
    ");
}

/// What each choice is made for.
#[test]
fn choices_move_their_own_parts() {
    let (kind, with) = (StageKind::Gradient, workload());
    let without = Workload { checkpointing: false, ..with.clone() };
    assert!(stage(&with, kind).bytes() + (5 << 30) < stage(&without, kind).bytes());
    let doubled = PassSizes { sequences: 16, ..with.gradient };
    let doubled = Workload { gradient: doubled, ..with.clone() };
    let inputs = |workload: &Workload| part(&stage(workload, kind), "block inputs");
    assert_eq!(inputs(&doubled), 2 * inputs(&with));
    let cached = Workload { cached_sequences: 8, ..with.clone() };
    let cache = part(&stage(&cached, StageKind::Rollout), "cache");
    assert_eq!(cache, 2 * 32 * 4096 * 456 * 8 * 2);
    let compared = Workload { other_policies: 1, ..with.clone() };
    let weights = |workload: &Workload| part(&stage(workload, kind), "weights");
    assert_eq!(weights(&compared), weights(&with), "adapters stand on one base");
    let whole = Workload { lora: None, ..with.clone() };
    let compared = Workload { other_policies: 1, ..whole.clone() };
    assert_eq!(weights(&compared), 2 * weights(&whole));
    let side_by_side = Workload { threads: 4, ..with.clone() };
    assert_eq!(inputs(&side_by_side), 4 * inputs(&with));
    assert_eq!(weights(&side_by_side), weights(&with), "threads share a policy");
}

#[test]
fn an_estimate_that_is_too_large_lists_its_parts() {
    let estimate = stage(&workload(), StageKind::Gradient);
    assert_eq!(estimate.fits(estimate.bytes()), Ok(()));
    let refused = estimate.fits(8 << 30).unwrap_err();
    assert_eq!(refused.available, 8 << 30);
    insta::assert_snapshot!(refused, @"a stage of kind gradient needs about 20.7 GiB of memory, 8.0 GiB are available: weights 14.9 GiB, block at work 2.8 GiB, block inputs 912 MiB, adapters 640 MiB, gradients 640 MiB, gradients of passes 640 MiB, program 200 MiB");
}

#[test]
fn a_run_file_has_an_estimate() {
    let text = include_str!("../../../jobs/runs/countdown.toml");
    let run = crate::run::Run::parse(text).unwrap();
    let workload = Workload::of(&run, 24, 8);
    assert_eq!(workload.gradient, PassSizes { sequences: 64, length: 16, queried: 8 });
    assert_eq!((workload.rollout_rows, workload.shards, workload.other_policies), (1024, 2, 0));
    let peak = workload.stage(StageKind::Gradient).unwrap().bytes();
    assert!((200 << 20..300 << 20).contains(&peak), "{peak}");
}
