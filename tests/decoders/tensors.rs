//! Tensors, and the small files of a policy's folder.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use agrpo_compute::check_folder;
use agrpo_compute::fuzz_entry_points;
use agrpo_compute::model::ModelConfig;
use agrpo_compute::text::chat::{ChatTokenizer, Specials};
use agrpo_compute::trajectories::{KeptSets, NEVER, Trajectories};
use agrpo_spec::{Files, Rewards, RowReward, decode, encode};
use bytes::Bytes;
use serde_json::{Value, json};

const CONFIG: &[u8] = include_bytes!("../golden/llada_tiny/config.json");
const INDEX: &[u8] = include_bytes!("../golden/llada_tiny/model.safetensors.index.json");
const SHARDS: [&[u8]; 2] = [
    include_bytes!("../golden/llada_tiny/model-00001-of-00002.safetensors"),
    include_bytes!("../golden/llada_tiny/model-00002-of-00002.safetensors"),
];
const ADAPTER_CONFIG: &[u8] = include_bytes!("../golden/peft_adapter/adapter_config.json");
const ADAPTER: &[u8] = include_bytes!("../golden/peft_adapter/adapter_model.safetensors");

pub(crate) fn rewards_seeds() -> Vec<Vec<u8>> {
    let row = |n: u32| RowReward {
        reward: f64::from(n),
        correct: n.is_multiple_of(2),
        parts: [("format".to_owned(), 0.5), ("correct".to_owned(), 1.0)].into(),
        advantage: -0.25,
        counted: true,
    };
    [0, 1, 8].map(|rows| encode(&Rewards { rows: (0..rows).map(row).collect() })).into()
}

pub(crate) fn rewards(bytes: &[u8]) -> bool {
    decode::<Rewards>(bytes).is_some()
}

/// A safetensors file from names, types, shapes and bytes.
fn file(tensors: &[(&str, &str, &[u64], usize)]) -> Vec<u8> {
    let (mut header, mut at) = (serde_json::Map::new(), 0);
    for (name, dtype, shape, bytes) in tensors {
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [at, at + bytes]});
        header.insert((*name).to_owned(), entry);
        at += bytes;
    }
    let header = Value::from(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &vec![1; at]].concat()
}

pub(crate) fn whole_seeds() -> Vec<Vec<u8>> {
    vec![
        file(&[]),
        file(&[("w", "F32", &[2, 3], 24)]),
        file(&[("a", "BF16", &[4], 8), ("b", "I64", &[2, 1], 16), ("c", "U8", &[0, 5], 0)]),
        file(&[("d", "F16", &[], 2), ("e", "F64", &[1, 1, 1, 2], 16), ("f", "I32", &[3], 12)]),
    ]
}

pub(crate) fn windows(bytes: &[u8]) -> bool {
    fuzz_entry_points::tensor_windows(Bytes::copy_from_slice(bytes)).is_ok()
}

pub(crate) fn optimizer_seeds() -> Vec<Vec<u8>> {
    let state = [
        ("decay", "F64", &[2][..], 16),
        ("m.w", "F32", &[2, 3], 24),
        ("step", "I64", &[1], 8),
        ("v.w", "F32", &[2, 3], 24),
    ];
    vec![file(&state)]
}

pub(crate) fn optimizer(bytes: &[u8]) -> bool {
    fuzz_entry_points::optimizer_state(Bytes::copy_from_slice(bytes), [2, 3]).is_ok()
}

pub(crate) fn trajectory_seeds() -> Vec<Vec<u8>> {
    let mut plain = Trajectories::masked(vec![3, 4, 5, 6], 2, 3, 9);
    plain.completion_ids = vec![1, 2, 9, 4, 9, 9];
    plain.unmask_steps = vec![0, 1, NEVER, 2, NEVER, NEVER];
    let mut filtered = plain.clone();
    filtered.kept = Some(KeptSets { offsets: vec![0, 1, 1, 2, 4, 4, 4], ids: vec![1, 2, 3, 4] });
    filtered.policy = Some(agrpo_spec::ArtifactDigest::of(b"policy"));
    [plain, filtered].map(|t| t.to_bytes().expect("small tensors").to_vec()).into()
}

/// As a stage reads them: accepted trajectories are read row by row.
pub(crate) fn trajectories(bytes: &[u8]) -> bool {
    let Ok(read) = Trajectories::from_bytes(bytes) else { return false };
    for row in 0..read.rows {
        drop(read.state(row, i64::from(read.horizon(row, 5)), 9));
        assert!(read.sampled_steps(row) as usize <= read.completion_len);
    }
    for cell in 0..read.rows * read.completion_len {
        assert!(read.kept_at(cell).is_none_or(|ids| ids.len() <= bytes.len()));
    }
    true
}

