//! Dispatches a stage spec to the code of its stage, and turns panics into errors.
//!
//! Refuses a spec of another version than this program computes, and one of a numerics class that the
//! device does not compute. Reads no policy and no problems itself: stages do, through the policy cache.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use agrpo_spec::{Inputs, Outputs, Scorer, StageKind, StageSpec};

use crate::context::Context;
use crate::device::{Device, out_of_memory};
use crate::error::{Result, internal, invalid};
use crate::policy_cache::PolicyCache;
use crate::problems::NoPrograms;
use crate::threads::Threads;
use crate::{evaluation, gradient, reward, rollout, sft, update};

/// Computes a stage on one thread of the processor, without reward programs; see [`execute_with`].
pub fn execute(spec: &StageSpec, inputs: &Inputs) -> Result<Outputs> {
    execute_on(&Threads::one(), spec, inputs)
}

/// The same on these threads.
pub fn execute_on(threads: &Threads, spec: &StageSpec, inputs: &Inputs) -> Result<Outputs> {
    let cache = &PolicyCache::default();
    compute(spec, inputs, Context { device: Device::Cpu, threads, cache, scorer: &NoPrograms })
}

/// Computes stages on a device; `scorer` runs the reward programs of datasets. It never panics: a C++
/// exception, a defect, and a device without enough memory become [`agrpo_spec::StageError::Internal`]. From one stage
/// to the next it keeps the last policy in memory. All stages share `threads`. Neither changes a byte of a result.
pub fn execute_with(
    device: Device,
    threads: Threads,
    scorer: Arc<dyn Scorer>,
) -> impl Fn(&StageSpec, &Inputs) -> Result<Outputs> + Send + Sync + 'static {
    let cache = PolicyCache::default();
    move |spec, inputs| {
        let (threads, cache, scorer) = (&threads, &cache, &*scorer);
        compute(spec, inputs, Context { device, threads, cache, scorer })
    }
}

fn compute(spec: &StageSpec, inputs: &Inputs, context: Context<'_>) -> Result<Outputs> {
    let (kind, version) = (spec.kind(), spec.version());
    if version != kind.version() {
        let ours = kind.version();
        return Err(invalid(format!(
            "the {kind} stage is of version {version}, this program computes version {ours}; use the \
             release that made it"
        )));
    }
    context.device.check(kind, spec.numerics())?;
    context.cache.before(kind);
    let _busy = context.threads.begin();
    guarded(kind, context, || match spec {
        StageSpec::Sft(spec) => sft::execute(spec, inputs, context),
        StageSpec::Rollout(spec) => rollout::execute(spec, inputs, context),
        StageSpec::Reward(spec) => reward::execute(spec, inputs, context),
        StageSpec::Gradient(spec) => gradient::execute(spec, inputs, context),
        StageSpec::Update(spec) => update::execute(spec, inputs, context.threads),
        StageSpec::Evaluation(spec) => evaluation::execute(spec, inputs, context),
    })
}

/// Turns a panic of the stage, on whichever of its threads, into an error, and frees memory where there was too little.
fn guarded(
    kind: StageKind,
    Context { device, cache, .. }: Context<'_>,
    stage: impl FnOnce() -> Result<Outputs>,
) -> Result<Outputs> {
    let done = catch_unwind(AssertUnwindSafe(stage)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a panic without a message");
        let first = text.lines().next().unwrap_or_default();
        Err(internal(format!("the {kind} stage broke off: {first}")))
    });
    done.map_err(|error| {
        if out_of_memory::is_out_of_memory(&error) {
            cache.clear();
        }
        out_of_memory::explain(error, kind, device)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::{num::NonZeroUsize, thread};

    use tch::{Kind, Tensor};

    use super::*;

    /// The error of a stage in whose three parts, each on its own thread, `compute` fails where it is beside the
    /// stage's thread.
    fn failure(fail: fn() -> Result<()>) -> String {
        let threads = Threads::new(NonZeroUsize::new(3).unwrap());
        let cache = PolicyCache::default();
        let (device, scorer) = (Device::Cpu, &NoPrograms);
        let context = Context { device, threads: &threads, cache: &cache, scorer };
        let (here, meeting) = (thread::current().id(), Barrier::new(3));
        let part = |(): &mut (), _| {
            meeting.wait();
            if thread::current().id() == here { Ok(()) } else { fail() }
        };
        let stage =
            || threads.in_order(3, || (), part, |_, ()| Ok(())).map(|()| Outputs::default());
        let error = guarded(StageKind::Gradient, context, stage).unwrap_err();
        assert_eq!(threads.busy(), 0, "no thread is left");
        error.to_string()
    }

    #[test]
    fn what_fails_on_another_thread_is_one_error_of_the_stage() {
        assert_eq!(failure(|| Err(invalid("no such token"))), "no such token");
        let broke_off = failure(|| panic!("a defect\non two lines"));
        assert_eq!(broke_off, "the gradient stage broke off: a defect");
        let full = failure(|| {
            drop(Tensor::zeros([1 << 50], (Kind::Float, tch::Device::Cpu)));
            Ok(())
        });
        assert!(full.starts_with("the gradient stage broke off: "), "{full}");
        assert!(out_of_memory::is_out_of_memory(&internal(full.clone())), "{full}");
    }
}
