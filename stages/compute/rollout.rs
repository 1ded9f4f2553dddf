//! Rollout: completions of a shard's training prompts, sampled from a policy. Grades nothing.

use std::collections::BTreeMap;

use agrpo_spec::{Artifact, Inputs, Outputs, Purpose, RolloutSpec, metrics};

use crate::error::{Result, data};
use crate::model::{PADDING, Placement, Policy};
use crate::sampler::{Row, sample};
use crate::threads::Threads;
use crate::trajectories::{NEVER, Trajectories};
use crate::{context::Context, problems::Problems};

pub(crate) fn execute(
    spec: &RolloutSpec,
    inputs: &Inputs,
    Context { device, resources, cache, problems, .. }: Context<'_>,
) -> Result<Outputs> {
    let threads = &resources.passes;
    let files = inputs.folder(spec.policy)?;
    let at = Placement::on(device, spec.precision);
    let policy = cache.policy(spec.policy, files, spec.merge_adapter, at)?;
    let problems = problems.problems(&spec.task, spec.language, inputs)?;
    let trajectories = shard(spec, &policy, &problems, threads)?;
    let written = trajectories.unmask_steps.iter().filter(|&&step| step != NEVER).count();
    let entropy: f64 = trajectories.token_entropies.iter().map(|&h| f64::from(h)).sum();
    let passes = (0..trajectories.rows).map(|row| f64::from(trajectories.sampled_steps(row)));
    let passes: f64 = passes.sum();
    let (tokens, completions) = (written as f64, trajectories.rows as f64);
    let bytes = trajectories.to_bytes()?;
    Ok(Outputs {
        artifacts: BTreeMap::from([("trajectories", Artifact::Blob(bytes.into()))]),
        metrics: BTreeMap::from([
            (metrics::TOKENS.into(), tokens),
            (metrics::ENTROPY.into(), entropy / tokens),
            (metrics::PASSES.into(), passes / completions),
        ]),
    })
}

/// The shard's trajectories, sampled from the spec's policy.
pub(crate) fn shard(
    spec: &RolloutSpec,
    policy: &Policy,
    problems: &Problems,
    threads: &Threads,
) -> Result<Trajectories> {
    let iteration = spec.seed.child(Purpose::Iteration, u64::from(spec.iteration));
    let numbers = spec.first_prompt..spec.first_prompt + u64::from(spec.prompts);
    let prompts = numbers.clone().map(|number| Ok(problems.training(number)?.prompt));
    let prompts = padded(prompts.collect::<Result<_>>()?);
    let mut rows = vec![];
    for (number, prompt) in numbers.zip(prompts) {
        let seed = iteration.child(Purpose::Prompt, number);
        rows.extend((0..u64::from(spec.group)).map(|sample| Row {
            prompt: prompt.clone(),
            seed: seed.child(Purpose::Sample, sample),
        }));
    }
    let mut trajectories =
        sample(policy, &rows, &spec.sampler, spec.micro_batch as usize, threads)?;
    trajectories.policy = Some(spec.policy);
    if trajectories.unmask_steps.iter().all(|&step| step == NEVER) {
        return Err(data("no token was written"));
    }
    Ok(trajectories)
}

/// Prompts of one length: the shorter ones with [`PADDING`] on their left and, if there is one, all of
/// them, since attention over padding is another kernel. Passes in half precision leave padding out.
pub(crate) fn padded(mut prompts: Vec<Vec<i64>>) -> Vec<Vec<i64>> {
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        if prompts.iter().all(|prompt| prompt.len() == longest) { longest } else { longest + 1 };
    for prompt in &mut prompts {
        let missing = width - prompt.len();
        prompt.splice(..0, std::iter::repeat_n(PADDING, missing));
    }
    prompts
}