/// The golden checkpoint with one file replaced.
fn checkpoint(name: &str, bytes: &[u8]) -> Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    let shard = |n: usize| (format!("model-0000{}-of-00002.safetensors", n + 1), SHARDS[n].into());
    let whole = || {
        let small = [("config.json", CONFIG), ("model.safetensors.index.json", INDEX)];
        let small = small.map(|(name, bytes)| (name.to_owned(), bytes.into()));
        small.into_iter().chain([0, 1].map(shard)).collect()
    };
    let mut files = FILES.get_or_init(whole).clone();
    files.insert(name.to_owned(), bytes.to_vec().into());
    files
}

pub(crate) fn index_seeds() -> Vec<Vec<u8>> {
    vec![INDEX.to_vec()]
}

pub(crate) fn index(bytes: &[u8]) -> bool {
    check_folder(&checkpoint("model.safetensors.index.json", bytes)).is_ok()
}

pub(crate) fn config_seeds() -> Vec<Vec<u8>> {
    let written = ModelConfig::from_json(CONFIG).expect("the golden one").to_json();
    vec![CONFIG.to_vec(), written]
}

/// As the configuration of a folder: every tensor that it implies is looked up.
pub(crate) fn config(bytes: &[u8]) -> bool {
    let Ok(config) = ModelConfig::from_json(bytes) else { return false };
    if config.n_layers <= 64 {
        drop(check_folder(&checkpoint("config.json", bytes)));
    }
    true
}

fn golden_config() -> &'static ModelConfig {
    static CONFIG_READ: OnceLock<ModelConfig> = OnceLock::new();
    CONFIG_READ.get_or_init(|| ModelConfig::from_json(CONFIG).expect("the golden one"))
}

/// The same with the special tokens of [`tokenizers`], which follow its 94 letters.
fn chat_config() -> ModelConfig {
    let ids = (98, 98, 99);
    let (eos_token_id, pad_token_id, mask_token_id) = (ids.0, Some(ids.1), ids.2);
    ModelConfig { eos_token_id, pad_token_id, mask_token_id, ..golden_config().clone() }
}

fn adapter_folder(config: &[u8], tensors: Bytes) -> Files {
    let config = ("adapter_config.json".to_owned(), config.to_vec().into());
    [config, ("adapter_model.safetensors".to_owned(), tensors.into())].into()
}

pub(crate) fn adapter_configs() -> Vec<Vec<u8>> {
    let text = std::str::from_utf8(ADAPTER_CONFIG).expect("JSON");
    let mut document: Value = serde_json::from_str(text).expect("JSON");
    document["target_modules"] =
        json!(r".*\.(q_proj|k_proj|v_proj|attn_out|ff_proj|up_proj|ff_out)");
    vec![ADAPTER_CONFIG.to_vec(), document.to_string().into_bytes()]
}

pub(crate) fn adapter_config(bytes: &[u8]) -> bool {
    let files = adapter_folder(bytes, Bytes::from_static(ADAPTER));
    fuzz_entry_points::adapter(golden_config(), &files).is_ok()
}

pub(crate) fn adapter_seeds() -> Vec<Vec<u8>> {
    vec![ADAPTER.to_vec()]
}

pub(crate) fn adapter(bytes: &[u8]) -> bool {
    let files = adapter_folder(ADAPTER_CONFIG, Bytes::copy_from_slice(bytes));
    fuzz_entry_points::adapter(golden_config(), &files).is_ok()
}

/// A byte-level tokenizer with the template's pieces, for [`chat_config`].
pub(crate) fn tokenizers() -> Vec<Vec<u8>> {
    let words: BTreeMap<String, u32> =
        (b'!'..=b'~').map(|c| char::from(c).to_string()).zip(0..).collect();
    let special = |(text, id): (&str, i64)| {
        json!({"id": id, "content": text, "special": true, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false})
    };
    let config = chat_config();
    let pieces = [
        ("<|startoftext|>", 94),
        ("<|start_header_id|>", 95),
        ("<|end_header_id|>", 96),
        ("<|eot_id|>", 97),
        ("<|endoftext|>", config.eos_token_id),
        ("<|mdm_mask|>", config.mask_token_id),
    ];
    let file = |split: Value| {
        json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": {"type": "NFC"},
            "added_tokens": pieces.map(special),
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": split, "behavior": "Isolated", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                      "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                      "ignore_merges": false, "vocab": words, "merges": []},
        })
    };
    let splits =
        [json!({"Regex": r"\p{N}{1,3}|\s*[\r\n]+|\s+(?!\S)|\s+"}), json!({"String": "ab"})];
    splits.map(|split| file(split).to_string().into_bytes()).into()
}

pub(crate) fn tokenizer(bytes: &[u8]) -> bool {
    let Ok(tokenizer) = ChatTokenizer::read(bytes, &chat_config()) else { return false };
    if let Ok(ids) = tokenizer.plain_ids("2+2=4, is it?") {
        drop(tokenizer.text(&ids, Specials::Keep));
    }
    true
}
