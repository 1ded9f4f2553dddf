//! AGRPO's update as the published program takes it, written again from its description and in f64: a loop over
//! micro-batches and samples whose losses are differentiated one by one, with a clip and an AdamW of its own. Shares the
//! model's forward pass with what it tests, and the timesteps, which it is given; nothing else.

use std::collections::BTreeMap;

use agrpo_spec::{EstimatorConfig, OptimizerConfig, Sampler, Seed, StepWeights};
use tch::{Kind, Tensor, no_grad_guard};

use crate::estimator::{Batch, timesteps};
use crate::model::{Policy, Queries};
use crate::tensors::{NamedTensors, numbers};
use crate::trajectories::Trajectories;

/// A completion, and the steps at which its samples are taken.
pub(crate) struct Sampled<'a> {
    pub(crate) trajectories: &'a Trajectories,
    pub(crate) row: usize,
    pub(crate) advantage: f64,
    pub(crate) counted: bool,
    /// None where the completion has no step to learn from.
    pub(crate) timesteps: Vec<u32>,
}

/// The settings of an update.
#[derive(Clone, Copy)]
pub(crate) struct Published<'a> {
    pub(crate) estimator: &'a EstimatorConfig,
    pub(crate) optimizer: &'a OptimizerConfig,
    pub(crate) sampler: &'a Sampler,
    /// Completions of a prompt.
    pub(crate) group: usize,
    pub(crate) learning_rate: f64,
    /// The policy that sampled, where its records are not exact enough.
    pub(crate) behaviour: Option<&'a Policy>,
    pub(crate) reference: Option<&'a Policy>,
}

/// AdamW in f64.
#[derive(Default)]
pub(crate) struct Adam {
    steps: i32,
    moments: BTreeMap<String, [Tensor; 2]>,
}

impl Adam {
    /// Clips the gradient's norm and moves the policy.
    pub(crate) fn step(&mut self, policy: &Policy, gradient: &NamedTensors, by: &Published<'_>) {
        let _no_grad = no_grad_guard();
        let config = by.optimizer;
        let [beta1, beta2] = [config.beta1.get(), config.beta2.get()];
        let square = |g: &Tensor| g.square().sum(Kind::Double).double_value(&[]);
        let norm = gradient.values().map(square).sum::<f64>().sqrt();
        let shrink = (config.max_grad_norm.get() / (norm + 1e-6)).min(1.0);
        self.steps += 1;
        for (name, mut parameter) in policy.parameters() {
            let g = gradient[&name].to_kind(Kind::Double) * shrink;
            let moments = self
                .moments
                .entry(name.clone())
                .or_insert_with(|| [g.zeros_like(), g.zeros_like()]);
            moments[0] = &moments[0] * beta1 + &g * (1.0 - beta1);
            moments[1] = &moments[1] * beta2 + g.square() * (1.0 - beta2);
            let mean = &moments[0] / (1.0 - beta1.powi(self.steps));
            let spread = (&moments[1] / (1.0 - beta2.powi(self.steps))).sqrt() + config.eps.get();
            let is_norm = name.ends_with("norm.weight") || name.ends_with("ln_f.weight");
            let decay = if is_norm { 0.0 } else { config.weight_decay.get() };
            let moved =
                &parameter * (1.0 - by.learning_rate * decay) - mean / spread * by.learning_rate;
            parameter.copy_(&moved);
        }
    }
}

