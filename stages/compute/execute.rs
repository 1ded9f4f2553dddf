//! Dispatches a stage spec to the code of its stage, and turns panics into errors.
//!
//! Refuses a spec of another version than this program computes, and one of a numerics class that the
//! device does not compute. Reads no policy and no problems itself: stages do, through their caches.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use agrpo_spec::{Checkpointing, Inputs, Outputs, Scorer, StageKind, StageSpec};

use crate::context::{Context, Resources};
use crate::device::{Device, out_of_memory};
use crate::error::{Result, internal, invalid};
use crate::policy_cache::PolicyCache;
use crate::problems::{NoPrograms, ProblemCache};
use crate::threads::Threads;
use crate::{evaluation, gradient, reward, rollout, sft, update, updates};

/// Computes a stage on one thread of the processor, without reward programs; see [`execute_with`].
pub fn execute(spec: &StageSpec, inputs: &Inputs) -> Result<Outputs> {
    execute_on(&Threads::one(), spec, inputs)
}

/// The same on these threads.
pub fn execute_on(threads: &Threads, spec: &StageSpec, inputs: &Inputs) -> Result<Outputs> {
    let (cache, problems) = (&PolicyCache::default(), &ProblemCache::default());
    let (device, scorer, memory) = (Device::Cpu, &NoPrograms, None);
    let resources = &Resources::of(threads.clone());
    compute(spec, inputs, Context { device, resources, cache, problems, scorer, memory })
}

/// Computes stages on a device; `scorer` runs the reward programs of datasets. It never panics: a C++
/// exception, a defect, and a device without enough memory become [`agrpo_spec::StageError::Internal`]. From one stage
/// to the next it keeps the last base with its adapter in memory, and a few datasets and tokenizers. All stages share
/// `resources`, which change no byte of a result.
pub fn execute_with(
    device: Device,
    resources: Resources,
    scorer: Arc<dyn Scorer>,
) -> impl Fn(&StageSpec, &Inputs) -> Result<Outputs> + Send + Sync + 'static {
    let (cache, problems) = (PolicyCache::default(), ProblemCache::default());
    move |spec, inputs| {
        let (resources, cache, problems, scorer) = (&resources, &cache, &problems, &*scorer);
        let memory = resources.memory;
        compute(spec, inputs, Context { device, resources, cache, problems, scorer, memory })
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
    context.cache.before(spec);
    let _busy = context.threads().begin();
    let compute = |context: Context<'_>| {
        guarded(kind, context, || match spec {
            StageSpec::Sft(spec) => sft::execute(spec, inputs, context),
            StageSpec::Rollout(spec) => rollout::execute(spec, inputs, context),
            StageSpec::Reward(spec) => reward::execute(spec, inputs, context),
            StageSpec::Gradient(spec) => gradient::execute(spec, inputs, context),
            StageSpec::Update(spec) => update::execute(spec, inputs, &context.resources.host),
            StageSpec::Updates(spec) => updates::execute(spec, inputs, context),
            StageSpec::Evaluation(spec) => evaluation::execute(spec, inputs, context),
        })
    };
    let computed = again_in_less_memory(spec, context, compute);
    computed.map_err(|error| out_of_memory::explain(error, kind, context.device))
}

/// Computes a stage. Where the estimate said that it fits without checkpointing and memory was refused all the same,
/// computes it once more with checkpointing, which gives the same bytes.
fn again_in_less_memory<'a>(
    spec: &StageSpec,
    context: Context<'a>,
    compute: impl Fn(Context<'a>) -> Result<Outputs>,
) -> Result<Outputs> {
    let computed = compute(context);
    // Where memory is unknown, it was computed with checkpointing at once.
    if context.memory.is_none() {
        return computed;
    }
    let estimator = match spec {
        StageSpec::Gradient(spec) => &spec.estimator,
        StageSpec::Updates(spec) => &spec.estimator,
        _ => return computed,
    };
    match computed {
        Err(error)
            if estimator.checkpointing == Checkpointing::Auto
                && out_of_memory::is_out_of_memory(&error) =>
        {
            compute(Context { memory: Some(0), ..context })
        }
        computed => computed,
    }
}

/// Turns a panic of the stage, on whichever of its threads, into an error, and frees memory where there was too little.
fn guarded(
    kind: StageKind,
    Context { cache, problems, .. }: Context<'_>,
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
    if done.as_ref().is_err_and(out_of_memory::is_out_of_memory) {
        cache.clear();
        problems.clear();
    }
    done
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Barrier;
    use std::{num::NonZeroUsize, thread};

    use agrpo_spec::{ArtifactDigest, Plan, Run, StageError};
    use tch::{Kind, Tensor};

    use super::*;

    /// The error of a stage in whose three parts, each on its own thread, `compute` fails where it is beside the
    /// stage's thread.
    fn failure(fail: fn() -> Result<()>) -> String {
        let threads = Threads::new(NonZeroUsize::new(3).unwrap());
        let (cache, problems) = (&PolicyCache::default(), &ProblemCache::default());
        let (device, scorer) = (Device::Cpu, &NoPrograms);
        let resources = &Resources::of(threads.clone());
        let context = Context { device, resources, cache, problems, scorer, memory: None };
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

    /// A gradient of the tests' smoke run.
    fn gradient(checkpointing: &str) -> StageSpec {
        let text = include_str!("../../jobs/runs/smoke.toml");
        let text =
            text.replace("checkpointing = false", &format!("checkpointing = {checkpointing}"));
        let mut plan = Plan::new(Run::parse(&text).unwrap());
        for made in 0u32.. {
            let (&key, spec) = plan.pending().iter().next().unwrap();
            if spec.kind() == StageKind::Gradient {
                return spec.clone();
            }
            plan.finished(key, |_| Some(ArtifactDigest::of(&made.to_le_bytes()))).unwrap();
        }
        unreachable!("a run has gradients")
    }

    #[test]
    fn a_gradient_that_auto_sized_wrongly_is_computed_again_in_less_memory() {
        let (cache, problems) = (&PolicyCache::default(), &ProblemCache::default());
        let (device, scorer, memory) = (Device::Cpu, &NoPrograms, Some(1 << 40));
        let resources = &Resources::of(Threads::one());
        let context = Context { device, resources, cache, problems, scorer, memory };
        let full = || internal("CUDA out of memory. Tried to allocate 2 GiB");
        let computed = |spec: &StageSpec, error: fn() -> StageError| {
            let tried = RefCell::new(vec![]);
            let compute = |context: Context<'_>| {
                tried.borrow_mut().push(context.memory);
                if context.memory == Some(0) { Ok(Outputs::default()) } else { Err(error()) }
            };
            let ended = again_in_less_memory(spec, context, compute);
            (ended.is_ok(), tried.into_inner())
        };
        assert_eq!(computed(&gradient("\"auto\""), full), (true, vec![memory, Some(0)]));
        // Where the run file decides, and for any other error, one try is all.
        assert_eq!(computed(&gradient("false"), full), (false, vec![memory]));
        assert_eq!(computed(&gradient("\"auto\""), || internal("else")), (false, vec![memory]));
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
