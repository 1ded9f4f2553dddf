//! Tests of an adapter: it computes as the merged weights would, it alone is trained, and whatever
//! does not fit is named.

use agrpo_spec::StageError;
use serde_json::json;

use super::*;
use crate::model::tests::{logits, loss, small};
use crate::model::{Policy, Queries};
use crate::tensors;

const RANK: i64 = 3;
const HEAD: &str = "model.transformer.ff_out";

fn settings() -> Value {
    json!({
        "peft_type": "LORA", "r": RANK, "lora_alpha": 5, "bias": "none", "use_rslora": false,
        "target_modules": ["q_proj", "v_proj", "up_proj", "ff_out"], "modules_to_save": null,
        "lora_dropout": 0.05, "init_lora_weights": true, "rank_pattern": {}, "fan_in_fan_out": false,
    })
}

/// Matrices for every module of the small model whose name ends so, all numbers different.
fn matrices(targets: &[&str]) -> NamedTensors {
    let mut named = NamedTensors::new();
    for (module, [outputs, inputs]) in linear_modules(small().config()) {
        if targets.iter().any(|target| module.ends_with(target)) {
            for (name, shape) in [('A', [RANK, inputs]), ('B', [outputs, RANK])] {
                let values = Tensor::arange(shape[0] * shape[1], (Kind::Float, tch::Device::Cpu));
                let matrix = ((values + named.len() as i64).sin() * 0.2).view(shape);
                named.insert(lora_name(&module, name), matrix);
            }
        }
    }
    named
}

fn adapt(settings: &Value, tensors: &NamedTensors) -> Result<Policy, StageError> {
    let settings = serde_json::to_vec(settings).unwrap();
    let tensors = tensors::write(tensors).unwrap();
    small().with_adapter(&BTreeMap::from([
        (CONFIG.into(), settings.into()),
        (TENSORS.into(), tensors.into()),
    ]))
}

/// The same policy with W + s B A for every W.
fn merged(tensors: &NamedTensors, scale: f64) -> Policy {
    let base = small();
    let mut weights = base.parameters();
    for (module, _) in linear_modules(base.config()) {
        if let Some(a_RxI) = tensors.get(&lora_name(&module, 'A')) {
            let change = tensors[&lora_name(&module, 'B')].matmul(a_RxI) * scale;
            let weight = weights.get_mut(&format!("{module}.weight")).unwrap();
            *weight = &*weight + change;
        }
    }
    Policy::from_named(base.config().clone(), weights, Kind::Float).unwrap()
}

fn assert_equal(ours: &Policy, expected: &Policy) {
    let at = Tensor::from_slice(&[3i64, 5, 2, 1]).view([2, 2]);
    for queries in
        [Queries::All, Queries::Range { start: 1, len: 3 }, Queries::At(at.shallow_clone())]
    {
        let difference = logits(ours, &queries) - logits(expected, &queries);
        let worst = difference.abs().max().double_value(&[]);
        assert!(worst < 1e-5, "{queries:?}: {worst}");
    }
}

#[test]
fn an_adapter_computes_as_the_merged_weights() {
    let tensors = matrices(&["q_proj", "v_proj", "up_proj", "ff_out"]);
    let policy = adapt(&settings(), &tensors).unwrap();
    assert_equal(&policy, &merged(&tensors, 5.0 / 3.0));
    assert_eq!(policy.adapter().unwrap().modules.len(), 9);
    let double = policy.to_double();
    assert_eq!(logits(&double, &Queries::All).kind(), Kind::Double);
    assert!(double.parameters().keys().eq(tensors.keys()));

    let mut others = settings();
    others["use_rslora"] = true.into();
    others["target_modules"] = json!(r".*blocks\.(?!0\.).*\.(k_proj|attn_out|ff_proj)");
    let mut tensors = matrices(&["k_proj", "attn_out", "ff_proj"]);
    tensors.retain(|name, _| name.contains("blocks.1."));
    let policy = adapt(&others, &tensors).unwrap();
    assert_equal(&policy, &merged(&tensors, 5.0 / 3f64.sqrt()));
}

