//! Dispatches a stage spec to the code of its stage, and turns panics into errors.
//!
//! Refuses a spec of another version than this program computes, and one of a numerics class that the
//! device does not compute. Reads no policy and no problems itself: stages do, through the policy cache.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use agrpo_spec::{Inputs, Outputs, Scorer, StageSpec};

use crate::device::{Device, out_of_memory};
use crate::error::{Result, internal, invalid};
use crate::{evaluation, gradient, reward, rollout, sft, update};
use crate::{policy_cache::PolicyCache, problems::NoPrograms};

/// Computes a stage on the processor, without reward programs; see [`execute_with`].
pub fn execute(spec: &StageSpec, inputs: &Inputs) -> Result<Outputs> {
    compute(spec, inputs, Device::Cpu, &PolicyCache::default(), &NoPrograms)
}

/// Computes stages on a device; `scorer` runs the reward programs of datasets. It never panics: a C++
/// exception, a defect, and a device without enough memory become [`agrpo_spec::StageError::Internal`]. From one stage
/// to the next it keeps the last policy in memory, which changes no byte of a result.
pub fn execute_with(
    device: Device,
    scorer: Arc<dyn Scorer>,
) -> impl Fn(&StageSpec, &Inputs) -> Result<Outputs> + Send + Sync + 'static {
    let cache = PolicyCache::default();
    move |spec, inputs| compute(spec, inputs, device, &cache, &*scorer)
}

fn compute(
    spec: &StageSpec,
    inputs: &Inputs,
    device: Device,
    cache: &PolicyCache,
    scorer: &dyn Scorer,
) -> Result<Outputs> {
    let (kind, version) = (spec.kind(), spec.version());
    if version != kind.version() {
        let ours = kind.version();
        return Err(invalid(format!(
            "the {kind} stage is of version {version}, this program computes version {ours}; use the \
             release that made it"
        )));
    }
    device.check(kind, spec.numerics())?;
    cache.before(kind);
    let stage = || match spec {
        StageSpec::Sft(spec) => sft::execute(spec, inputs, device),
        StageSpec::Rollout(spec) => rollout::execute(spec, inputs, device, cache),
        StageSpec::Reward(spec) => reward::execute(spec, inputs, (cache, scorer)),
        StageSpec::Gradient(spec) => gradient::execute(spec, inputs, device, cache),
        StageSpec::Update(spec) => update::execute(spec, inputs),
        StageSpec::Evaluation(spec) => evaluation::execute(spec, inputs, device, (cache, scorer)),
    };
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
