//! Dispatches a stage spec to the code of its stage, and turns panics into errors.
//!
//! Refuses a spec of another version than this program computes, and one of a numerics class that the
//! device does not compute. Reads no policy and no problems itself: stages do, through their caches.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use agrpo_spec::{Inputs, Outputs, Scorer, StageKind, StageSpec};

use crate::context::{Context, Memory, Resources};
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
    let (device, scorer, memory) = (Device::Cpu, &NoPrograms, &Memory::of(None));
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
        let memory = &Memory::of(resources.memory);
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
    let computed = again_in_less_memory(context, compute);
    computed.map_err(|error| out_of_memory::explain(error, kind, context.device))
}

/// Computes a stage. Where the estimate said that it fits without checkpointing and memory was refused all the same,
/// computes it once more with checkpointing, which gives the same bytes.
fn again_in_less_memory(
    context: Context<'_>,
    compute: impl Fn(Context<'_>) -> Result<Outputs>,
) -> Result<Outputs> {
    match compute(context) {
        Err(error) if context.memory.fits.get() && out_of_memory::is_out_of_memory(&error) => {
            compute(Context { memory: &Memory::of(Some(0)), ..context })
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
        let message = out_of_memory::without_stack(text).lines().next().unwrap_or_default();
        Err(internal(format!("the {kind} stage broke off: {message}")))
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

    use agrpo_spec::{ArtifactDigest, Checkpointing, GradientSpec, Plan, Run, StageError};
    use tch::{Kind, Tensor};

    use super::*;
    use crate::{testing::gradient_sizes, text::chat};

    /// The error of a stage in whose three parts, each on its own thread, `compute` fails where it is beside the
    /// stage's thread.
    fn failure(fail: fn() -> Result<()>) -> String {
        let threads = Threads::new(NonZeroUsize::new(3).unwrap());
        let (cache, problems) = (&PolicyCache::default(), &ProblemCache::default());
        let (device, scorer) = (Device::Cpu, &NoPrograms);
        let resources = &Resources::of(threads.clone());
        let memory = &Memory::of(None);
        let context = Context { device, resources, cache, problems, scorer, memory };
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
    fn gradient(checkpointing: &str) -> GradientSpec {
        let text = include_str!("../../jobs/runs/smoke.toml");
        let text =
            text.replace("checkpointing = false", &format!("checkpointing = {checkpointing}"));
        let mut plan = Plan::new(Run::parse(&text).unwrap());
        for made in 0u32.. {
            let (&key, spec) = plan.pending().iter().next().unwrap();
            if let StageSpec::Gradient(spec) = spec {
                return spec.clone();
            }
            plan.finished(key, |_| Some(ArtifactDigest::of(&made.to_le_bytes()))).unwrap();
        }
        unreachable!("a run has gradients")
    }

    /// Whether each attempt at a gradient used checkpointing, where those without it, or all, fail.
    fn attempts(
        checkpointing: &str,
        available: Option<u64>,
        error: fn() -> StageError,
        all_fail: bool,
    ) -> (Vec<bool>, bool) {
        let (cache, problems) = (&PolicyCache::default(), &ProblemCache::default());
        let (device, scorer, memory) = (Device::Cpu, &NoPrograms, &Memory::of(available));
        let resources = &Resources::of(Threads::one());
        let context = Context { device, resources, cache, problems, scorer, memory };
        let spec = gradient(checkpointing);
        let tried = RefCell::new(vec![]);
        let compute = |context: Context<'_>| {
            let sizes = gradient_sizes(&spec, chat::tests::config().memory_sizes(), 64);
            let decided = gradient::decided(StageKind::Gradient, sizes, context.memory);
            let is_checkpointed = decided.checkpointing == Checkpointing::Always;
            tried.borrow_mut().push(is_checkpointed);
            if is_checkpointed && !all_fail { Ok(Outputs::default()) } else { Err(error()) }
        };
        let ended = again_in_less_memory(context, compute);
        (tried.into_inner(), ended.is_ok())
    }

    #[test]
    fn a_gradient_is_tried_again_only_where_auto_left_checkpointing_out() {
        let full = || internal("CUDA out of memory. Tried to allocate 2 GiB");
        let (little, much) = (Some(1 << 20), Some(1 << 40));
        assert_eq!(attempts("\"auto\"", much, full, false), (vec![false, true], true));
        // It used checkpointing at once, or does now: there is nothing else to try.
        assert_eq!(attempts("\"auto\"", much, full, true), (vec![false, true], false));
        assert_eq!(attempts("\"auto\"", little, full, true), (vec![true], false));
        assert_eq!(attempts("\"auto\"", None, full, true), (vec![true], false));
        // Where the run file decides, and for any other error, one try is all.
        assert_eq!(attempts("false", much, full, true), (vec![false], false));
        assert_eq!(attempts("true", much, full, true), (vec![true], false));
        assert_eq!(attempts("\"auto\"", much, || internal("else"), true), (vec![false], false));
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
