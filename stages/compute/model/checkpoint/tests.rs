//! Tests of a checkpoint's folder: each way in which its files can disagree is one line that names
//! tensor and file, and what is sound comes whole, in any kind.

use agrpo_spec::{Content, StageError};
use serde_json::{Value, json};

use super::*;
use crate::model::{Placement, Policy};
use crate::tensors::{self, NamedTensors};
use crate::{model::tests::small, text::chat::check_folder};

const WTE: &str = "model.transformer.wte.weight";
const LN: &str = "model.transformer.ln_f.weight";

/// A folder in three shards, with an index, of the small policy in bf16.
fn folder() -> Files {
    let mut shards: [NamedTensors; 3] = Default::default();
    let mut map = serde_json::Map::new();
    let mut total = 0;
    for (n, (name, tensor)) in small().parameters().into_iter().enumerate() {
        map.insert(name.clone(), file(n % 3).into());
        total += 2 * tensor.numel();
        shards[n % 3].insert(name, tensor.to_kind(Kind::BFloat16));
    }
    let mut files: Files = shards
        .iter()
        .enumerate()
        .map(|(n, tensors)| (file(n), tensors::write(tensors).unwrap().into()))
        .collect();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    files.insert(INDEX.into(), serde_json::to_vec(&index).unwrap().into());
    files.insert("config.json".into(), small().config().to_json().into());
    files
}

fn file(n: usize) -> String {
    format!("model-{:05}-of-00003.safetensors", n + 1)
}

fn refused(files: &Files) -> String {
    let error = Policy::from_folder(files).unwrap_err();
    assert!(matches!(error, StageError::Data(_)), "{error}");
    assert_eq!(check_folder(files).unwrap_err().to_string(), error.to_string());
    error.to_string()
}

/// The folder with the tensors of one file changed, and without its index.
fn changed(n: usize, change: impl Fn(&mut NamedTensors)) -> Files {
    let mut files = folder();
    files.remove(INDEX);
    let mut tensors = TensorWindows::open("", &files[&file(n)]).unwrap().read().unwrap();
    change(&mut tensors);
    files.insert(file(n), tensors::write(&tensors).unwrap().into());
    files
}

/// The folder with its index changed.
fn indexed(change: impl Fn(&mut Value)) -> Files {
    let mut files = folder();
    let mut index = serde_json::from_slice(&files[INDEX].bytes(1 << 20).unwrap()).unwrap();
    change(&mut index);
    files.insert(INDEX.into(), serde_json::to_vec(&index).unwrap().into());
    files
}

fn place(name: &str) -> usize {
    small().parameters().keys().position(|known| known == name).unwrap() % 3
}

#[test]
fn a_sound_checkpoint_comes_whole_in_the_kind_that_is_asked_for() {
    let files = folder();
    check_folder(&files).unwrap();
    let read = |kind| {
        Policy::from_folder_at(&files, Placement { kind, ..Placement::CPU }).unwrap().parameters()
    };
    for (name, tensor) in small().parameters() {
        let rounded = tensor.to_kind(Kind::BFloat16);
        assert_eq!(read(Kind::BFloat16)[&name], rounded, "{name}");
        assert_eq!(read(Kind::Float)[&name], rounded.to_kind(Kind::Float), "{name}");
    }
    assert!(read(Kind::BFloat16).values().all(|tensor| tensor.kind() == Kind::BFloat16));
}

/// Bit for bit: the f32 policies of a run go through here at every stage.
#[test]
fn f32_weights_stay_as_they_are() {
    let files = small().to_files().unwrap();
    assert_eq!(Policy::from_folder(&files).unwrap().to_files().unwrap(), files);
}

#[test]
fn an_adapter_beside_its_base_is_no_part_of_it() {
    let mut files = folder();
    let adapter = NamedTensors::from([("base_model.x".into(), Tensor::from_slice(&[1f32]))]);
    files.insert(lora::TENSORS.into(), tensors::write(&adapter).unwrap().into());
    let half = Policy::from_folder(&files).unwrap_err().to_string();
    assert_eq!(half, "the adapter folder has no adapter_config.json");
    files.retain(|name, _| name == lora::TENSORS);
    files.insert("adapter_config.json".into(), Content::from(&b"{}"[..]));
    check_folder(&files).unwrap();
    files.remove(lora::TENSORS);
    assert!(check_folder(&files).unwrap_err().to_string().contains(lora::TENSORS));
}

