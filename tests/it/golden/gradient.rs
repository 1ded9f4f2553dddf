//! AGRPO's loss and its gradient against the reference's, and the sampler's records computed again.

use std::collections::BTreeMap;

use agrpo_compute::Threads;
use agrpo_compute::estimator::timesteps::{Draw, Steps};
use agrpo_compute::estimator::{Batch, Policies, Worth, accumulate, recompute, with_draws};
use agrpo_compute::model::{ModelConfig, PADDING, Policy};
use agrpo_compute::trajectories::{KeptSets, NEVER, Trajectories};
use agrpo_spec::{
    Cache, Checkpointing, Confidence, EstimatorConfig, EstimatorKind, Horizon, PositionRule, Real,
    Sampler, Samples, StepEvery, StepWeights, Strata, TokenMean,
};
use serde_json::Value;
use tch::{Kind, Tensor};

use super::{cases, count, floats, folder, ids, policy, policy_of, tensors};

/// One case: what was sampled, and everything that the loss depends on.
pub(super) struct Case {
    pub(super) settings: Value,
    tensors: BTreeMap<String, Tensor>,
    pub(super) model: ModelConfig,
    pub(super) sampler: Sampler,
    pub(super) config: EstimatorConfig,
    pub(super) trajectories: Trajectories,
}

fn real(value: &Value) -> Real {
    Real::new(value.as_f64().unwrap()).unwrap()
}

impl Case {
    /// The cases of `agrpo_gradient/`.
    pub(super) fn all(policy: &Policy) -> Vec<Self> {
        let all = tensors("agrpo_gradient/agrpo_gradient.safetensors");
        let of_case = |settings: Value| {
            let prefix = format!("{}.", settings["case"]);
            let own = |(name, tensor): (&String, &Tensor)| {
                Some((name.strip_prefix(&prefix)?.to_owned(), tensor.shallow_clone()))
            };
            Self::of(settings, all.iter().filter_map(own).collect(), policy)
        };
        let cases = cases("agrpo_gradient/agrpo_gradient_cases.json").into_iter();
        let found: Vec<Self> = cases.map(of_case).collect();
        assert!(!found.is_empty(), "no case in {}", folder().display());
        found
    }

    /// A case by its settings and its tensors, named within the case.
    pub(super) fn of(settings: Value, tensors: BTreeMap<String, Tensor>, policy: &Policy) -> Self {
        let mut model = policy.config().clone();
        model.eos_token_id = settings["eos_token_id"].as_i64().unwrap();
        model.mask_token_id = settings["mask_token_id"].as_i64().unwrap();
        let sampler = Sampler {
            completion_tokens: count(&settings, "C"),
            block_tokens: count(&settings, "BL"),
            steps: count(&settings, "T"),
            temperature: real(&settings["temp"]),
            top_k: settings["top_k"].as_u64().map_or(0, |k| u32::try_from(k).unwrap()),
            top_p: real(&settings["top_p"]),
            position: match settings["unmask"].as_str() {
                Some("random") => PositionRule::Random,
                Some("low_confidence") => PositionRule::LowConfidence,
                Some("entropy") => PositionRule::Entropy,
                other => panic!("unknown order {other:?}"),
            },
            confidence: Confidence::Sampling,
            guidance: Real::new(0.0).unwrap(),
            cache: Cache::None,
            threshold: None,
        };
        let config = EstimatorConfig {
            kind: EstimatorKind::Agrpo,
            k: Samples::Count(count(&settings, "k")),
            strata: Strata::Shard,
            step_weights: match settings["iw"].as_str() {
                Some("uniform") => StepWeights::Uniform,
                Some("entropy") => StepWeights::Entropy,
                other => panic!("unknown weights {other:?}"),
            },
            uniform_share: Real::new(0.0).unwrap(),
            horizon: Horizon::Effective,
            position_gradient: false,
            prompt_mask: Real::new(0.0).unwrap(),
            clip_low: real(&settings["eps_low"]),
            clip_high: real(&settings["eps_high"]),
            kl: real(&settings["beta"]),
            inner_updates: 1,
            micro_batch: 8,
            checkpointing: Checkpointing::Never,
            fused_updates: false,
            step_every: StepEvery::Batch,
            accumulation_steps: 1,
            token_mean: TokenMean::Iteration,
        };
        let trajectories = trajectories(&tensors, &sampler, model.eos_token_id);
        Self { settings, tensors, model, sampler, config, trajectories }
    }

