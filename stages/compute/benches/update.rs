//! Seconds of an update of LLaDA-8B's adapter, 176 million numbers, from inputs in memory to outputs in memory.
//!
//! `cargo bench --package agrpo-compute --bench update -- --threads 2`; one thread by default. Takes 8 GB of memory.
//! Measures neither storage nor the hashes of the outputs. The peak of memory is to be compared with what
//! `agrpo run jobs/runs/llada-8b-gsm8k.toml --dry-run` says of an update, and with the inputs beside it.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its table")]

use std::{num::NonZeroUsize, time::Instant};

use agrpo_compute::{Threads, execute_on, model::ModelConfig};
use agrpo_spec::trajectories::write_tensors;
use agrpo_spec::{
    Artifact, ArtifactDigest, Files, Inputs, ModelShape, Numerics, Outputs, Real, Seed, StageKind,
    StageSpec, UpdateSpec,
};
use bytes::Bytes;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

#[expect(dead_code, reason = "shared by the benchmarks")]
mod support;

/// Names inputs by their role: hashing them would take time.
fn named(role: &str) -> ArtifactDigest {
    ArtifactDigest::of(role.as_bytes())
}

/// The first one draws the adapter, and learns from no shard.
fn spec(iteration: u32) -> StageSpec {
    let read = "the settings are valid";
    StageSpec::Update(UpdateSpec {
        version: StageKind::Update.version(),
        numerics: Numerics::CpuPortable,
        policy: named("policy"),
        optimizer_state: (iteration > 1).then(|| named("optimizer")),
        gradients: if iteration > 1 { vec![named("gradient")] } else { vec![] },
        iteration,
        inner: 1,
        inner_updates: 1,
        iterations: 10,
        optimizer: serde_json::from_str(r#"{"learning_rate": 1e-5}"#).expect(read),
        seed: Seed::new(1),
        lora: Some(serde_json::from_str(r#"{"head": true}"#).expect(read)),
    })
}

fn base() -> Files {
    let real = |value| Real::new(value).expect("finite");
    let shape = ModelShape {
        d_model: 4096,
        n_layers: 32,
        n_heads: 32,
        mlp_hidden_size: 12_288,
        rope_theta: real(500_000.0),
        rms_norm_eps: real(1e-5),
        init_std: real(0.02),
    };
    let config = ModelConfig::new(&shape, 126_464, 126_081, 126_336, 4096);
    Files::from([("config.json".to_owned(), config.to_json().into())])
}

/// A gradient for each matrix of the adapter, in the form of a gradient stage.
fn gradient(adapter: &Bytes) -> (Bytes, usize) {
    let file = SafeTensors::deserialize(adapter).expect("written just now");
    let mut parts = vec![("mean_over", Dtype::F64, vec![1], 1f64.to_le_bytes().to_vec().into())];
    let mut count = 0;
    for (name, tensor) in file.iter() {
        let numbers = tensor.data().len() / 4;
        let wave = (0..numbers).flat_map(|n| ((n % 1000) as f32 * 1e-6 - 4e-4).to_le_bytes());
        parts.push((name, Dtype::F32, tensor.shape().to_vec(), wave.collect()));
        count += numbers;
    }
    (write_tensors(&parts).expect("tensors of these sizes"), count)
}

fn main() {
    agrpo_compute::use_one_thread();
    let (count, _) = support::arguments(NonZeroUsize::MIN);
    let threads = Threads::new(count);
    let mut inputs = Inputs::default();
    inputs.insert(named("policy"), Artifact::Folder(base()));
    let mut numbers = 0;
    for iteration in 1..5 {
        let start = Instant::now();
        let outputs = execute_on(&threads, &spec(iteration), &inputs).expect("a valid update");
        let seconds = start.elapsed().as_secs_f64();
        if iteration > 1 {
            println!("update of {numbers} numbers on {count} threads: {seconds:.2} s");
            println!(
                "  peak {} MiB, of which inputs {} MiB",
                peak() >> 20,
                inputs_of(numbers) >> 20
            );
        } else {
            let (gradient, all) = gradient(&adapter(&outputs));
            inputs.insert(named("gradient"), Artifact::Blob(gradient.into()));
            numbers = all;
        }
        for (role, artifact) in outputs.artifacts {
            inputs.insert(named(role), artifact);
        }
    }
}

/// Policy, moments and gradient in memory, of which a run reads windows.
fn inputs_of(numbers: usize) -> usize {
    4 * size_of::<f32>() * numbers
}

/// `VmHWM` in bytes, so Linux only.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux");
    let kib = line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok());
    kib.expect("a number of KiB") << 10
}

/// The matrices of the new policy.
fn adapter(outputs: &Outputs) -> Bytes {
    let Artifact::Folder(files) = &outputs.artifacts["policy"] else { panic!("a folder") };
    let content = &files["adapter_model.safetensors"];
    content.bytes(content.size()).expect("in memory")
}
