//! What a stage computes with, beside its spec and its inputs. None of it changes a byte of a result, except that the
//! device has to be of the spec's numerics class and reward programs have to be those of the spec.

use agrpo_spec::Scorer;

use crate::{device::Device, policy_cache::PolicyCache, threads::Threads};

#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) device: Device,
    pub(crate) threads: &'a Threads,
    pub(crate) cache: &'a PolicyCache,
    pub(crate) scorer: &'a dyn Scorer,
}