    pub(super) fn batch(&self) -> Batch<'_> {
        let worth = |advantage| Worth { advantage, counted: true };
        let worths: Vec<_> = floats(&self.tensors["advantages"]).into_iter().map(worth).collect();
        Batch::new(&self.trajectories, &worths, worths.len(), &self.sampler, &self.model).unwrap()
    }

    /// The timesteps that the reference drew, with the weights that this project gives them. The
    /// reference divides by the group's size.
    pub(super) fn draws(&self, batch: &Batch<'_>) -> Vec<Draw> {
        let k = count(&self.settings, "k");
        let group = f64::from(count(&self.settings, "group_size"));
        let steps = ids(&self.tensors["mc_steps"]);
        let rows = steps.chunks(k as usize).enumerate();
        rows.flat_map(|(row, steps)| {
            let of_row = Steps::of(batch, row, &self.config);
            steps.iter().map(move |&step| {
                let step = u32::try_from(step).unwrap();
                Draw { row, step, weight: of_row.weight(step, k) / group }
            })
        })
        .collect()
    }

    /// The policy that a divergence is measured from: its weights stand beside the case.
    fn reference(&self) -> Option<Policy> {
        let own = |(name, tensor): (&String, &Tensor)| {
            Some((name.strip_prefix("reference.")?.to_owned(), tensor.shallow_clone()))
        };
        let weights: Vec<_> = self.tensors.iter().filter_map(own).collect();
        (self.config.kl.get() > 0.0).then(|| policy_of(&weights))
    }
}

#[test]
fn recomputed_log_probabilities_and_entropies_are_the_reference_s() {
    let policy = policy();
    for case in Case::all(&policy) {
        let found = recompute(&case.batch(), &policy, 16).unwrap();
        let logps = floats(&case.tensors["token_logps"]);
        let entropies = floats(&case.tensors["token_entropies"]);
        let mut compared = 0;
        for (cell, ours) in found.into_iter().enumerate() {
            let Some((logp, entropy)) = ours else { continue };
            let (number, step) = (&case.settings["case"], case.trajectories.unmask_steps[cell]);
            let (p, h) = (logps[cell], entropies[cell]);
            assert!((logp - p).abs() < 1e-4, "case {number}, cell {cell}, step {step}: {logp} {p}");
            assert!((entropy - h).abs() < 1e-4, "case {number}, cell {cell}: {entropy} {h}");
            compared += 1;
        }
        assert!(compared > 0);
    }
}

#[test]
fn loss_and_gradient_are_the_reference_s() {
    let policy = policy();
    for case in Case::all(&policy) {
        let (batch, number) = (case.batch(), &case.settings["case"]);
        let reference = case.reference();
        let policies = Policies { policy: &policy, behaviour: None, reference: reference.as_ref() };
        let estimator = with_draws(&batch, &case.config, case.draws(&batch));
        let ours = accumulate(&estimator, &policies, &case.config, &Threads::one()).unwrap();
        let loss = case.settings["loss"].as_f64().unwrap();
        let found = ours.measured.loss;
        let error = (found - loss).abs();
        assert!(error < 1e-5 * loss.abs(), "case {number}: {found} against {loss}");
        for (name, ours) in ours.gradient {
            let theirs = &case.tensors[&format!("grad.{name}")];
            let norm = |t: &Tensor| t.to_kind(Kind::Double).norm().double_value(&[]);
            let (error, size) = (norm(&(&ours - theirs)), norm(theirs));
            assert!(error < 1e-4 * size, "case {number}, {name}: {error} of {size}");
        }
    }
}

/// The reference's trajectories as this project writes them down. From a block of nothing but
/// end-of-sequence on, a row was filled in, at no step; the reference asks nothing of that block either.
fn trajectories(tensors: &BTreeMap<String, Tensor>, sampler: &Sampler, eos: i64) -> Trajectories {
    let (prompts, completions) = (&tensors["prompt_ids"], &tensors["completion_ids"]);
    let length = |t: &Tensor, dim: usize| usize::try_from(t.size()[dim]).unwrap();
    let completion_len = length(completions, 1);
    let mut unmask_steps = ids(&tensors["unmask_steps"]);
    let rows = ids(completions);
    for (tokens, steps) in rows.chunks(completion_len).zip(unmask_steps.chunks_mut(completion_len))
    {
        let block = sampler.block_tokens as usize;
        let ended = tokens.chunks(block).position(|block| block.iter().all(|&id| id == eos));
        let filled = ended.map_or(completion_len, |ended| ended * block);
        steps[filled..].fill(NEVER);
    }
    // Left padding that no position attends to.
    let mut prompt_ids = ids(prompts);
    if let Some(is_token) = tensors.get("prompt_mask") {
        for (id, is_token) in prompt_ids.iter_mut().zip(ids(is_token)) {
            *id = if is_token == 1 { *id } else { PADDING };
        }
    }
    let mut sets = KeptSets { offsets: vec![0], ids: vec![] };
    let kept_tokens = &tensors["kept_tokens"];
    for row in floats(kept_tokens).chunks(length(kept_tokens, 2)) {
        let set = (0i64..).zip(row).filter(|&(_, &is_kept)| is_kept == 1.0);
        sets.ids.extend(set.map(|(id, _)| id));
        sets.offsets.push(i64::try_from(sets.ids.len()).unwrap());
    }
    #[expect(clippy::cast_possible_truncation, reason = "they were f32")]
    let singles = |t: &Tensor| floats(t).into_iter().map(|x| x as f32).collect::<Vec<_>>();
    Trajectories {
        policy: None,
        rows: length(prompts, 0),
        prompt_len: length(prompts, 1),
        completion_len,
        prompt_ids,
        completion_ids: rows,
        unmask_steps,
        token_logps: singles(&tensors["old_token_logps"]),
        token_entropies: singles(&tensors["token_entropies"]),
        kept: Some(sets),
    }
}
