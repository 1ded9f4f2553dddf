//! A LoRA adapter against PEFT: logits, loss and the gradient of every matrix.

#![expect(non_snake_case, reason = "tensors wear their shapes")]

use std::collections::BTreeMap;

use agrpo_compute::model::{Placement, Policy, Queries};
use agrpo_spec::{Files, LoraConfig, Real, Seed};
use tch::{Kind, Tensor};

use super::{checkpoint, folder, policy, tensors};

fn files() -> Files {
    let files = ["adapter_config.json", "adapter_model.safetensors"].map(|name| {
        let bytes = std::fs::read(folder().join("peft_adapter").join(name)).unwrap();
        (name.to_owned(), bytes.into())
    });
    files.into()
}

fn adapted() -> Policy {
    policy().with_adapter(&files()).unwrap()
}

fn expected() -> BTreeMap<String, Tensor> {
    tensors("peft_adapter/expected.safetensors")
}

fn logits(policy: &Policy, expected: &BTreeMap<String, Tensor>) -> Tensor {
    policy.head(&policy.hidden(&expected["input_ids"], &Queries::All).unwrap())
}

#[test]
fn adapted_logits_are_the_reference_s() {
    let expected = expected();
    let ours = logits(&adapted(), &expected);
    let worst = (ours - &expected["logits"]).abs().max().double_value(&[]);
    assert!(worst < 1e-4, "largest difference {worst}");
}

/// The loss is the mean cross-entropy over the masked positions that have a label.
#[test]
fn the_adapter_s_loss_and_gradient_are_the_reference_s() {
    compare(&adapted(), (1e-5, 1e-4));
}

/// Over a base of half precision within its rounding, and the gradients are f32.
#[test]
fn in_half_precision_they_are_the_reference_s_within_its_rounding() {
    let at = Placement { kind: Kind::BFloat16, ..Placement::CPU };
    let policy = Policy::from_folder_at(&checkpoint(), at).unwrap();
    let policy = policy.with_adapter(&files()).unwrap();
    let expected = expected();
    let ours = logits(&policy, &expected);
    let norm = |t: &Tensor| t.to_kind(Kind::Double).norm().double_value(&[]);
    let error = norm(&(&ours - &expected["logits"])) / norm(&expected["logits"]);
    assert!(error < 0.04, "{error}");
    compare(&policy, (0.02, 0.1));
    assert!(policy.gradients().values().all(|gradient| gradient.kind() == Kind::Float));
}

/// Compares loss and gradients, each within a share of the reference's.
fn compare(policy: &Policy, (of_loss, of_gradient): (f64, f64)) {
    let expected = expected();
    policy.require_grad();
    let mask = policy.config().mask_token_id;
    let labels_BL = &expected["labels"];
    let counted_BL = expected["input_ids"].eq(mask).logical_and(&labels_BL.ge(0));
    let logp_BLV = logits(policy, &expected).log_softmax(-1, Kind::Float);
    let index_BL1 = labels_BL.clamp_min(0).unsqueeze(-1);
    let logp_BL = logp_BLV.gather(2, &index_BL1, false).squeeze_dim(-1);
    let loss = -logp_BL.masked_select(&counted_BL).mean(Kind::Float);
    loss.backward();
    let (ours, theirs) = (loss.double_value(&[]), expected["loss"].double_value(&[]));
    assert!((ours - theirs).abs() < of_loss * theirs.abs(), "{ours} against {theirs}");
    let gradients = policy.gradients();
    let names = gradients.keys().map(|name| format!("grad.{name}"));
    assert!(names.eq(expected.keys().filter(|name| name.starts_with("grad.")).cloned()));
    for (name, ours) in gradients {
        let theirs = &expected[&format!("grad.{name}")];
        let norm = |t: &Tensor| t.to_kind(Kind::Double).norm().double_value(&[]);
        let error = norm(&(ours - theirs));
        assert!(error <= of_gradient * norm(theirs), "{name}: {error} of {}", norm(theirs));
    }
}

/// A new adapter of the same settings has PEFT's tensors, by name, shape and kind, and says which modules
/// it means in an expression for whole names.
#[test]
fn a_new_adapter_has_the_reference_s_tensors() {
    let theirs = adapted();
    let lora = LoraConfig {
        rank: u32::try_from(theirs.adapter().unwrap().rank).unwrap(),
        alpha: Real::new(theirs.adapter().unwrap().alpha).unwrap(),
        targets: LoraConfig::MODULES.map(str::to_owned).into(),
        head: true,
        rslora: false,
        merge_for_sampling: false,
    };
    let ours = policy().with_new_adapter(&lora, Seed::new(1)).unwrap();
    assert_eq!(ours.adapter().unwrap().modules, theirs.adapter().unwrap().modules);
    let files = ours.adapter_files().unwrap().unwrap();
    let bytes = |name: &str| files[name].bytes(1 << 20).unwrap();
    let shapes = |bytes: &[u8]| {
        let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
        let of = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            format!("{name} {:?} {:?}", view.dtype(), view.shape())
        };
        let mut shapes: Vec<String> = file.tensors().into_iter().map(of).collect();
        shapes.sort();
        shapes
    };
    let reference = std::fs::read(folder().join("peft_adapter/adapter_model.safetensors")).unwrap();
    assert_eq!(shapes(&bytes("adapter_model.safetensors")), shapes(&reference));
    insta::assert_snapshot!(std::str::from_utf8(&bytes("adapter_config.json")).unwrap(), @r#"
    {
      "base_model_name_or_path": null,
      "bias": "none",
      "fan_in_fan_out": false,
      "inference_mode": true,
      "init_lora_weights": true,
      "lora_alpha": 8,
      "lora_dropout": 0.0,
      "modules_to_save": null,
      "peft_type": "LORA",
      "r": 4,
      "target_modules": "model\\.transformer\\.(blocks\\.\\d+\\.(q_proj|k_proj|v_proj|attn_out|ff_proj|up_proj|ff_out)|ff_out)",
      "task_type": null,
      "use_dora": false,
      "use_rslora": false
    }
    "#);
}
