//! What is computed: six stages, each a pure function of its spec and its inputs.
//!
//! ```text
//! sft         masked-diffusion fine-tuning on the task's solutions     -> policy, optimizer
//! rollout     a shard of prompts, a group of completions each          -> trajectories
//! reward      grades and advantages                                    -> rewards
//! gradient    the Monte Carlo policy gradient of the shard             -> gradient
//! update      clip and AdamW over the mean of all shards               -> policy, optimizer
//! evaluation  greedy accuracy on held-out problems                     -> evaluation
//! ```
//!
//! A stage opens nothing, prints nothing and knows no time; it draws randomness only from the seed in
//! its spec. Equal inputs give equal bytes as far as the spec's numerics class promises, provided that
//! the process was started with that class's settings and one intra-op thread.

// Tensors wear their shape: logits_BLV is logits of B x L x V.
#![expect(non_snake_case, reason = "shape letters at the end of tensor names are capitals")]

pub mod benchmark;
pub mod chat;
mod deterministic;
mod device;
mod error;
pub mod estimator;
mod evaluation;
mod folder;
mod gradient;
mod memory;
pub mod model;
pub mod optimizer;
pub mod outside;
mod problems;
mod reward;
mod rollout;
pub mod sampler;
mod sft;
mod shelf;
mod states;
pub mod tasks;
mod tensor_file;
mod tensor_windows;
#[cfg(test)]
mod testing;
pub mod tokenizer;
pub mod trajectories;
pub mod tune;
mod update;

use std::panic::{AssertUnwindSafe, catch_unwind};

use std::sync::Arc;

use agrpo_spec::{Inputs, Outputs, Scorer, StageError, StageSpec};

use problems::NoPrograms;
use shelf::Shelf;

pub use deterministic::{use_deterministic_algorithms, uses_deterministic_algorithms};
pub use device::{Device, ParseDeviceError, gpus};
pub use problems::{RowGrader, check_run, prompt_tokens, vocabulary};

/// Computes a stage on the processor, without anything that runs programs; see [`execute_with`].
pub fn execute(spec: &StageSpec, inputs: &Inputs) -> Result<Outputs, StageError> {
    compute(spec, inputs, Device::Cpu, &Shelf::default(), &NoPrograms)
}

/// What computes stages on a device. It never panics: a C++ exception or a defect becomes
/// [`StageError::Internal`], and so does a device without enough memory. From one stage to the next it
/// keeps the policy that was read last, which changes no byte of a result.
pub fn execute_on(
    device: Device,
) -> impl Fn(&StageSpec, &Inputs) -> Result<Outputs, StageError> + Send + Sync + 'static {
    execute_with(device, Arc::new(NoPrograms))
}

/// The same, with what runs the programs that grade a dataset's completions.
pub fn execute_with(
    device: Device,
    scorer: Arc<dyn Scorer>,
) -> impl Fn(&StageSpec, &Inputs) -> Result<Outputs, StageError> + Send + Sync + 'static {
    let shelf = Shelf::default();
    move |spec, inputs| compute(spec, inputs, device, &shelf, &*scorer)
}

fn compute(
    spec: &StageSpec,
    inputs: &Inputs,
    device: Device,
    shelf: &Shelf,
    scorer: &dyn Scorer,
) -> Result<Outputs, StageError> {
    let (kind, version) = (spec.kind(), spec.version());
    if version != kind.version() {
        let ours = kind.version();
        return Err(StageError::Invalid(format!(
            "the {kind} stage is of version {version}, this program computes version {ours}; use the \
             release that made it"
        )));
    }
    device.check(kind, spec.numerics())?;
    let place = device.of_tch();
    shelf.before(kind);
    let stage = || match spec {
        StageSpec::Sft(spec) => sft::execute(spec, inputs, place),
        StageSpec::Rollout(spec) => rollout::execute(spec, inputs, place, shelf),
        StageSpec::Reward(spec) => reward::execute(spec, inputs, (shelf, scorer)),
        StageSpec::Gradient(spec) => gradient::execute(spec, inputs, place, shelf),
        StageSpec::Update(spec) => update::execute(spec, inputs),
        StageSpec::Evaluation(spec) => evaluation::execute(spec, inputs, place, (shelf, scorer)),
    };
    let done = catch_unwind(AssertUnwindSafe(stage)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a panic without a message");
        let first = text.lines().next().unwrap_or_default();
        Err(StageError::Internal(format!("the {kind} stage broke off: {first}")))
    });
    done.map_err(|error| {
        if memory::is_refused(&error) {
            shelf.clear();
        }
        memory::explain(error, kind, device)
    })
}

/// The libtorch that this program was built for.
pub fn libtorch_version() -> &'static str {
    "2.11.0"
}

/// Parallelism is several stages at once: one thread inside an operation, so that sums have one order.
pub fn use_one_thread() {
    tch::set_num_threads(1);
}
