//! A GPU as the NVIDIA driver describes it: name, compute capability, memory, driver version. The driver's library
//! (NVML) is loaded while the program runs, so that one program serves machines with and without GPUs. Whether
//! libtorch can compute on the GPU is another question (`device.rs`).

use std::ffi::OsStr;

use agrpo_spec::Numerics;
use nvml_wrapper::{Device, Nvml};

use crate::exit::Failure;
use crate::settings::{Settings, VISIBLE_GPUS};

/// The name under which every driver installs it; the name without a number is for linking.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// A GPU as the driver knows it.
#[derive(Debug)]
pub(crate) struct Gpu {
    nvml: Nvml,
    id: Visible,
    /// As in `NVIDIA H100 80GB HBM3`.
    pub(crate) name: String,
    /// Its compute capability without the point.
    pub(crate) sm: u16,
    /// Bytes, all of them.
    pub(crate) memory: u64,
    /// The driver's version.
    pub(crate) driver: String,
}

/// How the driver identifies the GPU that CUDA calls by a number.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Visible {
    Index(u32),
    /// The start of its name: `GPU-...` or `MIG-...`.
    Uuid(String),
}

impl Gpu {
    /// The GPU that CUDA calls by this number.
    pub(crate) fn find(number: usize, settings: &Settings) -> Result<Self, Failure> {
        let refuse = |why: String| {
            Failure::unavailable(format!("cuda:{number}: {why}"))
                .hint("agrpo doctor --device cuda:0 says what is there")
        };
        let id = visible(settings.variable(VISIBLE_GPUS), number).map_err(refuse)?;
        let nvml = Nvml::builder().lib_path(OsStr::new(LIBRARY)).init().map_err(|error| {
            let first = error.to_string();
            let first = first.lines().next().unwrap_or_default().to_owned();
            refuse(format!("no NVIDIA driver answers ({LIBRARY}: {first})"))
        })?;
        let described = id.device(&nvml).and_then(|device| {
            let capability = device.cuda_compute_capability()?;
            let sm = u16::try_from(capability.major * 10 + capability.minor).unwrap_or(0);
            Ok((device.name()?, sm, device.memory_info()?.total, nvml.sys_driver_version()?))
        });
        let (name, sm, memory, driver) = described.map_err(|error| {
            let count = nvml.device_count().unwrap_or(0);
            refuse(format!("the driver lists {count} GPUs, but fails on this one: {error}"))
        })?;
        Ok(Self { id, name, sm, memory, driver, nvml })
    }

    /// The numerics class that it computes in.
    pub(crate) fn class(&self) -> Numerics {
        Numerics::Cuda { sm: self.sm }
    }

    /// Bytes in use by all processes.
    pub(crate) fn used(&self) -> Option<u64> {
        let device = self.id.device(&self.nvml).ok()?;
        Some(device.memory_info().ok()?.used)
    }
}

impl Visible {
    fn device<'n>(&self, nvml: &'n Nvml) -> Result<Device<'n>, nvml_wrapper::error::NvmlError> {
        match self {
            Self::Index(index) => nvml.device_by_index(*index),
            Self::Uuid(uuid) => {
                let all = (0..nvml.device_count()?).filter_map(|n| nvml.device_by_index(n).ok());
                let mut named = all.filter(|device| {
                    device.uuid().is_ok_and(|whole| whole.starts_with(uuid.as_str()))
                });
                named.next().map_or_else(|| nvml.device_by_uuid(uuid.as_str()), Ok)
            }
        }
    }
}

/// CUDA numbers those that CUDA_VISIBLE_DEVICES lists, in its order; else all, by their bus.
fn visible(list: Option<&str>, number: usize) -> Result<Visible, String> {
    let Some(list) = list else {
        return Ok(Visible::Index(u32::try_from(number).unwrap_or(u32::MAX)));
    };
    // CUDA reads the list up to the first entry that it does not know.
    let known = |entry: &&str| {
        let names = ["GPU-", "MIG-"].iter().any(|start| entry.starts_with(start));
        names || entry.parse::<u32>().is_ok()
    };
    let entries: Vec<&str> = list.split(',').map(str::trim).take_while(known).collect();
    let entry = entries.get(number).ok_or_else(|| {
        format!("CUDA_VISIBLE_DEVICES={list} shows {} GPUs, counted from 0", entries.len())
    })?;
    Ok(entry.parse().map_or_else(|_| Visible::Uuid((*entry).to_owned()), Visible::Index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_what_is_visible() {
        assert_eq!(visible(None, 3), Ok(Visible::Index(3)));
        assert_eq!(visible(Some("2, 0"), 0), Ok(Visible::Index(2)));
        assert_eq!(visible(Some("GPU-8a,1"), 0), Ok(Visible::Uuid("GPU-8a".to_owned())));
        let refusal = visible(Some("1,-1,2"), 1).unwrap_err();
        assert_eq!(refusal, "CUDA_VISIBLE_DEVICES=1,-1,2 shows 1 GPUs, counted from 0");
    }
}
