//! Tests of an export: every tensor of the policy, and W + s B A to the bit.

use serde_json::json;
use tch::Tensor;

use super::*;
use crate::tensors::{self, NamedTensors};
use crate::{model::linear::lora_name, model::names::linear_modules, model::tests::small};

const RANK: i64 = 3;

/// The small model in one kind, in two files, with an adapter of its value matrices and its head.
fn folder(kind: Kind) -> (Files, NamedTensors, NamedTensors) {
    let policy = small();
    let named = policy.parameters().into_iter();
    let weights: NamedTensors = named.map(|(name, tensor)| (name, tensor.to_kind(kind))).collect();
    let mut adapter = NamedTensors::new();
    for (module, [outputs, inputs]) in linear_modules(policy.config()) {
        if module.ends_with("v_proj") || module == "model.transformer.ff_out" {
            for (name, shape) in [('A', [RANK, inputs]), ('B', [outputs, RANK])] {
                let values = Tensor::arange(shape[0] * shape[1], (Kind::Float, tch::Device::Cpu));
                let matrix = ((values + adapter.len() as i64).sin() * 0.3).view(shape);
                adapter.insert(lora_name(&module, name), matrix);
            }
        }
    }
    let settings = json!({
        "peft_type": "LORA", "r": RANK, "lora_alpha": 5, "init_lora_weights": true,
        "target_modules": ["v_proj", "model.transformer.ff_out"],
    });
    let is_first = |name: &str| name.contains("blocks.0");
    let shard = |first: bool| {
        let some = weights.iter().filter(|(name, _)| is_first(name) == first);
        let some = some.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        tensors::write(&some).unwrap().into()
    };
    let files = Files::from([
        ("config.json".into(), policy.config().to_json().into()),
        ("model-00001-of-00002.safetensors".into(), shard(true)),
        ("model-00002-of-00002.safetensors".into(), shard(false)),
        ("adapter_config.json".into(), serde_json::to_vec(&settings).unwrap().into()),
        ("adapter_model.safetensors".into(), tensors::write(&adapter).unwrap().into()),
    ]);
    (files, weights, adapter)
}

/// W + s B A with the order of sums that the module promises, by libtorch's elementwise operations.
fn expected(name: &str, weights: &NamedTensors, adapter: &NamedTensors) -> Tensor {
    let w = &weights[name];
    let module = name.trim_end_matches(".weight");
    let Some(a_RxI) = adapter.get(&lora_name(module, 'A')) else { return w.shallow_clone() };
    let b_OxR = &adapter[&lora_name(module, 'B')];
    let mut sum_OxI = w.to_kind(Kind::Float).zeros_like();
    for r in 0..RANK {
        sum_OxI += b_OxR.narrow(1, r, 1) * a_RxI.narrow(0, r, 1);
    }
    (w.to_kind(Kind::Float) + sum_OxI * (5.0 / f64::from(3))).to_kind(w.kind())
}

fn read(whole: &MergedWeights, part: &Part) -> Vec<u8> {
    let mut bytes = vec![];
    whole
        .read::<StageError>(part, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
    assert_eq!(bytes.len() as u64, part.bytes);
    bytes
}

#[test]
fn adapters_are_merged_in_f32_and_rounded_once() {
    for kind in [Kind::BFloat16, Kind::Half, Kind::Float] {
        let (files, weights, adapter) = folder(kind);
        let whole = MergedWeights::open(&files).unwrap();
        assert!(!whole.changes.is_empty());
        let parts = whole.parts();
        assert_eq!(parts.len(), weights.len());
        let mut changed = 0usize;
        for part in &parts {
            let tensor = expected(&part.name, &weights, &adapter).contiguous();
            changed += usize::from(tensor != weights[&part.name]);
            let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
            tensor.copy_data_u8(&mut bytes, tensor.numel());
            assert_eq!(read(&whole, part), bytes, "{kind:?} {}", part.name);
        }
        assert_eq!(changed, adapter.len() / 2);
    }
}

/// Without an adapter, header and tensors one after the other are the file.
#[test]
fn a_policy_without_an_adapter_comes_out_as_it_is() {
    let (mut files, ..) = folder(Kind::BFloat16);
    files.retain(|name, _| !name.starts_with("adapter"));
    let whole = MergedWeights::open(&files).unwrap();
    for file in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        let mut bytes = whole.header(file).unwrap().to_vec();
        for part in whole.parts().iter().filter(|part| part.file == file) {
            bytes.extend(read(&whole, part));
        }
        assert!(files[file] == bytes.into(), "{file}");
    }
}

/// A merged export and a merged policy differ by the order of sums alone.
#[test]
fn a_merged_policy_computes_with_nearly_the_same() {
    let (files, ..) = folder(Kind::Float);
    let whole = MergedWeights::open(&files).unwrap();
    let merged = crate::model::Policy::from_folder(&files).unwrap().merged().parameters();
    for part in whole.parts() {
        let ours =
            Tensor::from_data_size(&read(&whole, &part), &merged[&part.name].size(), Kind::Float);
        let worst = (ours - &merged[&part.name]).abs().max().double_value(&[]);
        assert!(worst < 1e-6, "{}: {worst}", part.name);
    }
}

#[test]
fn errors_of_the_sink_are_returned() {
    #[derive(Debug)]
    struct Full;
    impl From<StageError> for Full {
        fn from(error: StageError) -> Self {
            panic!("{error}")
        }
    }
    let (files, ..) = folder(Kind::Float);
    let whole = MergedWeights::open(&files).unwrap();
    let refused = whole.read(&whole.parts()[0], |_| Err(Full));
    assert!(matches!(refused, Err(Full)));
    let (mut files, ..) = folder(Kind::Double);
    let error = MergedWeights::open(&files).unwrap_err().to_string();
    assert!(error.contains("is F64, expected F32, F16 or BF16"), "{error}");
    files.remove("model-00002-of-00002.safetensors");
    assert!(MergedWeights::open(&files).is_err());
}
