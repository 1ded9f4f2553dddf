//! Seconds of an update of a model's adapters, from inputs in memory to outputs in memory. It is computed on the
//! processor in every class. Measures neither storage nor the hashes of outputs.

use std::num::NonZeroUsize;

use agrpo_compute::{Threads, execute_on};
use agrpo_spec::trajectories::write_tensors;
use agrpo_spec::{
    Artifact, ArtifactDigest, Files, Inputs, Numerics, Outputs, Seed, StageError, StageKind,
    StageSpec, UpdateSpec,
};
use bytes::Bytes;
use safetensors::tensor::{Dtype, SafeTensors};
use serde::Serialize;

use super::load::Load;
use super::model::adapters;
use super::rows::Rows;

/// The measurement.
#[derive(Clone, Copy, Debug, Serialize)]
struct Update {
    /// Numbers that are moved.
    numbers: usize,
    threads: usize,
    /// Of one update, moments read and written.
    seconds: f64,
}

/// Reports rows for an update on one thread and on `threads`. The first one, which draws the adapter, is not measured.
pub fn update(load: &Load, threads: NonZeroUsize, rows: &mut Rows<'_>) {
    let prepared = rows
        .add("first update, which draws the adapter", |_| AdapterUpdate::prepare(load, threads));
    let Some(prepared) = prepared else { return };
    let counts = [NonZeroUsize::MIN, threads];
    for threads in counts.into_iter().take(if threads == NonZeroUsize::MIN { 1 } else { 2 }) {
        rows.add(&format!("update on {threads} threads"), |watch| {
            let ((), seconds) = watch.time(|| prepared.take(threads))?;
            Ok(Update { numbers: prepared.numbers, threads: threads.get(), seconds })
        });
    }
}

/// An update of adapters, ready to be taken again and again.
#[derive(Debug, Serialize)]
pub struct AdapterUpdate {
    /// Numbers that it moves.
    pub numbers: usize,
    #[serde(skip)]
    inputs: Inputs,
}

impl AdapterUpdate {
    /// Takes a first update, which draws the adapter, and makes a gradient for the next.
    pub fn prepare(load: &Load, threads: NonZeroUsize) -> Result<Self, StageError> {
        let mut inputs = Inputs::default();
        let config = load.config().to_json();
        let base = Files::from([("config.json".to_owned(), config.into())]);
        inputs.insert(named("policy"), Artifact::Folder(base));
        let outputs = execute_on(&Threads::new(threads), &spec(1), &inputs)?;
        let (gradient, numbers) = gradient(&adapter(&outputs)?)?;
        inputs.insert(named("gradient"), Artifact::Blob(gradient.into()));
        for (role, artifact) in outputs.artifacts {
            inputs.insert(named(role), artifact);
        }
        Ok(Self { numbers, inputs })
    }

    /// Takes the second update.
    pub fn take(&self, threads: NonZeroUsize) -> Result<(), StageError> {
        execute_on(&Threads::new(threads), &spec(2), &self.inputs).map(drop)
    }
}

/// Names inputs by their role: hashing them would take time.
fn named(role: &str) -> ArtifactDigest {
    ArtifactDigest::of(role.as_bytes())
}

/// The first one draws the adapter, and learns from no shard.
fn spec(iteration: u32) -> StageSpec {
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
        optimizer: serde_json::from_str(r#"{"learning_rate": 1e-5}"#).expect("it is valid"),
        seed: Seed::new(1),
        lora: Some(adapters()),
    })
}

/// The matrices of the new policy.
fn adapter(outputs: &Outputs) -> Result<Bytes, StageError> {
    let missing = || StageError::Internal("the update gave no adapter".into());
    let Some(Artifact::Folder(files)) = outputs.artifacts.get("policy") else {
        return Err(missing());
    };
    let content = files.get("adapter_model.safetensors").ok_or_else(missing)?;
    let unread = |error: std::io::Error| StageError::Internal(error.to_string().into());
    content.bytes(content.size()).map_err(unread)
}

/// A gradient for each matrix of the adapter, in the form of a gradient stage, and how many numbers it has.
fn gradient(adapter: &Bytes) -> Result<(Bytes, usize), StageError> {
    let unread =
        |error: safetensors::SafeTensorError| StageError::Internal(error.to_string().into());
    let file = SafeTensors::deserialize(adapter).map_err(unread)?;
    let wave: Vec<u8> =
        (0..4096u16).flat_map(|n| (f32::from(n) * 1e-7 - 2e-4).to_le_bytes()).collect();
    let mut parts = vec![("mean_over", Dtype::F64, vec![1], 1f64.to_le_bytes().to_vec().into())];
    let mut count = 0;
    for (name, tensor) in file.iter() {
        let bytes = tensor.data().len();
        let mut waves = wave.repeat(bytes.div_ceil(wave.len()));
        waves.truncate(bytes);
        parts.push((name, Dtype::F32, tensor.shape().to_vec(), waves.into()));
        count += bytes / size_of::<f32>();
    }
    Ok((write_tensors(&parts)?, count))
}
