//! The formula on the published model, whose counts are known, and how estimates are printed.

use super::*;
use crate::Family;

fn llada_8b() -> Sizes {
    Sizes {
        family: Family::Llada,
        d_model: 4096,
        n_layers: 32,
        n_heads: 32,
        n_kv_heads: 32,
        head_size: 128,
        mlp_hidden_size: 12_288,
        n_experts: 1,
        experts_per_token: 1,
        vocabulary: 126_464,
    }
}

fn dream_7b() -> Sizes {
    Sizes {
        family: Family::Dream,
        d_model: 3584,
        n_layers: 28,
        n_heads: 28,
        n_kv_heads: 4,
        head_size: 128,
        mlp_hidden_size: 18_944,
        n_experts: 1,
        experts_per_token: 1,
        vocabulary: 152_064,
    }
}

/// The sizes of Qwen3 8B, untied.
fn sdar_8b() -> Sizes {
    Sizes {
        family: Family::Sdar,
        d_model: 4096,
        n_layers: 36,
        n_heads: 32,
        n_kv_heads: 8,
        head_size: 128,
        mlp_hidden_size: 12_288,
        n_experts: 1,
        experts_per_token: 1,
        vocabulary: 151_936,
    }
}

fn published(head: bool) -> LoraConfig {
    toml::from_str(&format!("head = {head}")).unwrap()
}

/// The same of all modules of a family.
fn published_of(family: Family) -> LoraConfig {
    let targets = family.traits().tensors.targets().map(str::to_owned).into();
    LoraConfig { targets, ..published(false) }
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
        fine_tuning: None,
        threads: 1,
        fused_updates: false,
        is_gpu: false,
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
    assert_eq!(dream_7b().weights(), 7_615_616_512);
    assert_eq!(sdar_8b().weights(), 8_190_735_360);
    // 64 (I + O) numbers of each of seven matrices.
    let (q, kv, mlp) = (2 * 3584, 3584 + 512, 3584 + 18_944);
    let of_block = 64 * (2 * q + 2 * kv + 3 * mlp);
    assert_eq!(dream_7b().adapter(&published_of(Family::Dream)), 28 * of_block);
    let two = LoraConfig { targets: vec!["k_proj".into(), "down_proj".into()], ..published(false) };
    assert_eq!(sdar_8b().adapter(&two), 36 * 64 * (4096 + 1024 + 4096 + 12_288));
}

/// Counted in checkpoints that the families' own code wrote.
#[test]
fn tiny_models_have_the_weights_of_their_files() {
    let dream = Sizes {
        d_model: 32,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        head_size: 8,
        mlp_hidden_size: 56,
        n_experts: 1,
        experts_per_token: 1,
        vocabulary: 160,
        ..dream_7b()
    };
    let sdar = Sizes { family: Family::Sdar, head_size: 16, ..dream };
    assert_eq!((dream.weights(), sdar.weights()), (27_424, 33_504));
}