#[test]
fn every_tensor_is_accounted_for() {
    let at = place(WTE);
    let missing = changed(at, |tensors| drop(tensors.remove(WTE)));
    insta::assert_snapshot!(refused(&missing), @"the checkpoint lacks model.transformer.wte.weight: it is in none of the 3 files from model-00001-of-00003.safetensors to model-00003-of-00003.safetensors");
    let extra = changed(0, |tensors| {
        drop(tensors.insert("model.transformer.x".to_owned(), Tensor::from_slice(&[1f32])));
    });
    insta::assert_snapshot!(refused(&extra), @"model-00001-of-00003.safetensors: the checkpoint has an unknown tensor model.transformer.x");
    let twice = changed((at + 1) % 3, |tensors| {
        drop(tensors.insert(WTE.into(), small().parameters().remove(WTE).unwrap()));
    });
    insta::assert_snapshot!(refused(&twice), @"the checkpoint has model.transformer.wte.weight twice, again in model-00003-of-00003.safetensors, first in model-00001-of-00003.safetensors");
    let misshaped =
        changed(at, |tensors| drop(tensors.insert(WTE.into(), Tensor::from_slice(&[1f32]))));
    insta::assert_snapshot!(refused(&misshaped), @"model-00003-of-00003.safetensors: model.transformer.wte.weight has the shape [1], expected [10, 8] by config.json");
    let whole = |tensor: &Tensor| tensor.to_kind(Kind::Int64);
    let at = place(LN);
    let integers = changed(at, |tensors| drop(tensors.insert(LN.into(), whole(&tensors[LN]))));
    insta::assert_snapshot!(refused(&integers), @"model-00002-of-00003.safetensors: model.transformer.ln_f.weight is Int64, expected bf16, f16 or f32");
    let mut none = folder();
    none.retain(|name, _| name == "config.json");
    insta::assert_snapshot!(refused(&none), @"the checkpoint lacks model.transformer.blocks.0.attn_norm.weight: the folder has no *.safetensors");
    let mut cut = folder();
    let bytes = cut[&file(1)].bytes(1 << 20).unwrap();
    cut.insert(file(1), bytes.slice(..bytes.len() - 1).into());
    insta::assert_snapshot!(refused(&cut), @"model-00002-of-00003.safetensors is not a sound safetensors file: 1039 bytes of tensors, expected 1040 by its header");
}

#[test]
fn the_index_agrees_with_the_files() {
    let mut lost = folder();
    lost.remove(&file(1));
    insta::assert_snapshot!(refused(&lost), @"model.safetensors.index.json: model.transformer.blocks.0.attn_out.weight is said to lie in model-00002-of-00003.safetensors, which the folder lacks");
    let elsewhere = indexed(|index| index["weight_map"][WTE] = file((place(WTE) + 1) % 3).into());
    insta::assert_snapshot!(refused(&elsewhere), @"model.safetensors.index.json: model.transformer.wte.weight is said to lie in model-00001-of-00003.safetensors, but it lies in model-00003-of-00003.safetensors");
    let unlisted = indexed(|index| drop(index["weight_map"].as_object_mut().unwrap().remove(WTE)));
    insta::assert_snapshot!(refused(&unlisted), @"model.safetensors.index.json: it does not list model.transformer.wte.weight, which lies in model-00003-of-00003.safetensors");
    let ghost = indexed(|index| index["weight_map"]["model.ghost"] = file(0).into());
    insta::assert_snapshot!(refused(&ghost), @"model.safetensors.index.json: model.ghost is said to lie in model-00001-of-00003.safetensors, which does not have it");
    let larger = indexed(|index| index["metadata"]["total_size"] = 7.into());
    check_folder(&larger).unwrap();
    assert!(Policy::from_folder(&larger).is_ok());
    insta::assert_snapshot!(check_weights(&larger).unwrap().unwrap(), @"model.safetensors.index.json: total_size = 7, but the files hold 2576 bytes of tensors");
    assert_eq!(check_weights(&folder()).unwrap(), None);
    let no_map = indexed(|index| *index = json!([]));
    assert!(refused(&no_map).starts_with(INDEX));
    assert!(Policy::from_folder(&indexed(|index| drop(index["metadata"].take()))).is_ok());
}

/// Where a checkpoint is loaded and where it is imported, in every kind of number.
#[test]
fn weights_are_finite() {
    let kinds = [Kind::BFloat16, Kind::Half, Kind::Float, Kind::Double];
    let numbers = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    for (kind, number) in kinds.into_iter().flat_map(|kind| numbers.map(|number| (kind, number))) {
        let files = changed(place(WTE), |tensors| {
            let wte = tensors[WTE].to_kind(kind);
            drop(wte.narrow(0, 9, 1).narrow(1, 7, 1).fill_(number));
            tensors.insert(WTE.into(), wte);
        });
        check_folder(&files).unwrap();
        let error = check_weights(&files).unwrap_err();
        assert!(matches!(error, StageError::Data(_)), "{error}");
        assert_eq!(Policy::from_folder(&files).unwrap_err().to_string(), error.to_string());
        #[expect(clippy::cast_possible_truncation, reason = "neither has digits")]
        let shown = number as f32;
        let expected = format!(
            "model-00003-of-00003.safetensors: {WTE} has the number {shown}, expected finite weights"
        );
        assert!(error.to_string().starts_with(&expected), "{kind:?}: {error}");
    }
    let files = changed(place(WTE), |tensors| {
        let large = tensors[WTE].to_kind(Kind::Double) * 0.0 + 1e39;
        tensors.insert(WTE.into(), large);
    });
    assert!(check_weights(&files).unwrap_err().to_string().contains("has the number inf"));
}

