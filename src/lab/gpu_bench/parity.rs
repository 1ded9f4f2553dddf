//! Whether a device computes the logits that the processor computes. No time is measured here.

#![expect(non_snake_case, reason = "shape letters at the end of tensor names are capitals")]

use agrpo_compute::Device;
use agrpo_compute::model::{Policy, Queries};
use agrpo_spec::{Files, StageError};
use serde::Serialize;
use tch::{Tensor, no_grad_guard};

/// Logits of one model on two devices.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Parity {
    /// The largest difference of two logits.
    pub max_abs_difference: f64,
    /// The largest logit, for comparison.
    pub max_abs_logit: f64,
    /// How many were compared.
    pub logits: usize,
}

/// Compares the logits of a policy on a device and on the processor, for token ids that cover the vocabulary.
pub fn parity(files: &Files, device: Device) -> Result<Parity, StageError> {
    const ROWS: i64 = 4;
    let _no_grad = no_grad_guard();
    let policy = Policy::from_folder(files)?;
    let v = policy.config().embedding_size;
    let ids: Vec<i64> = (0..ROWS * 48).map(|n| n * 7 % v).collect();
    let ids_BL = Tensor::from_slice(&ids).view([ROWS, -1]);
    let logits = |policy: &Policy| {
        let hidden = policy.hidden(&ids_BL.to_device(policy.device()), &Queries::All)?;
        Ok::<_, StageError>(policy.head(&hidden).to_device(tch::Device::Cpu))
    };
    let expected = logits(&policy)?;
    let found = logits(&policy.on(device))?;
    Ok(Parity {
        max_abs_difference: (&found - &expected).abs().max().double_value(&[]),
        max_abs_logit: expected.abs().max().double_value(&[]),
        logits: expected.numel(),
    })
}
