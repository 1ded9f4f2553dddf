//! Whether a device computes the logits and the gradients that the processor computes, in f32 and in bf16. The processor's
//! f32 is the reference of both: the processor's own bf16 says how far rounding may lead. No time is measured here.

#![expect(non_snake_case, reason = "shape letters at the end of tensor names are capitals")]

use std::collections::BTreeMap;

use agrpo_compute::estimator::{Batch, Policies, Worth, accumulate, estimator};
use agrpo_compute::model::{Placement, Policy, Queries};
use agrpo_compute::sampler::{Row, sample};
use agrpo_compute::{Device, Threads, trajectories::Trajectories};
use agrpo_spec::{
    EstimatorConfig, EstimatorKind, Files, Precision, Purpose, Sampler, Samples, Seed, StageError,
};
use serde::Serialize;
use tch::{Kind, Tensor, no_grad_guard};

use super::load::Load;
use super::model::as_trained;
use super::rows::Rows;

/// Largest relative distance in f32: sums of a few hundred terms in another order.
const FAR_IN_F32: f64 = 1e-4;
/// In bf16, how many times as far from the processor's f32 as the processor's own bf16.
const FAR_IN_BF16: f64 = 2.0;

/// Vectors of a device beside the processor's in f32.
#[derive(Clone, Copy, Debug, Serialize)]
struct Distance {
    numbers: usize,
    /// Of two numbers.
    max_abs_difference: f64,
    /// Of the processor's numbers, for comparison.
    max_abs: f64,
    /// Norm of the difference by the norm of the processor's vector.
    relative: f64,
    /// The same of the processor in the device's precision; 0 in f32.
    relative_of_processor: f64,
    /// The largest relative distance that counts as agreement.
    allowed: f64,
}

/// Reports, for f32 and bf16, a row for logits, one for the gradients of all weights and one for those of adapters.
pub fn parity(files: &Files, device: Device, rows: &mut Rows<'_>) {
    let given = rows.prepare("trajectories of the processor", |_| Given::new(files));
    let Some(given) = given else { return };
    for (precision, named) in [(Precision::F32, "f32"), (Precision::Bf16, "bf16")] {
        for what in What::ALL {
            let name = format!("{}, {named}", what.name());
            rows.add_checked(
                &name,
                |_| {
                    let of =
                        |device, precision| given.vector(what, Placement::on(device, precision));
                    let expected = of(Device::Cpu, Precision::F32)?;
                    let rounded = of(Device::Cpu, precision)?;
                    Ok(distance(&expected, &rounded, &of(device, precision)?))
                },
                |found| {
                    let is_far = found.relative.is_nan() || found.relative > found.allowed;
                    is_far.then(|| format!("relative distance {:.2e}", found.relative))
                },
            );
        }
    }
}

fn distance(expected: &Tensor, rounded: &Tensor, found: &Tensor) -> Distance {
    let norm = |t: &Tensor| t.square().sum(Kind::Double).sqrt().double_value(&[]);
    let largest = |t: &Tensor| t.abs().max().double_value(&[]);
    let relative = |other: &Tensor| norm(&(other - expected)) / norm(expected);
    let relative_of_processor = relative(rounded);
    Distance {
        numbers: expected.numel(),
        max_abs_difference: largest(&(found - expected)),
        max_abs: largest(expected),
        relative: relative(found),
        relative_of_processor,
        allowed: FAR_IN_F32.max(FAR_IN_BF16 * relative_of_processor),
    }
}

#[derive(Clone, Copy)]
enum What {
    Logits,
    AllGradients,
    AdapterGradients,
}

impl What {
    const ALL: [Self; 3] = [Self::Logits, Self::AllGradients, Self::AdapterGradients];

    fn name(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::AllGradients => "gradients of all weights",
            Self::AdapterGradients => "gradients of adapters",
        }
    }
}

/// A model, and trajectories that the processor sampled from it.
struct Given<'a> {
    files: &'a Files,
    sampler: Sampler,
    trajectories: Trajectories,
}

impl<'a> Given<'a> {
    const ROWS: u32 = 4;

    fn new(files: &'a Files) -> Result<Self, StageError> {
        let policy = Policy::from_folder(files)?;
        let sampler = Load::tiny().sampler;
        let bound = u64::try_from(policy.config().mask_token_id - 1).unwrap_or(1);
        let row = |n: u32| {
            let seed = Seed::new(1).child(Purpose::Sample, n.into());
            let token = |at| i64::try_from(seed.below(bound, at, 0)).unwrap_or(0);
            Row { prompt: (0..24).map(token).collect(), seed }
        };
        let rows: Vec<_> = (0..Self::ROWS).map(row).collect();
        let trajectories = sample(&policy, &rows, &sampler, rows.len(), &Threads::one())?;
        Ok(Self { files, sampler, trajectories })
    }

    /// Numbers that a placement computes, in f64 on the processor.
    fn vector(&self, what: What, at: Placement) -> Result<Tensor, StageError> {
        let policy = Policy::from_folder_at(self.files, at)?;
        let on_host = |t: &Tensor| t.detach().to_device(tch::Device::Cpu).to_kind(Kind::Double);
        if matches!(what, What::Logits) {
            let _no_grad = no_grad_guard();
            let ids: Vec<i64> = (0..self.trajectories.rows)
                .flat_map(|row| {
                    let mask = policy.config().mask_token_id;
                    self.trajectories.state(row, 2, mask)
                })
                .collect();
            let ids_BL = Tensor::from_slice(&ids).view([i64::from(Self::ROWS), -1]);
            let hidden = policy.hidden(&ids_BL.to_device(policy.device()), &Queries::All)?;
            return Ok(on_host(&policy.head(&hidden)).flatten(0, -1));
        }
        let policy = match what {
            What::AdapterGradients => as_trained(policy)?,
            What::Logits | What::AllGradients => policy,
        };
        let gradient = self.gradient(&policy)?;
        let parts: Vec<Tensor> = gradient.values().map(|t| on_host(t).flatten(0, -1)).collect();
        Ok(Tensor::cat(&parts, 0))
    }

    fn gradient(&self, policy: &Policy) -> Result<BTreeMap<String, Tensor>, StageError> {
        let worth = |n: u32| {
            let advantage = if n.is_multiple_of(2) { 1.0 } else { -0.5 };
            Worth { advantage, counted: true }
        };
        let worths: Vec<_> = (0..Self::ROWS).map(worth).collect();
        let batch = Batch::new(&self.trajectories, &worths, 1, &self.sampler, policy.config())?;
        let config = EstimatorConfig {
            k: Samples::Count(3),
            micro_batch: 4,
            ..EstimatorConfig::plain(EstimatorKind::Agrpo)
        };
        let policies = Policies { policy, behaviour: None, reference: None };
        let estimator = estimator(&batch, &config, Seed::new(2));
        Ok(accumulate(&estimator, &policies, &config, &Threads::one())?.gradient)
    }
}
