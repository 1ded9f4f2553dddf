//! The pins of a numerics class, and the one restart that sets them. A numerics class is a set of hardware and
//! switches within which equal stages give equal bytes. libtorch, oneDNN, MKL and OpenMP read their switches from the
//! environment before the first tensor operation, so a process that computes restarts itself once with the switches of
//! its class set and every other variable that could change a bit unset. Commands that compute nothing never restart.

use std::{os::unix::process::CommandExt, path::Path, process::Command};

use agrpo_spec::Numerics;

use crate::exit::{Failure, cannot};
use crate::libtorch::CudaBuild;
use crate::machine;
use crate::settings::{NUMERICS, RUN_TEXT, Settings};

/// Where the loader searches first, and what it loads before anything else.
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";
const PRELOAD: &str = "LD_PRELOAD";

/// What glibc keeps of freed memory. A pass takes and frees the same tens of megabytes again and again, and every page
/// that went back to the system meanwhile would be zeroed anew.
const ALLOCATOR: [(&str, &str); 2] =
    [("MALLOC_TRIM_THRESHOLD_", "67108864"), ("MALLOC_MMAP_THRESHOLD_", "33554432")];

/// How libtorch multiplies matrices on a GPU. Every class of GPUs computes by [`Products::CLASS`]; `agrpo bench-gpu`
/// measures what the others would change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Products {
    pub(crate) name: &'static str,
    /// Variables that differ from the class's, or are in it alone.
    pins: &'static [(&'static str, &'static str)],
    /// Whether a product in half precision may be summed in parts. cuBLAS needs it; only cuBLASLt can do without.
    split_k: bool,
}

/// Where cuBLAS sums parts of products, in KiB and how often, and the library that is used instead.
const WORKSPACE: &str = "CUBLAS_WORKSPACE_CONFIG";
const WORKSPACE_LT: &str = "CUBLASLT_WORKSPACE_SIZE";
const PREFER_LT: &str = "TORCH_BLAS_PREFER_CUBLASLT";

impl Products {
    pub(crate) const CLASS: Self = Self { name: "cublas", pins: &[], split_k: true };
    pub(crate) const ALL: [Self; 5] = [
        Self::CLASS,
        Self { name: "cublas-16", pins: &[(WORKSPACE, ":16:8")], split_k: true },
        Self { name: "cublaslt", pins: &[(PREFER_LT, "1")], split_k: true },
        Self { name: "cublaslt-no-split-k", pins: &[(PREFER_LT, "1")], split_k: false },
        Self {
            name: "cublaslt-1-kib",
            pins: &[(PREFER_LT, "1"), (WORKSPACE_LT, "1")],
            split_k: false,
        },
    ];

    /// The settings, for people.
    pub(crate) fn describe(self) -> String {
        let mut all = vec![format!("{WORKSPACE}=:4096:8")];
        if self.pins.iter().any(|(name, _)| *name == WORKSPACE) {
            all.clear();
        }
        all.extend(self.pins.iter().map(|(name, value)| format!("{name}={value}")));
        all.extend((!self.split_k).then(|| "split-k off in half precision".to_owned()));
        all.join(", ")
    }
}

/// A variable and its value; `None` is unset.
type Pin = (&'static str, Option<String>);

/// Every variable that can change a bit of a result, with its value in the class.
fn pins(class: Numerics, products: Products) -> Vec<Pin> {
    let without_gpu = |value| (!class.is_cuda()).then_some(value);
    let of_processor = [
        // f32 passes are kernels of our own (`stages/compute/kernels`). The libraries compute half precision and what
        // has one order of sums anyway, with the instructions of every processor of the class.
        ("ATEN_CPU_CAPABILITY", without_gpu("avx2")),
        ("ONEDNN_MAX_CPU_ISA", without_gpu("AVX2")),
        ("MKL_CBWR", without_gpu("COMPATIBLE")),
        ("OMP_NUM_THREADS", Some("1")),
        ("MKL_NUM_THREADS", Some("1")),
        ("DNNL_MAX_CPU_ISA", None),
        ("MKL_ENABLE_INSTRUCTIONS", None),
        ("MKL_DEBUG_CPU_TYPE", None),
        ("ONEDNN_DEFAULT_FPMATH_MODE", None),
        ("DNNL_DEFAULT_FPMATH_MODE", None),
    ];
    let of_gpu = [
        // cuBLAS may use another workspace, and so another order of sums, from call to call.
        (WORKSPACE, Some(":4096:8")),
        (WORKSPACE_LT, None),
        // f32 products in f32, whatever the library's default is.
        ("NVIDIA_TF32_OVERRIDE", Some("0")),
        ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", None),
        // GPUs have the numbers that the driver's tools give them.
        ("CUDA_DEVICE_ORDER", Some("PCI_BUS_ID")),
        // Which library multiplies matrices, and how.
        (PREFER_LT, None),
        // Chooses kernels by the clock.
        ("PYTORCH_TUNABLEOP_ENABLED", None),
        // Tables of kernels other than the library's, and products of f32 and f64 from parts in half precision.
        ("CUBLASLT_HEURISTICS_LUT_FILE", None),
        ("CUBLAS_EMULATION_STRATEGY", None),
        ("CUBLAS_EMULATE_SINGLE_PRECISION", None),
        ("CUBLAS_EMULATE_DOUBLE_PRECISION", None),
        ("TORCH_LINEAR_FLATTEN_3D", None),
        ("DISABLE_ADDMM_CUDA_LT", None),
        ("TORCH_LINALG_PREFER_CUSOLVER", None),
        // libtorch's own allocator settings: what fits does not depend on the caller's environment.
        ("PYTORCH_ALLOC_CONF", None),
        ("PYTORCH_CUDA_ALLOC_CONF", None),
        ("PYTORCH_NO_CUDA_MEMORY_CACHING", None),
    ];
    let of_gpu = of_gpu.into_iter().filter(|_| class.is_cuda()).map(|(name, value)| {
        let other = products.pins.iter().find(|(pinned, _)| *pinned == name);
        (name, other.map_or(value, |(_, other)| Some(*other)))
    });
    let owned = |(name, value): (_, Option<&str>)| (name, value.map(str::to_owned));
    of_processor.into_iter().chain(of_gpu).map(owned).collect()
}

/// Puts a whole libtorch before the CPU half that the program is linked against: its folder is searched
/// first (the program's own run path comes after LD_LIBRARY_PATH), and its CUDA half is loaded at
/// the start, since no library asks for it by name.
fn loading(settings: &Settings, build: Option<&CudaBuild>) -> Vec<Pin> {
    let Some(build) = build else { return vec![] };
    let before = |name: &'static str, first: &Path| {
        let first = first.display().to_string();
        let rest = settings.variable(name).unwrap_or_default().split(':');
        let rest = rest.filter(|entry| !entry.is_empty() && *entry != first);
        let all: Vec<&str> = std::iter::once(first.as_str()).chain(rest).collect();
        (name, Some(all.join(":")))
    };
    vec![before(LIBRARY_PATH, &build.libraries), before(PRELOAD, &build.library())]
}