/// `ff_out` means the head too, in PEFT's way; a file without the head's matrices does not adapt it.
#[test]
fn the_head_is_adapted_if_its_tensors_are_there() {
    let mut tensors = matrices(&["q_proj", "v_proj", "up_proj", "ff_out"]);
    tensors.retain(|name, _| !name.contains(HEAD));
    let policy = adapt(&settings(), &tensors).unwrap();
    assert!(!policy.adapter().unwrap().modules.iter().any(|module| module == HEAD));
    assert_equal(&policy, &merged(&tensors, 5.0 / 3.0));
    let mut excluded = settings();
    excluded["exclude_modules"] = json!([HEAD]);
    assert!(adapt(&excluded, &tensors).is_ok());
    let mut meant = settings();
    meant["target_modules"] = json!(["q_proj", "v_proj", "up_proj", "ff_out", HEAD]);
    let refused = adapt(&meant, &tensors).unwrap_err().to_string();
    assert!(refused.contains(&format!("lacks {}", lora_name(HEAD, 'A'))), "{refused}");
}

#[test]
fn the_adapter_alone_is_trained() {
    let tensors = matrices(&["q_proj", "v_proj", "up_proj", "ff_out"]);
    let policy = adapt(&settings(), &tensors).unwrap();
    assert!(policy.parameters().keys().eq(tensors.keys()));
    policy.require_grad();
    loss(&policy).backward();
    let gradients = policy.gradients();
    assert!(gradients.keys().eq(tensors.keys()));
    for (name, gradient) in gradients {
        assert_eq!(gradient.size(), tensors[&name].size());
        assert!(gradient.abs().max().double_value(&[]) > 0.0, "{name}");
    }
    assert!(policy.to_files().is_err(), "a file of the base alone would lose the adapter");
}

#[test]
fn settings_that_are_not_computed_are_named() {
    let tensors = matrices(&["q_proj", "v_proj", "up_proj", "ff_out"]);
    for (key, value, expected) in [
        ("bias", json!("all"), "bias = \"all\": expected it to be off"),
        ("use_dora", json!(true), "use_dora = true: expected it to be off"),
        ("fan_in_fan_out", json!(true), "fan_in_fan_out = true: expected it to be off"),
        ("modules_to_save", json!(["wte"]), "modules_to_save = [\"wte\"]: expected it to be off"),
        (
            "rank_pattern",
            json!({"q_proj": 2}),
            "rank_pattern = {\"q_proj\":2}: expected it to be off",
        ),
        ("layers_to_transform", json!([0]), "layers_to_transform = [0]: expected it to be off"),
        ("init_lora_weights", json!("pissa"), "init_lora_weights = \"pissa\": expected one that"),
        ("peft_type", json!("IA3"), "peft_type = \"IA3\": expected \"LORA\""),
        ("r", json!(0), "r = 0: expected at least 1"),
        (
            "target_modules",
            json!(["q_proj", "o_proj"]),
            "target_modules has \"o_proj\", which matches no",
        ),
        ("target_modules", json!("q_proj"), "target_modules has \"q_proj\", which matches no"),
        ("target_modules", json!("(q_proj"), "target_modules = \"(q_proj\": expected a pattern"),
        ("target_modules", json!([]), "target_modules is empty"),
    ] {
        let mut changed = settings();
        changed[key] = value;
        let refused = adapt(&changed, &tensors).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let all = || matrices(&["q_proj", "v_proj", "up_proj", "ff_out"]);
    let name = lora_name("model.transformer.blocks.1.v_proj", 'B');
    let refused = |tensors: &NamedTensors| adapt(&settings(), tensors).unwrap_err().to_string();

    let mut missing = all();
    missing.remove(&name);
    assert!(refused(&missing).contains(&format!("lacks {name}")));

    let mut unknown = all();
    let k = lora_name("model.transformer.blocks.0.k_proj", 'A');
    unknown.insert(k.clone(), Tensor::zeros([RANK, 8], (Kind::Float, tch::Device::Cpu)));
    assert!(refused(&unknown).contains(&format!("unknown tensor {k}")));

    let mut misshaped = all();
    misshaped.insert(name.clone(), Tensor::zeros([8, 2], (Kind::Float, tch::Device::Cpu)));
    let text = refused(&misshaped);
    assert!(text.contains(&format!("{name} has the shape [8, 2], expected [8, 3]")), "{text}");
}
