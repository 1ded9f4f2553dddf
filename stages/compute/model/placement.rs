//! The device and the kind of a policy, fixed when its weights are read.

use agrpo_spec::Precision;
use tch::{Device, Kind};

/// The device of a policy's weights, and their floating kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The device that computes.
    pub device: Device,
    /// The kind of the base's weights; adapters are f32.
    pub kind: Kind,
}

impl Placement {
    /// The placement of small policies.
    pub const CPU: Self = Self { device: Device::Cpu, kind: Kind::Float };

    /// On a device, in the kind that a spec asks for.
    pub fn on(device: crate::Device, precision: Precision) -> Self {
        let kind = match precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        };
        Self { device: device.of_tch(), kind }
    }
}
