//! The device that a command computes on, and what has to hold before it may. For the processor that is AVX2 and FMA,
//! and its numerics class: the set of hardware and switches within which equal stages give equal bytes. For a GPU also
//! a driver, a CUDA build of libtorch, and a class that names this GPU's compute capability. Whatever is missing is
//! reported before anything is computed. Results are never moved from one class to another.

use std::sync::Arc;

use agrpo_compute::{Device, Resources, Threads};
use agrpo_programs::Programs;
use agrpo_spec::{Environment, ExecuteFn, Numerics, Scorer};

use crate::numerics::{self, Products};
use crate::{exit::Failure, gpu::Gpu, libtorch::CudaBuild, machine, settings::Settings};

/// What to do where the processor lacks instructions.
pub(crate) const OTHER_PROCESSOR: &str = "compute on an x86-64 processor with AVX2 and FMA: most have them since 2013 (Intel) and 2015 (AMD)";

/// A device that was found.
#[derive(Debug)]
pub(crate) struct ComputeDevice {
    /// `cpu` or `cuda:N`.
    pub(crate) id: Device,
    /// The driver's description, if it is a GPU.
    pub(crate) gpu: Option<Gpu>,
    /// Threads that compute on it, shared by all stages.
    pub(crate) threads: Threads,
    /// Threads that compute on the host: the same, but beside a GPU.
    host: Threads,
    /// Runs reward programs.
    pub(crate) programs: Arc<Programs>,
}

impl ComputeDevice {
    /// Looks for the device; nothing is loaded for it yet. By default as many threads compute as there are cores.
    pub(crate) fn find(
        id: Device,
        threads: Option<u16>,
        settings: &Settings,
    ) -> Result<Self, Failure> {
        let gpu = match id {
            Device::Cpu => None,
            Device::Cuda(number) => Some(Gpu::find(number, settings)?),
        };
        Ok(Self { gpu, ..Self::without_driver(id, threads, settings) })
    }

    /// A device that no driver describes.
    pub(crate) fn without_driver(id: Device, threads: Option<u16>, settings: &Settings) -> Self {
        let host = Threads::new(machine::threads(threads, false));
        let threads = if id.is_cuda() { Threads::one() } else { host.clone() };
        Self { id, gpu: None, threads, host, programs: Arc::new(Programs::new(settings.path())) }
    }

    /// The class that a GPU computes in.
    pub(crate) fn class(&self) -> Option<Numerics> {
        self.gpu.as_ref().map(Gpu::class)
    }

    /// Puts the process under the pins of the class, which may restart it, and checks that the device can use it.
    pub(crate) fn enter(
        &self,
        settings: &Settings,
        class: Numerics,
        run_text: Option<&str>,
    ) -> Result<(), Failure> {
        self.enter_with(settings, (class, Products::CLASS), run_text)
    }

    /// The same with other products than the class's, for measurements.
    pub(crate) fn enter_with(
        &self,
        settings: &Settings,
        (class, products): (Numerics, Products),
        run_text: Option<&str>,
    ) -> Result<(), Failure> {
        self.check(class)?;
        let Device::Cuda(number) = self.id else {
            return numerics::enter(settings, (class, products), None, run_text);
        };
        let build = CudaBuild::find(settings)?;
        numerics::enter(settings, (class, products), Some(&build), run_text)?;
        let refuse = |why| Err(Failure::unavailable(why));
        let library = build.library();
        if !CudaBuild::is_loaded() {
            let library = library.display();
            return refuse(format!("{library} was not loaded: `ldd` on it says what it lacks"));
        }
        // libtorch caches its answer, so it is asked only after its CUDA half is loaded.
        match agrpo_compute::gpus() {
            0 => refuse(format!(
                "{}: libtorch {} finds no GPU: the driver is absent, or older than it needs",
                self.id, build.version
            )),
            all if number >= all => {
                refuse(format!("{}: there are {all} GPUs, counted from 0", self.id))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a class that is not computed here, and a processor that cannot compute. A GPU that no driver describes
    /// may be of any class; updates are computed on the processor in all of them.
    pub(crate) fn check(&self, class: Numerics) -> Result<(), Failure> {
        match (self.class(), class) {
            _ if !class.is_computed() => Err(Failure::usage(format!(
                "the run is of numerics class {class}, which this release does not compute"
            ))
            .hint("use the release that computed it, or a run file that leaves numerics out")),
            (None, Numerics::Cuda { .. }) if !self.id.is_cuda() => Err(Failure::usage(format!(
                "numerics class {class} is computed on a GPU, and the device is cpu"
            ))
            .hint("add --device cuda:0")),
            (Some(ours), _) if ours != class => {
                let failure = Failure::usage(format!(
                    "{} computes numerics class {ours}, and what is asked for is of class {class}",
                    self.id
                ));
                Err(failure.hint(format!(
                    "agrpo run and agrpo enqueue take --numerics {ours}: another run then, with results of its own"
                )))
            }
            _ => check_processor(),
        }
    }

    /// Stages in hand at the same time: as many as asked, or as threads.
    pub(crate) fn workers(&self, asked: Option<u16>) -> usize {
        asked.map_or(self.threads.count().get(), usize::from)
    }

    /// Bytes that stages may take: the GPU's, or what the machine has to spare.
    pub(crate) fn memory(&self) -> Option<u64> {
        match &self.gpu {
            Some(gpu) => Some(gpu.memory),
            None => machine::available_memory(),
        }
    }

    /// Bytes that each of so many concurrent stages may take.
    pub(crate) fn share(&self, stages: usize) -> Option<u64> {
        self.memory().map(|bytes| bytes / stages.max(1) as u64)
    }

    /// Computes stages on this device, so many at once. Memory is measured here, before they take any.
    pub(crate) fn execute(&self, stages: usize) -> ExecuteFn {
        let programs: Arc<dyn Scorer> = Arc::<Programs>::clone(&self.programs);
        let (passes, host) = (self.threads.clone(), self.host.clone());
        let resources = Resources { passes, host, stages, memory: self.share(stages) };
        Arc::new(agrpo_compute::execute_with(self.id, resources, programs))
    }

    /// What manifests record about it and a process that computes so many stages at once on it.
    pub(crate) fn environment(&self, stages: usize) -> Environment {
        let gpu = self.gpu.as_ref().map(|gpu| format!("{}, driver {}", gpu.name, gpu.driver));
        let count = |count| u32::try_from(count).unwrap_or(u32::MAX);
        let threads = count(self.threads.count().get());
        Environment { gpu, threads, stages_at_once: Some(count(stages)), ..machine::environment() }
    }
}

/// Refuses a processor without the instructions that the kernels are compiled for.
pub(crate) fn check_processor() -> Result<(), Failure> {
    agrpo_compute::missing_instructions()
        .map_or(Ok(()), |missing| Err(lacks(&machine::cpu(), missing)))
}

fn lacks(processor: &str, missing: &str) -> Failure {
    let message = format!("the processor ({processor}) lacks {missing}, which agrpo computes with");
    Failure::unavailable(message).hint(OTHER_PROCESSOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_cannot_compute_is_named_with_what_it_lacks() {
        let failure = lacks("Intel Xeon X5550", "AVX2 and FMA");
        assert_eq!(failure.exit, crate::exit::Exit::Unavailable);
        insta::assert_snapshot!(failure, @r"
        error: the processor (Intel Xeon X5550) lacks AVX2 and FMA, which agrpo computes with

        hint: compute on an x86-64 processor with AVX2 and FMA: most have them since 2013 (Intel) and 2015 (AMD)
        ");
    }
}
