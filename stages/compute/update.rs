//! Update: the mean of all shards' gradients, summed in the order of shards, and one optimizer step. It is
//! computed on the processor in every class: element by element, it is the same on all of them.

use std::collections::BTreeMap;

use agrpo_spec::{Artifact, Content, Files, Inputs, Outputs, UpdateSpec, metrics};
use tch::Kind;

use crate::error::{Result, data};
use crate::model::{Adapter, ModelConfig, Policy, adapter_of};
use crate::tensors::{NamedTensors, TensorWindows};
use crate::{gradient::MEAN_OVER, optimizer::AdamW};

pub(crate) fn execute(spec: &UpdateSpec, inputs: &Inputs) -> Result<Outputs> {
    let files = inputs.folder(spec.policy)?;
    // All weights, or an adapter, whose base is not read.
    let (adapter, mut parameters) = match adapter_of(files, spec.lora.as_ref(), spec.seed)? {
        Some((adapter, parameters)) => (Some(adapter), parameters),
        None => (None, Policy::from_folder(files)?.parameters()),
    };
    let shards = spec.gradients.iter().map(|digest| inputs.content(*digest));
    let gradients = mean_gradient(&shards.collect::<Result<Vec<_>, _>>()?, &parameters)?;
    let mut optimizer = match spec.optimizer_state {
        Some(state) => AdamW::read(inputs.content(state)?, &parameters)?,
        None => AdamW::new(&parameters),
    };
    let (n, total) = (spec.iteration, spec.iterations);
    let taken = optimizer.step(&mut parameters, &gradients, &spec.optimizer, n, total)?;
    let folder = folder(files, adapter, parameters)?;
    Ok(Outputs {
        artifacts: BTreeMap::from([
            ("policy", Artifact::Folder(folder)),
            ("optimizer", Artifact::Blob(optimizer.to_bytes()?.into())),
        ]),
        metrics: BTreeMap::from([
            (metrics::GRAD_NORM.into(), taken.grad_norm),
            (metrics::LEARNING_RATE.into(), taken.learning_rate),
        ]),
    })
}

/// The policy's folder with new parameters; all other files stay as they are.
fn folder(files: &Files, adapter: Option<Adapter>, parameters: NamedTensors) -> Result<Files> {
    let mut folder = files.clone();
    let moved = match adapter {
        Some(adapter) => adapter.to_files(&parameters)?,
        None => {
            folder.retain(|name, _| {
                !name.ends_with(".safetensors") && !name.ends_with(".index.json")
            });
            let config = ModelConfig::of_folder(files)?;
            Policy::from_named(config, parameters, Kind::Float)?.to_files()?
        }
    };
    folder.extend(moved);
    Ok(folder)
}

/// The mean over all shards: the mean of each shard, weighted by the number that it is a mean over. Beside the sum
/// there is one tensor of one shard in memory, however many shards there are.
fn mean_gradient(shards: &[&Content], parameters: &NamedTensors) -> Result<NamedTensors> {
    let mut sum = NamedTensors::new();
    let mut total = 0.0;
    for shard in shards {
        let mut shard = TensorWindows::open("gradient", shard)?;
        let weight = shard.take(MEAN_OVER, &[1], Kind::Double)?.double_value(&[0]);
        if !weight.is_finite() || weight < 0.0 {
            return Err(data(format!(
                "gradient is a mean over {weight}, expected a number from 0"
            )));
        }
        total += weight;
        for (name, parameter) in parameters {
            let gradient = shard.take(name, &parameter.size(), Kind::Float)?;
            let gradient = gradient.to_device(parameter.device()) * weight;
            let so_far = sum.remove(name);
            sum.insert(name.clone(), so_far.map_or(gradient.shallow_clone(), |s| s + &gradient));
        }
        shard.all_taken()?;
    }
    // Where no shard had anything to learn from, every gradient is zero.
    let share = if total > 0.0 { 1.0 / total } else { 0.0 };
    Ok(sum.into_iter().map(|(name, weighted)| (name, weighted * share)).collect())
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;
    use crate::tensors;

    fn shard(gradient: f32, mean_over: f64) -> Content {
        let named = [
            ("w".to_owned(), Tensor::from_slice(&[gradient])),
            (MEAN_OVER.to_owned(), Tensor::from_slice(&[mean_over])),
        ];
        tensors::write(&named.into_iter().collect()).unwrap().into()
    }

    fn mean(shards: &[Content]) -> Result<f64> {
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