/// Grouped queries keep fewer keys; norms of heads keep what they norm.
#[test]
fn heads_move_their_own_parts() {
    let of = |sizes: Sizes| {
        let lora = Some(published_of(sizes.family));
        Workload { sizes, lora, checkpointing: false, cached_sequences: 8, ..workload() }
    };
    let cache = |sizes| part(&stage(&of(sizes), StageKind::Rollout), "cache");
    assert_eq!(cache(sdar_8b()), 2 * 36 * 1024 * 456 * 8 * 2);
    assert_eq!(cache(Sizes { n_kv_heads: 32, ..sdar_8b() }), 4 * cache(sdar_8b()));
    let kept = |sizes: Sizes| {
        let workload = Workload { precision: Precision::F32, lora: None, ..of(sizes) };
        workload.kept() / SINGLE
    };
    let same = Sizes { n_kv_heads: 28, ..dream_7b() };
    assert_eq!(kept(same), 8 * 3584 + 3 * 18_944);
    assert_eq!(kept(same) - kept(dream_7b()), 2 * (3584 - 512));
    assert_eq!(kept(sdar_8b()), 4 * 4096 + 2 * (4096 + 1024) + 3 * 12_288 + 4096 + 1024);
    let stages = [dream_7b(), sdar_8b()].map(|sizes| {
        let workload = of(sizes);
        [StageKind::Rollout, StageKind::Gradient].map(|kind| stage(&workload, kind).to_string())
    });
    insta::assert_snapshot!(stages.concat().join("\n"), @r"
    rollout 15.8 GiB: weights 14.2 GiB, block at work 737 MiB, adapters 616 MiB, cache 200 MiB, program 130 MiB
    gradient 40.3 GiB: activations 23.6 GiB, weights 14.2 GiB, block at work 1.2 GiB, adapters 616 MiB, gradients 616 MiB, program 130 MiB, gradients of passes 44 MiB
    rollout 17.2 GiB: weights 15.3 GiB, block at work 705 MiB, adapters 666 MiB, cache 513 MiB, program 130 MiB
    gradient 47.5 GiB: activations 29.9 GiB, weights 15.3 GiB, block at work 869 MiB, adapters 666 MiB, gradients 666 MiB, program 130 MiB, gradients of passes 37 MiB
    ");
}

#[test]
fn the_large_model_part_by_part() {
    let plain = Workload { checkpointing: false, ..workload() };
    let whole = Workload { lora: None, ..plain.clone() };
    let kinds = StageKind::ALL.map(|kind| workload().stage(kind));
    let gradients = [&plain, &whole].map(|workload| workload.stage(StageKind::Gradient));
    let lines = kinds.into_iter().chain(gradients).flatten().map(|found| found.to_string());
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r"
    rollout 16.4 GiB: weights 14.9 GiB, block at work 712 MiB, adapters 640 MiB, program 130 MiB
    gradient 18.9 GiB: weights 14.9 GiB, block at work 1.6 GiB, block inputs 912 MiB, adapters 640 MiB, gradients 640 MiB, program 130 MiB, gradients of passes 40 MiB
    update 4.5 GiB: output 1.9 GiB, moments 1.2 GiB, gradients 640 MiB, new policy 640 MiB, program 130 MiB
    updates 20.8 GiB: weights 14.9 GiB, block at work 1.6 GiB, moments 1.2 GiB, block inputs 912 MiB, adapters 640 MiB, gradients 640 MiB, mean gradient 640 MiB, program 130 MiB, gradients of passes 40 MiB
    evaluation 16.4 GiB: weights 14.9 GiB, block at work 712 MiB, adapters 640 MiB, program 130 MiB
    gradient 40.8 GiB: activations 23.6 GiB, weights 14.9 GiB, block at work 912 MiB, adapters 640 MiB, gradients 640 MiB, program 130 MiB, gradients of passes 40 MiB
    gradient 76.5 GiB: gradients 29.9 GiB, gradients of passes 29.9 GiB, weights 14.9 GiB, block at work 912 MiB, activations 826 MiB, program 130 MiB
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

/// The published setting on GPUs of 80 and of 24 GB, and where no GPU is known.
#[test]
fn auto_checkpoints_where_a_gradient_does_not_fit_without() {
    let decided =
        |asked, available| workload().decided(StageKind::Gradient, asked, available).checkpointing;
    for (available, expected) in [(Some(80 << 30), false), (Some(24 << 30), true), (None, true)] {
        assert_eq!(decided(Checkpointing::Auto, available), expected, "{available:?}");
        assert!(decided(Checkpointing::Always, available));
        assert!(!decided(Checkpointing::Never, available));
    }
}

/// Beside a GPU the host computes the optimizer's steps: what it holds for them takes nothing of the GPU, and what passes
/// hold takes nothing of the host. Where processors compute, one memory has both.
#[test]
fn each_memory_has_its_own_parts() {
    let on_processors = Workload { fused_updates: true, other_policies: 1, ..workload() };
    let on_gpu = Workload { is_gpu: true, ..on_processors.clone() };
    let adapter = 4 * 167_772_160;
    let both = stage(&on_gpu, StageKind::Updates);
    for (name, place, bytes) in [
        ("weights", Place::Device, 2 * 8_015_581_184),
        ("adapters", Place::Device, 2 * adapter),
        ("gradients", Place::Device, adapter),
        ("program", Place::Host, PROGRAM),
        ("moments", Place::Host, 2 * adapter),
        ("output", Place::Host, 3 * adapter),
    ] {
        let found = both.parts.iter().find(|part| part.name == name).unwrap();
        assert_eq!((found.place, found.bytes), (place, bytes), "{name}");
    }
    insta::assert_snapshot!(both, @"updates 19.9 GiB: weights 14.9 GiB, block at work 1.6 GiB, adapters 1.2 GiB, block inputs 912 MiB, gradients 640 MiB, context 512 MiB, gradients of passes 40 MiB; the host's 3.9 GiB: output 1.9 GiB, moments 1.2 GiB, new policy 640 MiB, program 130 MiB");
    let one = stage(&on_processors, StageKind::Updates);
    assert_eq!(one.sum(Place::Host), 0);
    assert!(one.bytes() > both.bytes());
    let update = stage(&Workload { fused_updates: false, ..on_gpu }, StageKind::Update);
    assert_eq!((update.bytes(), update.sum(Place::Host) > 0), (0, true));
    let refused = both.fits(Place::Host, 1 << 30).unwrap_err().to_string();
    let expected = "a stage of kind updates needs about 3.9 GiB of the host's memory, 1.0 GiB are";
    assert!(refused.starts_with(expected), "{refused}");
}

/// Moments that the host holds do not make a stage checkpoint that fits a GPU without.
#[test]
fn auto_asks_for_what_the_gpu_holds() {
    let fused = Workload { fused_updates: true, other_policies: 1, ..workload() };
    let checkpoints = |workload: &Workload, available| {
        let auto = Checkpointing::Auto;
        workload.clone().decided(StageKind::Updates, auto, Some(available)).checkpointing
    };
    let on_gpu = Workload { is_gpu: true, ..fused.clone() };
    let without = Workload { checkpointing: false, ..on_gpu.clone() };
    let needed = stage(&without, StageKind::Updates).bytes();
    assert!(!checkpoints(&on_gpu, needed) && checkpoints(&on_gpu, needed - 1));
    assert!(checkpoints(&fused, needed), "on processors the moments are in the same memory");
}

/// A pass drops the activations of a block when it has the block's gradient, so that a whole gradient and all activations
/// are never in memory together.
#[test]
fn a_gradient_of_all_weights_grows_as_activations_go() {
    let whole = Workload { lora: None, checkpointing: false, ..workload() };
    let bytes = |workload: &Workload, name| part(&stage(workload, StageKind::Gradient), name);
    let trained = 4 * llada_8b().weights();
    assert_eq!(bytes(&whole, "gradients of passes"), trained, "as the pass ends");
    let block = product(&[whole.gradient.tokens(), whole.kept()]);
    assert_eq!(bytes(&whole, "activations"), block);
    // With many more tokens it is the activations that are largest.
    let longer = PassSizes { sequences: 64, ..whole.gradient };
    let longer = Workload { gradient: longer, ..whole };
    assert!(bytes(&longer, "activations") > 30 * 8 * block);
    assert!(bytes(&longer, "gradients of passes") < trained / 4);
}

/// What a stage finds is what `--dry-run` said of its run.
#[test]
fn a_gradient_stage_has_the_estimate_of_its_run() {
    for text in [
        include_str!("../../../jobs/runs/smoke.toml"),
        include_str!("../../../jobs/runs/countdown.toml"),
    ] {
        let run = crate::run::Run::parse(text).unwrap();
        let of_run = Workload::of(&run, 24, 8);
        let mut plan = crate::Plan::new(run);
        let spec = loop {
            let (&key, spec) = plan.pending().iter().next().unwrap();
            if let crate::StageSpec::Gradient(spec) = spec {
                break spec.clone();
            }
            let digest = crate::ArtifactDigest::of(key.to_string().as_bytes());
            plan.finished(key, |_| Some(digest)).unwrap();
        };
        let length = of_run.gradient.length;
        let of_stage = Workload::of_gradient(&GradientSizes {
            estimator: &spec.estimator,
            sampler: &spec.sampler,
            group: spec.group,
            precision: spec.precision,
            lora: spec.lora.as_ref(),
            other_policies: 0,
            shards: 1,
            sizes: of_run.sizes,
            length,
            inputs_in_memory: true,
            threads: 1,
            is_gpu: false,
        });
        assert_eq!(stage(&of_stage, StageKind::Gradient), stage(&of_run, StageKind::Gradient));
    }
}

#[test]
fn an_estimate_that_is_too_large_lists_its_parts() {
    let estimate = stage(&workload(), StageKind::Gradient);
    assert_eq!(estimate.fits(Place::Device, estimate.bytes()), Ok(()));
    let refused = estimate.fits(Place::Device, 8 << 30).unwrap_err();
    assert_eq!(refused.available, 8 << 30);
    insta::assert_snapshot!(refused, @"a stage of kind gradient needs about 18.9 GiB of memory, 8.0 GiB are available: weights 14.9 GiB, block at work 1.6 GiB, block inputs 912 MiB, adapters 640 MiB, gradients 640 MiB, program 130 MiB, gradients of passes 40 MiB");
}

#[test]
fn a_run_file_has_an_estimate() {
    let text = include_str!("../../../jobs/runs/countdown.toml");
    let run = crate::run::Run::parse(text).unwrap();
    let workload = Workload::of(&run, 24, 8);
    assert_eq!(workload.gradient, PassSizes { sequences: 64, length: 16, queried: 8 });
    assert_eq!((workload.rollout_rows, workload.shards, workload.other_policies), (1024, 2, 0));
    let peak = workload.stage(StageKind::Gradient).unwrap().bytes();
    assert!((150 << 20..200 << 20).contains(&peak), "{peak}");
}

/// Peaks of `VmHWM` in MiB of whole runs on two threads with two stages in hand, and the estimates.
#[test]
fn a_process_takes_what_is_said_within_15_percent() {
    let runs = [
        (include_str!("../../../jobs/runs/smoke.toml"), 8, 258.0),
        (include_str!("../../../jobs/runs/countdown.toml"), 8, 433.0),
    ];
    for (text, prompt_tokens, measured) in runs {
        let run = crate::run::Run::parse(text).unwrap();
        let workload = Workload::of(&run, 24, prompt_tokens);
        let estimate = workload.process(2, Place::Device) as f64 / f64::from(1u32 << 20);
        assert!((estimate / measured - 1.0).abs() < 0.15, "{estimate} MiB, measured {measured}");
    }
}

/// Pieces of more than 32 MiB go back to the system.
#[test]
fn large_passes_leave_nothing_behind() {
    let largest = workload().stages().map(|estimate| estimate.bytes()).max();
    let process = |stages| workload().process(stages, Place::Device);
    assert_eq!(Some(process(1)), largest);
    let beside = process(2) - process(1);
    assert_eq!(Some(beside + super::PROGRAM), largest, "two stages have one program");
}

/// Weights, their moments and their gradient, beside a pass as of a gradient of the same sizes.
#[test]
fn fine_tuning_holds_the_optimizer_too() {
    let run = crate::run::Run::parse(include_str!("../../../jobs/runs/smoke.toml")).unwrap();
    let workload = Workload::of(&run, 24, 8);
    let estimate = stage(&workload, StageKind::Sft);
    let weights = 4 * workload.sizes.weights();
    let held = [("weights", 1), ("moments", 2), ("gradients", 1), ("optimizer's file", 2)];
    for (name, times) in held {
        assert_eq!(part(&estimate, name), times * weights, "{name}");
    }
    assert_eq!(
        part(&estimate, "activations"),
        part(&stage(&workload, StageKind::Gradient), "activations")
    );
    let checkpoint = Workload { fine_tuning: None, ..workload };
    assert_eq!(checkpoint.stage(StageKind::Sft), None);
}
