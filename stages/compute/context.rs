//! What a stage computes with, beside its spec and its inputs. None of it changes a byte of a result, except that the
//! device has to be of the spec's numerics class and reward programs have to be those of the spec.

use std::cell::Cell;

use agrpo_spec::Scorer;

use crate::{device::Device, policy_cache::PolicyCache, problems::ProblemCache, threads::Threads};

/// The threads of a process, and what each of its stages may take.
#[derive(Clone, Debug)]
pub struct Resources {
    /// They compute passes, for all stages: one for a GPU.
    pub passes: Threads,
    /// They compute what the host computes, such as updates; the same, but beside a GPU.
    pub host: Threads,
    /// Stages that are computed at once.
    pub stages: usize,
    /// Bytes of the device's memory that one of them may take, if known.
    pub memory: Option<u64>,
}

impl Resources {
    /// One stage at a time on these threads, in memory of unknown size.
    pub fn of(threads: Threads) -> Self {
        Self { passes: threads.clone(), host: threads, stages: 1, memory: None }
    }

    /// Passes that one stage computes side by side, where as many stages are in hand as there may be.
    pub(crate) fn passes_of_stage(&self) -> u64 {
        self.passes.count().get().div_ceil(self.stages.max(1)) as u64
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) device: Device,
    pub(crate) resources: &'a Resources,
    pub(crate) cache: &'a PolicyCache,
    pub(crate) problems: &'a ProblemCache,
    pub(crate) scorer: &'a dyn Scorer,
    pub(crate) memory: &'a Memory,
}

/// The memory of one attempt at a stage.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Bytes of the device's memory that the stage may take, if known: those of the resources, or 0 when it is tried again.
    pub(crate) available: Option<u64>,
    /// Whether a stage that may choose was estimated to fit without checkpointing, and is computed without it.
    pub(crate) fits: Cell<bool>,
}

impl Memory {
    pub(crate) fn of(available: Option<u64>) -> Self {
        Self { available, fits: Cell::new(false) }
    }
}

impl<'a> Context<'a> {
    /// The threads that compute passes.
    pub(crate) fn threads(&self) -> &'a Threads {
        &self.resources.passes
    }
}