/// The class's switches, for people: `ATEN_CPU_CAPABILITY=avx2 ...`.
pub(crate) fn describe(class: Numerics) -> String {
    let set = pins(class, Products::CLASS)
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    set.collect::<Vec<_>>().join(" ")
}

/// Returns if the process has the pins of the class, and restarts it with them otherwise. A GPU's class needs
/// the CUDA build of libtorch. After the restart, [`handed_over`] returns `run_text`.
pub(crate) fn enter(
    settings: &Settings,
    (class, products): (Numerics, Products),
    build: Option<&CudaBuild>,
    run_text: Option<&str>,
) -> Result<(), Failure> {
    let pins = [pins(class, products), loading(settings, build)].concat();
    if pins.iter().all(|(name, value)| settings.variable(name) == value.as_deref()) {
        agrpo_compute::use_one_thread();
        if class.is_cuda() {
            agrpo_compute::use_deterministic_algorithms(products.split_k);
        }
        return Ok(());
    }
    if settings.variable(NUMERICS) == Some(&*class.to_string()) {
        return Err(Failure::unexpected(format!(
            "the numerics pins of {class} did not survive a restart of the program"
        ))
        .hint(format!("unset {NUMERICS}, and start agrpo without a wrapper that sets variables")));
    }
    let program = std::env::current_exe().map_err(cannot("find itself"))?;
    let mut command = Command::new(&program);
    command.args(std::env::args_os().skip(1)).env(NUMERICS, class.to_string());
    // They change no bit, so nothing depends on whether they reach the process.
    command.envs(ALLOCATOR);
    // Every arena keeps what a pass needed, and threads that come and go would use sixteen.
    let arenas = machine::cores().get() as u64 + agrpo_spec::memory::SPARE_ARENAS;
    command.env("MALLOC_ARENA_MAX", arenas.to_string());
    for (name, value) in pins {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(text) = run_text {
        command.env(RUN_TEXT, text);
    }
    // `exec` returns only on failure.
    Err(cannot(&format!("restart {}", program.display()))(command.exec()))
}

/// The run file's text, if the process before the restart read it.
pub(crate) fn handed_over(settings: &Settings) -> Option<&str> {
    settings.variable(NUMERICS).and_then(|_| settings.variable(RUN_TEXT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_change_their_own_pins_alone() {
        let gpu = Numerics::Cuda { sm: 90 };
        let of = |products| pins(gpu, products);
        let changed = |products| {
            let pairs = of(Products::CLASS).into_iter().zip(of(products));
            let changed = pairs.filter(|(of_class, other)| of_class != other);
            changed.map(|(_, (name, value))| (name, value.unwrap())).collect::<Vec<_>>()
        };
        for products in Products::ALL {
            let own: Vec<_> =
                products.pins.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            let mut found = changed(products);
            found.sort_by_key(|(name, _)| own.iter().position(|(own, _)| own == name));
            assert_eq!(found, own, "{}", products.name);
        }
        let of_processor = Numerics::CpuPortable;
        let other = Products::ALL[1];
        assert_eq!(pins(of_processor, other), pins(of_processor, Products::CLASS));
        assert_eq!(other.describe(), "CUBLAS_WORKSPACE_CONFIG=:16:8");
    }
}