#[test]
fn a_pointer_of_git_lfs_is_reported_as_one() {
    const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    for name in [&file(1), INDEX, "config.json", "tokenizer.json"] {
        let mut files = folder();
        files.insert(name.to_owned(), Content::from(POINTER.as_bytes()));
        let error = check_folder(&files).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{name} is a Git LFS pointer, not the file itself: ")),
            "{error}"
        );
        assert!(error.contains("git lfs pull"), "{error}");
    }
}

/// Keys that would make another model of it, as checkpoints and later versions of transformers have them.
#[test]
fn an_unsupported_setting_is_refused_by_its_key() {
    let with = |key: &str, value: Value| {
        let mut files = folder();
        let mut config: Value = serde_json::from_slice(&small().config().to_json()).unwrap();
        config[key] = value;
        files.insert("config.json".into(), serde_json::to_vec(&config).unwrap().into());
        files
    };
    let theta = small().config().rope_theta;
    for (key, value) in [
        ("rope_scaling", json!({"type": "ntk", "factor": 4.0})),
        ("rope_scaling", json!({"rope_type": "llama3", "factor": 1.0})),
        ("rope_scaling", json!({"type": "default", "factor": 2})),
        ("rope_parameters", json!({"rope_type": "yarn", "rope_theta": theta})),
        ("rope_parameters", json!({"rope_type": "default", "rope_theta": theta + 1.0})),
        ("rope_parameters", json!({"full_attention": {"rope_type": "linear"}})),
        ("rope_type", json!("dynamic")),
        ("rope_interleaved", json!(true)),
        ("rotary_pct", json!(0.5)),
        ("partial_rotary_factor", json!(0.5)),
        ("sliding_window", json!(4096)),
        ("use_sliding_window", json!(true)),
        ("layer_types", json!(["full_attention", "sliding_attention"])),
        ("head_dim", json!(2)),
        ("quantization_config", json!({"bits": 4})),
        ("attention_bias", json!(true)),
        ("final_logit_softcapping", json!(30.0)),
    ] {
        let error = refused(&with(key, value));
        assert!(error.starts_with(&format!("config.json: {key} = ")), "{error}");
    }
    for (key, value) in [
        ("rope_scaling", json!(null)),
        ("rope_scaling", json!({})),
        ("rope_scaling", json!({"type": "default"})),
        ("rope_parameters", json!({"rope_type": "default", "rope_theta": theta})),
        ("rope_type", json!("default")),
        ("rope_full_precision", json!(true)),
        ("rope_interleaved", json!(false)),
        ("partial_rotary_factor", json!(1.0)),
        ("layer_types", json!(["full_attention"])),
        ("head_dim", json!(small().config().head_size)),
        ("use_cache", json!(false)),
        ("attention_dropout", json!(0.0)),
    ] {
        check_folder(&with(key, value.clone()))
            .unwrap_or_else(|error| panic!("{key} = {value}: {error}"));
    }
    let mut files = with("use_sliding_window", json!(false));
    let mut config: Value =
        serde_json::from_slice(&files["config.json"].bytes(1 << 20).unwrap()).unwrap();
    config["sliding_window"] = json!(4096);
    files.insert("config.json".into(), serde_json::to_vec(&config).unwrap().into());
    check_folder(&files).unwrap();
}

#[test]
fn another_model_is_refused_by_its_name() {
    let other = |model_type: &str| {
        let mut files = folder();
        let mut config: Value = serde_json::from_slice(&small().config().to_json()).unwrap();
        config["model_type"] = model_type.into();
        files.insert("config.json".into(), serde_json::to_vec(&config).unwrap().into());
        refused(&files)
    };
    insta::assert_snapshot!(other("Dream"), @"config.json: missing field `hidden_size`; expected a Dream configuration");
    insta::assert_snapshot!(other("qwen2"), @r#"config.json: model_type = "qwen2": expected "llada" (LLaDA), "Dream" (Dream), "sdar" (SDAR), "llama" (Llama) or "lladamoe" (LLaDA-MoE), the families that are computed here; an autoregressive model knows no mask and looks back only"#);
    insta::assert_snapshot!(other("bert"), @r#"config.json: model_type = "bert": expected "llada" (LLaDA), "Dream" (Dream), "sdar" (SDAR), "llama" (Llama) or "lladamoe" (LLaDA-MoE), the families that are computed here; the weights of another architecture mean something else"#);
    let mut llama = folder();
    llama.retain(|name, _| name == "config.json");
    let names = ["lm_head.weight", "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"];
    let tensors = names.map(|name| (name.to_owned(), Tensor::from_slice(&[1f32])));
    let bytes = tensors::write(&tensors.into_iter().collect()).unwrap();
    llama.insert("model.safetensors".into(), bytes.into());
    insta::assert_snapshot!(refused(&llama), @"model.safetensors: lm_head.weight is not a name of LLaDA's, which all begin with model.transformer.: the weights are of another model than config.json says; they have to be converted by their own tools, if their arithmetic is LLaDA's at all");
}