impl Published<'_> {
    /// One update of the policy, from the completions of all prompts in their order. The number of its Adam steps.
    pub(crate) fn update(&self, policy: &Policy, adam: &mut Adam, all: &[Sampled<'_>]) -> usize {
        let micro_batches = self.estimator.accumulation_steps as usize;
        let prompts = all.len() / self.group / micro_batches;
        let samples = all.iter().map(|one| one.timesteps.len()).max().unwrap();
        policy.require_grad();
        policy.zero_grad();
        let mut steps = 0;
        for (n, micro_batch) in all.chunks(prompts * self.group).enumerate() {
            for sample in 0..samples {
                let loss = self.loss(policy, micro_batch, sample) / micro_batches as f64;
                if loss.requires_grad() {
                    loss.backward();
                }
                if n + 1 == micro_batches {
                    adam.step(policy, &policy.gradients(), self);
                    policy.zero_grad();
                    steps += 1;
                }
            }
        }
        steps
    }

    /// The loss of one sample of a micro-batch: a mean over its completions, 1 / k of the whole.
    fn loss(&self, policy: &Policy, rows: &[Sampled<'_>], sample: usize) -> Tensor {
        let counted = rows.iter().filter(|one| one.counted).count() as f64;
        let mut loss = Tensor::zeros([], (Kind::Double, tch::Device::Cpu));
        for one in rows.iter().filter(|one| !one.timesteps.is_empty()) {
            let of_tokens = self.tokens(policy, one, one.timesteps[sample]);
            loss += of_tokens / (counted * one.timesteps.len() as f64);
        }
        loss
    }

    /// w times the sum over the tokens that the step wrote.
    fn tokens(&self, policy: &Policy, one: &Sampled<'_>, step: u32) -> Tensor {
        let trajectories = one.trajectories;
        let steps = trajectories.steps(one.row);
        let written: Vec<usize> =
            (0..steps.len()).filter(|&place| steps[place] == i64::from(step)).collect();
        let new = self.log_probabilities(policy, one, step, &written);
        let first = one.row * trajectories.completion_len;
        let old = {
            let _no_grad = no_grad_guard();
            match self.behaviour {
                Some(policy) => self.log_probabilities(policy, one, step, &written),
                None => {
                    let recorded =
                        |&place: &usize| f64::from(trajectories.token_logps[first + place]);
                    Tensor::from_slice(&written.iter().map(recorded).collect::<Vec<_>>())
                }
            }
        };
        let ratio = (&new - old).exp();
        let (low, high) = (self.estimator.clip_low.get(), self.estimator.clip_high.get());
        let plain = &ratio * one.advantage;
        let clipped = ratio.clamp(1.0 - low, 1.0 + high) * one.advantage;
        let mut loss = -plain.minimum(&clipped);
        if let Some(reference) = self.reference {
            let reference = {
                let _no_grad = no_grad_guard();
                self.log_probabilities(reference, one, step, &written)
            };
            let apart = reference - &new;
            loss += (apart.exp() - &apart - 1.0) * &ratio * self.estimator.kl.get();
        }
        loss.sum(Kind::Double) * self.weight(policy, one, step)
    }

    /// 1 / (T q) over the steps up to the last that wrote content.
    fn weight(&self, policy: &Policy, one: &Sampled<'_>, step: u32) -> f64 {
        let (trajectories, eos) = (one.trajectories, policy.config().eos_token_id);
        let steps = trajectories.steps(one.row);
        let content =
            steps.iter().zip(trajectories.completion(one.row)).filter(|(_, id)| **id != eos);
        let horizon = 1 + content.map(|(&step, _)| step).max().unwrap();
        let first = one.row * trajectories.completion_len;
        let entropies = |t: i64| -> f64 {
            let of =
                |(place, _): (usize, &i64)| f64::from(trajectories.token_entropies[first + place]);
            1e-8 + steps.iter().enumerate().filter(|(_, at)| **at == t).map(of).sum::<f64>()
        };
        match self.estimator.step_weights {
            StepWeights::Uniform => 1.0,
            StepWeights::Entropy => {
                let all: f64 = (0..horizon).map(entropies).sum();
                all / (horizon as f64 * entropies(step.into()))
            }
        }
    }

    /// Of the tokens at these places of the completion, from the state before the step, tempered, among those that were
    /// kept, or all but the mask.
    fn log_probabilities(
        &self,
        policy: &Policy,
        one: &Sampled<'_>,
        step: u32,
        places: &[usize],
    ) -> Tensor {
        let (trajectories, mask) = (one.trajectories, policy.config().mask_token_id);
        let tokens = trajectories.completion(one.row);
        let shown = tokens.iter().zip(trajectories.steps(one.row));
        let shown = shown.map(|(&id, &at)| if at < i64::from(step) { id } else { mask });
        let ids: Vec<i64> = trajectories.prompt(one.row).iter().copied().chain(shown).collect();
        let ids_BL = Tensor::from_slice(&ids).unsqueeze(0);
        let logits_LV = policy.head(&policy.hidden(&ids_BL, &Queries::All).unwrap()).squeeze_dim(0);
        let of = |&place: &usize| {
            let position = i64::try_from(trajectories.prompt_len + place).unwrap();
            let logits_V =
                logits_LV.get(position).to_kind(Kind::Double) / self.sampler.temperature.get();
            let cell = one.row * trajectories.completion_len + place;
            let kept: Vec<i64> = match trajectories.kept_at(cell) {
                Some(kept) => kept.to_vec(),
                None => (0..logits_V.size()[0]).filter(|&id| id != mask).collect(),
            };
            let at = kept.iter().position(|&id| id == tokens[place]).unwrap();
            let logp_K =
                logits_V.index_select(0, &Tensor::from_slice(&kept)).log_softmax(-1, Kind::Double);
            logp_K.get(i64::try_from(at).unwrap())
        };
        Tensor::stack(&places.iter().map(of).collect::<Vec<_>>(), 0)
    }
}

/// A batch's completions with the timesteps of this seed.
pub(crate) fn drawn<'a>(
    batch: &Batch<'a>,
    config: &EstimatorConfig,
    seed: Seed,
) -> Vec<Sampled<'a>> {
    let moving = batch.moving(config.kl.get() > 0.0);
    let draws = timesteps::draw(batch, &moving, config, seed);
    let of_row = |row| Sampled {
        trajectories: batch.trajectories(),
        row,
        advantage: batch.advantage(row),
        counted: batch.counted().any(|counted| counted == row),
        timesteps: draws.iter().filter(|draw| draw.row == row).map(|draw| draw.step).collect(),
    };
    (0..batch.rows()).map(of_row).collect()
}

/// Every number of a policy's parameters.
pub(crate) fn flat(policy: &Policy) -> Vec<f64> {
    policy.parameters().values().flat_map(|of| numbers::<f64>(of).unwrap()).collect()
}
