//! Update: the mean of all shards' gradients, summed in the order of shards, and one optimizer step. It is
//! computed on the processor in every class: element by element, it is the same on all of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use agrpo_spec::metrics::{self, Metrics};
use agrpo_spec::{Artifact, ArtifactDigest, Content, Files, Inputs, Outputs, UpdateSpec};
use tch::{Kind, Tensor};

use crate::error::{Result, data};
use crate::gradient::MEAN_OVER;
use crate::model::{Adapter, Policy, adapter_of};
use crate::optimizer::{AdamW, StepTaken, empty, fill, on_host, single};
use crate::tensors::{Entry, NamedTensors, TensorWindows, decoded, singles};
use crate::threads::Threads;

/// What is trained, beside its parameters.
pub(crate) enum Trained {
    /// An adapter, whose base is not read.
    Adapter(Adapter),
    /// All weights; the parameters stand on their memory.
    All(Box<Policy>),
}

pub(crate) fn execute(spec: &UpdateSpec, inputs: &Inputs, threads: &Threads) -> Result<Outputs> {
    let files = inputs.folder(spec.policy)?;
    let (trained, mut parameters) = match adapter_of(files, spec.lora.as_ref(), spec.seed)? {
        Some((adapter, parameters)) => (Trained::Adapter(adapter), parameters),
        None => {
            let policy = Policy::from_folder(files)?;
            let parameters = policy.parameters();
            (Trained::All(Box::new(policy)), parameters)
        }
    };
    let shards = spec.gradients.iter().map(|digest| inputs.content(*digest));
    let shards = shards.collect::<Result<Vec<_>, _>>()?;
    let gradients = mean_gradient(&shards, &parameters, threads)?;
    let mut optimizer = optimizer(spec.optimizer_state, inputs, &parameters, threads)?;
    let when = (spec.iteration, spec.iterations);
    let taken = optimizer.step(&mut parameters, &gradients, &spec.optimizer, when, threads)?;
    drop(gradients);
    let artifacts = artifacts(files.clone(), (trained, parameters), optimizer, threads)?;
    Ok(Outputs { artifacts, metrics: metrics(&taken) })
}

/// The optimizer with the state that the previous update left.
pub(crate) fn optimizer(
    state: Option<ArtifactDigest>,
    inputs: &Inputs,
    parameters: &NamedTensors,
    threads: &Threads,
) -> Result<AdamW> {
    match state {
        Some(state) => AdamW::read(inputs.content(state)?, parameters, threads),
        None => Ok(AdamW::new(parameters)),
    }
}

pub(crate) fn metrics(taken: &StepTaken) -> Metrics {
    BTreeMap::from([
        (metrics::GRAD_NORM.into(), taken.grad_norm),
        (metrics::LEARNING_RATE.into(), taken.learning_rate),
    ])
}

/// The outputs: the policy's folder with what was trained, and the optimizer's state.
pub(crate) fn artifacts(
    files: Files,
    (trained, parameters): (Trained, NamedTensors),
    optimizer: AdamW,
    threads: &Threads,
) -> Result<BTreeMap<&'static str, Artifact>> {
    side_by_side(
        [
            ("policy", Box::new(move || folder(files, trained, parameters).map(Artifact::Folder))),
            ("optimizer", Box::new(move || Ok(Artifact::Blob(optimizer.to_bytes()?.into())))),
        ],
        threads,
    )
}

/// Makes an output from what it owns.
type Make = Box<dyn FnOnce() -> Result<Artifact> + Send>;

