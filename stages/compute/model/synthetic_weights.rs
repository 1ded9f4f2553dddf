//! A model of synthetic weights, made on the device where it is measured, so that 8 billion numbers need no
//! checkpoint and no copy from the host. For benchmarks only: its bits depend on the device, so nothing
//! computed from them may be stored.

use agrpo_spec::StageError;
use tch::{Device, Kind, Tensor};

use super::{config::ModelConfig, placement::Placement, policy::Policy};
use crate::{error::libtorch, tensors::NamedTensors};

/// Numbers made at once; each takes 8 bytes a few times over.
const CHUNK: i64 = 1 << 24;

impl Policy {
    /// A model whose norms are 1 and whose matrices look like noise of deviation `std`.
    pub fn synthetic(config: ModelConfig, std: f64, at: Placement) -> Result<Self, StageError> {
        let Placement { device, kind } = at;
        let mut named = NamedTensors::new();
        for (index, (name, shape)) in (0u32..).zip(config.tensors()) {
            let tensor = if shape.len() == 1 {
                Tensor::f_ones(&shape[..], (kind, device)).map_err(libtorch)?
            } else {
                noise(&shape, f64::from(index), std, (kind, device)).map_err(libtorch)?
            };
            named.insert(name, tensor);
        }
        Self::from_named(config, named, kind)
    }
}

/// The fractional part of a large multiple of a sine, moved to mean 0: the customary noise of shaders.
fn noise(
    shape: &[i64],
    offset: f64,
    std: f64,
    (kind, device): (Kind, Device),
) -> Result<Tensor, tch::TchError> {
    let count: i64 = shape.iter().product();
    let whole = Tensor::f_empty([count], (kind, device))?;
    for start in (0..count).step_by(usize::try_from(CHUNK).expect("a chunk is small")) {
        let end = count.min(start + CHUNK);
        let index = Tensor::f_arange_start(start, end, (Kind::Double, device))?;
        let sine = ((index * 12.9898 + offset).f_sin()?) * 43_758.545_3;
        let uniform = &sine - sine.f_floor()? - 0.5;
        // A uniform number of width 1 has the deviation 1 / sqrt(12).
        whole.f_narrow(0, start, end - start)?.f_copy_(&(uniform * (std * 12f64.sqrt())))?;
    }
    whole.f_view(shape)
}
