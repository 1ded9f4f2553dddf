//! Update: the mean of all shards' gradients, summed in the order of shards, and one optimizer step.

use std::collections::BTreeMap;

use agrpo_spec::{Artifact, Inputs, Outputs, StageError, UpdateSpec};
use tch::Kind;

use crate::error::data;
use crate::model::Policy;
use crate::optimizer::AdamW;
use crate::tensor_file::{self, NamedTensors, take};

pub(crate) fn execute(spec: &UpdateSpec, inputs: &Inputs) -> Result<Outputs, StageError> {
    let files = inputs.folder(spec.policy)?;
    let policy = Policy::from_folder(files)?;
    let mut parameters = policy.parameters();
    let gradients = mean_gradient(spec, inputs, &parameters)?;
    let mut optimizer = match spec.optimizer_state {
        Some(state) => AdamW::from_bytes(inputs.blob(state)?, &parameters)?,
        None => AdamW::new(&parameters),
    };
    let taken = optimizer.step(
        &mut parameters,
        &gradients,
        &spec.optimizer,
        spec.iteration,
        spec.iterations,
    )?;
    // Everything but the weights (tokenizer, configuration) goes on as it was.
    let updated = Policy::from_named(policy.config().clone(), parameters)?.to_files()?;
    let mut folder = files.clone();
    folder.retain(|name, _| !name.ends_with(".safetensors"));
    folder.extend(updated);
    Ok(Outputs {
        artifacts: BTreeMap::from([
            ("policy", Artifact::Folder(folder)),
            ("optimizer", Artifact::Blob(optimizer.to_bytes()?)),
        ]),
        metrics: BTreeMap::from([
            ("grad_norm".into(), taken.grad_norm),
            ("learning_rate".into(), taken.learning_rate),
        ]),
    })
}

fn mean_gradient(
    spec: &UpdateSpec,
    inputs: &Inputs,
    parameters: &NamedTensors,
) -> Result<NamedTensors, StageError> {
    let mut sum = NamedTensors::new();
    for digest in &spec.gradients {
        let mut shard = tensor_file::read(inputs.blob(*digest)?, "gradient")?;
        for (name, parameter) in parameters {
            let gradient = take(&mut shard, "gradient", name, &parameter.size(), Kind::Float)?;
            let so_far = sum.remove(name);
            sum.insert(name.clone(), so_far.map_or(gradient.shallow_clone(), |s| s + &gradient));
        }
        if let Some(extra) = shard.keys().next() {
            return Err(data(format!("gradient has an unknown tensor {extra}")));
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "shards are few")]
    let share = 1.0 / spec.gradients.len() as f64;
    Ok(sum.into_iter().map(|(name, total)| (name, total * share)).collect())
}
