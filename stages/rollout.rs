//! Rollout: completions of a shard's training prompts, sampled from a policy.

use std::collections::BTreeMap;

use agrpo_spec::{Artifact, Inputs, Outputs, Purpose, RolloutSpec, StageError};

use crate::error::{self, data};
use crate::model::Policy;
use crate::sampler::{Row, sample};
use crate::tasks;
use crate::tokenizer::TaskTokenizer;
use crate::trajectories::{NEVER, Trajectories};

pub(crate) fn execute(spec: &RolloutSpec, inputs: &Inputs) -> Result<Outputs, StageError> {
    let files = inputs.folder(spec.policy)?;
    let (policy, tokenizer) = (Policy::from_folder(files)?, TaskTokenizer::of_policy(files)?);
    let trajectories = shard(spec, &policy, &tokenizer)?;
    let written = trajectories.unmask_steps.iter().filter(|&&step| step != NEVER).count();
    let entropy: f64 = trajectories.token_entropies.iter().map(|&h| f64::from(h)).sum();
    let passes = (0..trajectories.rows).map(|row| f64::from(trajectories.sampled_steps(row)));
    let passes: f64 = passes.sum();
    #[expect(clippy::cast_precision_loss, reason = "counts of tokens and completions, for people")]
    let (tokens, completions) = (written as f64, trajectories.rows as f64);
    Ok(Outputs {
        artifacts: BTreeMap::from([("trajectories", Artifact::Blob(trajectories.to_bytes()?))]),
        metrics: BTreeMap::from([
            ("tokens".into(), tokens),
            ("entropy".into(), entropy / tokens),
            ("passes".into(), passes / completions),
        ]),
    })
}

/// The shard's trajectories, sampled from the spec's policy.
pub(crate) fn shard(
    spec: &RolloutSpec,
    policy: &Policy,
    tokenizer: &TaskTokenizer,
) -> Result<Trajectories, StageError> {
    let iteration = spec.seed.child(Purpose::Iteration, u64::from(spec.iteration));
    let mut rows = vec![];
    for index in spec.first_prompt..spec.first_prompt + u64::from(spec.prompts) {
        let problem = tasks::training_problem(&spec.task, index).map_err(|e| error::task(&e))?;
        let prompt = tokenizer.ids(&problem.prompt)?;
        let seed = iteration.child(Purpose::Prompt, index);
        rows.extend((0..u64::from(spec.group)).map(|sample| Row {
            prompt: prompt.clone(),
            seed: seed.child(Purpose::Sample, sample),
        }));
    }
    let mut trajectories = sample(policy, &rows, &spec.sampler, spec.micro_batch as usize)?;
    trajectories.policy = Some(spec.policy);
    if trajectories.unmask_steps.iter().all(|&step| step == NEVER) {
        return Err(data("no token was written"));
    }
    Ok(trajectories)
}