/// The outputs by name, made on as many threads as there are.
fn side_by_side<const N: usize>(
    outputs: [(&'static str, Make); N],
    threads: &Threads,
) -> Result<BTreeMap<&'static str, Artifact>> {
    let outputs = outputs.map(|(name, make)| (name, Mutex::new(Some(make))));
    let mut made = BTreeMap::new();
    let make = |(): &mut (), n: usize| {
        let make = outputs[n].1.lock().unwrap_or_else(PoisonError::into_inner).take();
        make.expect("each is made once")()
    };
    threads.in_order(
        N,
        || (),
        make,
        |n, artifact| {
            made.insert(outputs[n].0, artifact);
            Ok(())
        },
    )?;
    Ok(made)
}

/// The policy's folder with new parameters; all other files stay as they are.
fn folder(mut folder: Files, trained: Trained, parameters: NamedTensors) -> Result<Files> {
    let moved = match trained {
        Trained::Adapter(adapter) => adapter.to_files(&parameters)?,
        Trained::All(policy) => {
            folder.retain(|name, _| {
                !name.ends_with(".safetensors") && !name.ends_with(".index.json")
            });
            policy.to_files()?
        }
    };
    folder.extend(moved);
    Ok(folder)
}

/// One shard's gradient.
struct Shard {
    file: TensorWindows,
    /// The number that it is a mean over.
    weight: f64,
    /// Where the gradients of the parameters lie, in the order of their names.
    entries: Vec<Entry>,
}

impl Shard {
    fn open(content: &Content, parameters: &NamedTensors) -> Result<Self> {
        let mut file = TensorWindows::open("gradient", content)?;
        let weight = file.take(MEAN_OVER, &[1], Kind::Double)?.double_value(&[0]);
        if !weight.is_finite() || weight < 0.0 {
            return Err(data(format!(
                "gradient is a mean over {weight}, expected a number from 0"
            )));
        }
        let entry = |(name, of): (&String, &Tensor)| file.claim(name, &of.size(), Kind::Float);
        let entries = parameters.iter().map(entry).collect::<Result<_>>()?;
        file.all_taken()?;
        Ok(Self { file, weight, entries })
    }
}

/// The mean over all shards: the mean of each shard, weighted by the number that it is a mean over. Beside the mean,
/// every thread has one window of one shard in memory, however many shards there are.
fn mean_gradient(
    shards: &[&Content],
    parameters: &NamedTensors,
    threads: &Threads,
) -> Result<NamedTensors> {
    let shards: Vec<Shard> =
        shards.iter().map(|shard| Shard::open(shard, parameters)).collect::<Result<_>>()?;
    let total: f64 = shards.iter().map(|shard| shard.weight).sum();
    let mut mean = empty(parameters);
    let sum = |place: usize, first, window: &mut [f32]| {
        window.fill(0.0);
        for Shard { file, weight, entries } in &shards {
            let bytes = file.part(&entries[place], first, window.len())?;
            add(window, decoded(&bytes), share(*weight, total));
        }
        Ok(())
    };
    fill(&mut mean, sum, threads)?;
    Ok(mean)
}

/// The share of a shard in the mean: its gradient is a mean over `weight` of the `total` of all shards.
pub(crate) fn share(weight: f64, total: f64) -> f32 {
    // Where no shard had anything to learn from, every gradient is zero.
    single(if total > 0.0 { weight / total } else { 0.0 })
}

fn add(sum: &mut [f32], numbers: impl Iterator<Item = f32>, share: f32) {
    sum.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number * share);
}

/// Adds the next shard's gradient to the mean, which is empty before the first: with the sums of [`mean_gradient`],
/// but of gradients in memory, one at a time.
pub(crate) fn add_shard(
    mean: &mut NamedTensors,
    gradient: &NamedTensors,
    share: f32,
    threads: &Threads,
) -> Result<()> {
    let mut gradient = on_host(gradient);
    if mean.is_empty() {
        let scale = |_, _, window: &mut [f32]| {
            window.iter_mut().for_each(|number| *number = 0.0 + *number * share);
            Ok(())
        };
        fill(&mut gradient, scale, threads)?;
        *mean = gradient;
        return Ok(());
    }
    let numbers = gradient.values().map(singles).collect::<Result<Vec<_>>>()?;
    let sum = |place: usize, first, window: &mut [f32]| {
        let first = usize::try_from(first).expect("a place in memory");
        add(window, numbers[place][first..first + window.len()].iter().copied(), share);
        Ok(())
    };
    fill(mean, sum, threads)
}

#[cfg(test)]
mod tests {
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
        let shards: Vec<_> = shards.iter().collect();
        let gradients = mean_gradient(&shards, &parameters, &Threads::one())?;
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
