//! Update: the mean of all shards' gradients, summed in the order of shards, and one optimizer step.

use std::collections::BTreeMap;

use agrpo_spec::{Artifact, Inputs, Outputs, StageError, UpdateSpec};
use bytes::Bytes;
use tch::Kind;

use crate::error::data;
use crate::gradient::MEAN_OVER;
use crate::model::Policy;
use crate::optimizer::AdamW;
use crate::tensor_file::{self, NamedTensors, take};

pub(crate) fn execute(spec: &UpdateSpec, inputs: &Inputs) -> Result<Outputs, StageError> {
    let files = inputs.folder(spec.policy)?;
    let policy = Policy::from_folder(files)?;
    let mut parameters = policy.parameters();
    let shards = spec.gradients.iter().map(|digest| inputs.blob(*digest));
    let gradients = mean_gradient(&shards.collect::<Result<Vec<_>, _>>()?, &parameters)?;
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
    let is_weights = |name: &str| name.ends_with(".safetensors") || name.ends_with(".index.json");
    folder.retain(|name, _| !is_weights(name));
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

/// The mean over all shards: each shard's own, weighted by what it is a mean over.
fn mean_gradient(shards: &[&Bytes], parameters: &NamedTensors) -> Result<NamedTensors, StageError> {
    let mut sum = NamedTensors::new();
    let mut total = 0.0;
    for bytes in shards {
        let mut shard = tensor_file::read(bytes, "gradient")?;
        let weight = take(&mut shard, "gradient", MEAN_OVER, &[1], Kind::Double)?;
        let weight = weight.double_value(&[0]);
        if !weight.is_finite() || weight < 0.0 {
            return Err(data(format!(
                "gradient is a mean over {weight}, expected a number from 0"
            )));
        }
        total += weight;
        for (name, parameter) in parameters {
            let gradient = take(&mut shard, "gradient", name, &parameter.size(), Kind::Float)?;
            let gradient = gradient * weight;
            let so_far = sum.remove(name);
            sum.insert(name.clone(), so_far.map_or(gradient.shallow_clone(), |s| s + &gradient));
        }
        if let Some(extra) = shard.keys().next() {
            return Err(data(format!("gradient has an unknown tensor {extra}")));
        }
    }
    // Where no shard had anything to learn from, every gradient is zero.
    let share = if total > 0.0 { 1.0 / total } else { 0.0 };
    Ok(sum.into_iter().map(|(name, weighted)| (name, weighted * share)).collect())
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    fn shard(gradient: f32, mean_over: f64) -> Bytes {
        let named = [
            ("w".to_owned(), Tensor::from_slice(&[gradient])),
            (MEAN_OVER.to_owned(), Tensor::from_slice(&[mean_over])),
        ];
        tensor_file::write(&named.into_iter().collect()).unwrap()
    }

    fn mean(shards: &[Bytes]) -> Result<f64, StageError> {
        let parameters = [("w".to_owned(), Tensor::from_slice(&[0f32]))].into_iter().collect();
        let gradients = mean_gradient(&shards.iter().collect::<Vec<_>>(), &parameters)?;
        Ok(gradients["w"].double_value(&[0]))
    }

    /// However completions fall into shards, each that counts weighs the same.
    #[test]
    fn shards_weigh_what_their_means_are_over() {
        assert_eq!(mean(&[shard(1.0, 3.0), shard(5.0, 1.0)]).unwrap(), 2.0);
        assert_eq!(mean(&[shard(4.0, 32.0), shard(0.0, 0.0)]).unwrap(), 4.0);
        assert_eq!(mean(&[shard(0.0, 0.0), shard(0.0, 0.0)]).unwrap(), 0.0);
        let wrong = mean(&[shard(1.0, f64::NAN)]).unwrap_err().to_string();
        assert_eq!(wrong, "gradient is a mean over NaN, expected a number from 0");
    }
}
