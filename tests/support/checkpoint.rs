//! Made-up checkpoints of any size in Hugging Face's layout: bf16 weights in shards, with index and
//! configuration. Written as a stream: the largest model takes a megabyte of memory. The weights are random.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use agrpo_compute::model::ModelConfig;
use agrpo_spec::{Family, ModelShape, Real};
use serde_json::{Map, Value, json};

/// Bytes written at once.
const PIECE: usize = 1 << 20;
/// One, as bf16.
const ONE: u16 = 0x3f80;

/// The shape of a small model.
pub(crate) fn shape(d_model: u32, n_layers: u32, n_heads: u32, mlp_hidden_size: u32) -> ModelShape {
    let real = |value| Real::new(value).unwrap();
    ModelShape {
        family: Family::default(),
        n_kv_heads: None,
        head_size: None,
        attention_block: None,
        n_experts: None,
        experts_per_token: None,
        d_model,
        n_layers,
        n_heads,
        mlp_hidden_size,
        rope_theta: real(1e4),
        rms_norm_eps: real(1e-5),
        init_std: real(0.02),
    }
}

/// Writes a checkpoint into a folder; returns the bytes of its tensors.
pub(crate) fn write(folder: &Path, config: &ModelConfig, shards: usize) -> u64 {
    let tensors = config.tensors();
    let size = |shape: &[i64]| 2 * u64::try_from(shape.iter().product::<i64>()).unwrap();
    let total: u64 = tensors.iter().map(|(_, shape)| size(shape)).sum();
    let file = |n: usize| format!("model-{:05}-of-{shards:05}.safetensors", n + 1);
    let mut parts = vec![vec![]; shards];
    let (mut map, mut before) = (Map::new(), 0);
    for (name, shape) in tensors {
        let shard = usize::try_from(before * shards as u64 / total).unwrap();
        map.insert(name.clone(), file(shard).into());
        before += size(&shape);
        parts[shard].push((name, shape));
    }
    let mut random = 0x9e37_79b9_7f4a_7c15;
    for (n, tensors) in parts.iter().enumerate() {
        write_shard(&folder.join(file(n)), tensors, &mut random);
    }
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    std::fs::write(folder.join("config.json"), config.to_json()).unwrap();
    total
}

fn write_shard(path: &Path, tensors: &[(String, Vec<i64>)], random: &mut u64) {
    let mut header = Map::from_iter([("__metadata__".to_owned(), json!({ "format": "pt" }))]);
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<i64>();
        let info = json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] });
        header.insert(name.clone(), info);
    }
    let header = Value::from(header).to_string();
    let mut file = BufWriter::with_capacity(PIECE, File::create(path).unwrap());
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    for (_, shape) in tensors {
        for _ in 0..shape.iter().product::<i64>() {
            let bits = if shape.len() == 1 { ONE } else { weight(random) };
            file.write_all(&bits.to_le_bytes()).unwrap();
        }
    }
    file.flush().unwrap();
}

/// A number of either sign between 2^-7 and 2^-6, as bf16 (Marsaglia's xorshift).
fn weight(random: &mut u64) -> u16 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    let [low, high, ..] = random.to_le_bytes();
    (u16::from_le_bytes([low, high]) & 0x807f) | (120 << 7)
}
