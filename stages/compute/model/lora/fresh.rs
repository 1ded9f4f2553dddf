//! New LoRA adapters from a seed, with the distribution of PEFT's.
//!
//! ```text
//! A uniform in (-1/sqrt(I), 1/sqrt(I)), B = 0      (PEFT's kaiming-uniform with a = sqrt(5))
//! ```
//! so that the adapted policy is its base. Settings and matrices go through the reader of saved adapters, so a
//! new adapter can be read again, here and by PEFT.

use agrpo_spec::{LoraConfig, Purpose, Seed, TensorNames};
use serde_json::json;
use tch::{Kind, Tensor};

use super::{Adapter, Matrices, assemble};
use crate::error::{Result, data};
use crate::model::config::ModelConfig;
use crate::model::linear::lora_name;
use crate::model::names::linear_modules;
use crate::tensors::NamedTensors;

/// The adapter that a run begins with.
pub(in crate::model) fn draw(
    config: &ModelConfig,
    lora: &LoraConfig,
    seed: Seed,
) -> Result<(Adapter, Matrices)> {
    let rank = i64::from(lora.rank);
    let mut tensors = NamedTensors::new();
    // Numbered as in the whole model, so that a module's draw does not depend on the other targets.
    for (index, (module, [outputs, inputs])) in (0..).zip(linear_modules(config)) {
        if is_target(config.names(), lora, &module) {
            let a_RxI = uniform(seed.child(Purpose::Adapter, index), [rank, inputs]);
            tensors.insert(lora_name(&module, 'A'), a_RxI);
            let zeros = Tensor::zeros([outputs, rank], (Kind::Float, tch::Device::Cpu));
            tensors.insert(lora_name(&module, 'B'), zeros);
        }
    }
    assemble(config, settings(config.names(), lora).into(), tensors)
}

/// Checks that a saved adapter matches the run's settings.
pub(in crate::model) fn check(
    config: &ModelConfig,
    lora: &LoraConfig,
    adapter: &Adapter,
) -> Result<()> {
    let modules = linear_modules(config).into_iter().map(|(module, _)| module);
    let mut modules: Vec<String> =
        modules.filter(|module| is_target(config.names(), lora, module)).collect();
    modules.sort();
    let (rank, scale) = (i64::from(lora.rank), lora.scale());
    let what = if (adapter.rank, adapter.scale) != (rank, scale) {
        format!(
            "the rank {} and the scale {}, expected {rank} and {scale} as in the run's section lora",
            adapter.rank, adapter.scale
        )
    } else if adapter.modules != modules {
        let (found, expected) = (adapter.modules.len(), modules.len());
        format!("{found} modules, expected the {expected} that lora.targets and lora.head name")
    } else {
        return Ok(());
    };
    Err(data(format!("the policy's adapter has {what}")))
}

fn is_target(names: &TensorNames, lora: &LoraConfig, module: &str) -> bool {
    if module == names.head {
        return lora.head;
    }
    let last = module.rsplit('.').next().unwrap_or(module);
    lora.targets.iter().any(|target| target == last)
}

/// An expression for the whole names of the targets. PEFT matches a list of names by suffix, and would take LLaDA's
/// `ff_out` for the head too.
fn pattern(names: &TensorNames, lora: &LoraConfig) -> String {
    let quoted = |text: &str| text.replace('.', r"\.");
    let paths = names.modules.iter().zip(names.targets());
    // Modules of experts stand behind the expert's number.
    let before = |path: &str| match &names.experts {
        Some(experts) if !path.contains('.') => format!(r"{}\d+\.", quoted(experts.before)),
        _ => String::new(),
    };
    let path = |target: &String| {
        let found = paths.clone().find(|(_, last)| last == target);
        let path = found.map_or(target.as_str(), |(path, _)| path);
        format!("{}{}", before(path), quoted(path))
    };
    let targets: Vec<String> = lora.targets.iter().map(path).collect();
    let blocks = names.blocks.strip_prefix(names.prefix).unwrap_or(names.blocks);
    let of_block = format!(r"{}\d+\.({})", quoted(blocks), targets.join("|"));
    let prefix = quoted(names.prefix);
    match (names.head.strip_prefix(names.prefix), lora.targets.is_empty(), lora.head) {
        (_, false, false) => format!("{prefix}{of_block}"),
        (Some(head), false, true) => format!("{prefix}({of_block}|{})", quoted(head)),
        (None, false, true) => format!("{prefix}{of_block}|{}", quoted(names.head)),
        (_, true, _) => quoted(names.head),
    }
}

/// `adapter_config.json`.
fn settings(names: &TensorNames, lora: &LoraConfig) -> Vec<u8> {
    let alpha = lora.alpha.get();
    #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
    let alpha =
        if alpha.fract() == 0.0 && alpha < 1e15 { json!(alpha as i64) } else { json!(alpha) };
    let document = json!({
        "base_model_name_or_path": null, "bias": "none", "fan_in_fan_out": false,
        "inference_mode": true, "init_lora_weights": true, "lora_alpha": alpha,
        "lora_dropout": 0.0, "modules_to_save": null, "peft_type": "LORA", "r": lora.rank,
        "target_modules": pattern(names, lora), "task_type": null,
        "use_dora": false, "use_rslora": lora.rslora,
    });
    serde_json::to_vec_pretty(&document).expect("numbers and strings serialise")
}

fn uniform(seed: Seed, [rank, inputs]: [i64; 2]) -> Tensor {
    let count = |n: i64| u32::try_from(n).expect("ranks and widths are small");
    let bound = 1.0 / f64::from(count(inputs)).sqrt();
    let mut values = vec![];
    for row in 0..count(rank) {
        for column in 0..count(inputs) {
            #[expect(clippy::cast_possible_truncation, reason = "adapters are f32")]
            values.push(((2.0 * seed.uniform(row, column) - 1.0) * bound) as f32);
        }
    }
    Tensor::from_slice(&values).view([rank, inputs])
}
