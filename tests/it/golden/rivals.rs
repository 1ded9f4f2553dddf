//! The rivals' published code: log-probabilities, losses and gradients of every case of `rivals/`, with the masks and
//! old log-probabilities that it drew. Here: how its files are read and compared. Left padding is ordinary tokens, which it
//! attends to.

use std::collections::BTreeMap;
use std::ops::Range;

use agrpo_compute::Threads;
use agrpo_compute::estimator::{
    Batch, Estimate, Estimator, Policies, Worth, accumulate, log_probabilities,
};
use agrpo_compute::model::{ModelConfig, Policy};
use agrpo_compute::trajectories::Trajectories;
use agrpo_spec::{
    Cache, Confidence, EstimatorConfig, EstimatorKind, PositionRule, Real, Sampler, Samples,
};
use serde_json::Value;
use tch::{Kind, Tensor};

use super::{cases, count, floats, folder, ids, policy_of, tensors};

mod agrpo;
mod coupled;
mod d1;
mod d2;
mod just;

/// Largest difference of log-probabilities.
const LOGP: f64 = 1e-4;
/// Largest difference of a loss, as a share of it; of [`SMALL`] where it is smaller, as sums of terms near 1 cancel.
const LOSS: f64 = 1e-5;
const SMALL: f64 = 0.1;
/// Largest difference of a gradient, by norm, as a share of the tensor's norm.
const GRADIENT: f64 = 1e-4;

/// One case of a file: its settings and its tensors, by their names within the case.
struct Case {
    settings: Value,
    tensors: BTreeMap<String, Tensor>,
}

impl Case {
    fn all(name: &str) -> Vec<Self> {
        let all = tensors(&format!("rivals/{name}.safetensors"));
        let of_case = |settings: Value| {
            let prefix = format!("{name}.{}.", settings["case"]);
            let own = |(name, tensor): (&String, &Tensor)| {
                Some((name.strip_prefix(&prefix)?.to_owned(), tensor.shallow_clone()))
            };
            Self { tensors: all.iter().filter_map(own).collect(), settings }
        };
        let found: Vec<_> =
            cases(&format!("rivals/{name}_cases.json")).into_iter().map(of_case).collect();
        assert!(!found.is_empty(), "no case of {name} in {}", folder().display());
        found
    }

    fn count(&self, name: &str) -> u32 {
        count(&self.settings, name)
    }

    fn real(&self, name: &str) -> Real {
        real(self.settings[name].as_f64().unwrap_or_else(|| panic!("{name}: no number")))
    }

    fn all_rows(&self) -> Range<usize> {
        0..self.count("B") as usize
    }

    /// These rows of a tensor whose last dimensions are rows and positions; of a seed, where there are several.
    fn rows(&self, name: &str, seed: Option<usize>, rows: &Range<usize>) -> Tensor {
        let all = &self.tensors[name];
        let all = seed.map_or_else(|| all.shallow_clone(), |seed| all.get(int(seed)));
        all.narrow(0, int(rows.start), int(rows.len()))
    }

    fn model(&self, policy: &Policy) -> ModelConfig {
        let mut model = policy.config().clone();
        model.eos_token_id = self.settings["eos_token_id"].as_i64().unwrap();
        model.mask_token_id = self.settings["mask_token_id"].as_i64().unwrap();
        model
    }

    /// A sampler that could have written completions in this many steps.
    fn sampler(&self, block_tokens: u32, steps: u32) -> Sampler {
        Sampler {
            completion_tokens: self.count("C"),
            block_tokens,
            steps,
            temperature: real(1.0),
            top_k: 0,
            top_p: real(1.0),
            position: PositionRule::Random,
            confidence: Confidence::Sampling,
            guidance: real(0.0),
            cache: Cache::None,
            threshold: None,
        }
    }

    /// Published means and bounds. The mean is over the rows of a micro-batch, which are the group of the batch.
    fn config(&self, kind: EstimatorKind, k: Samples) -> EstimatorConfig {
        let clip = self.real("epsilon");
        EstimatorConfig {
            k,
            clip_low: clip,
            clip_high: clip,
            kl: self.settings["beta"].as_f64().map_or(real(0.0), real),
            micro_batch: 8,
            token_mean: kind.token_mean(),
            ..EstimatorConfig::plain(kind)
        }
    }

    fn trajectories(&self, rows: &Range<usize>, unmask_steps: Vec<i64>) -> Trajectories {
        let cells = unmask_steps.len();
        Trajectories {
            policy: None,
            rows: rows.len(),
            prompt_len: self.count("P") as usize,
            completion_len: self.count("C") as usize,
            prompt_ids: ids(&self.rows("prompt_ids", None, rows)),
            completion_ids: ids(&self.rows("completion_ids", None, rows)),
            unmask_steps,
            token_logps: vec![0.0; cells],
            token_entropies: vec![0.0; cells],
            kept: None,
        }
    }

    fn worths(&self, rows: &Range<usize>) -> Vec<Worth> {
        let worth = |advantage| Worth { advantage, counted: true };
        floats(&self.rows("advantages", None, rows)).into_iter().map(worth).collect()
    }

    /// The policy that a divergence is measured from.
    fn reference(&self, policy: &Policy) -> Option<Policy> {
        let has_divergence = self.settings["beta"].as_f64().is_some_and(|beta| beta > 0.0);
        has_divergence.then(|| reference(policy))
    }

    /// The gradient and its loss, compared with those under a prefix: `loss_name`, and every `grad.` or `grad_norm.` and
    /// the `grad_total_norm` after `prefix`.
    fn compare(&self, ours: &Estimate, loss_name: &str, prefix: &str, scale: f64) {
        let number = &self.settings["case"];
        if let Some(loss) = self.tensors.get(loss_name) {
            let what = format!("case {number}, {loss_name}");
            assert_loss(ours.measured.loss * scale, loss.double_value(&[]), &what);
        }
        let mut total = 0.0;
        for (name, ours) in &ours.gradient {
            let (ours, what) = (ours * scale, format!("case {number}, {prefix}{name}"));
            total += norm(&ours).powi(2);
            if let Some(theirs) = self.tensors.get(&format!("{prefix}grad.{name}")) {
                let (error, size) = (norm(&(&ours - theirs)), norm(theirs));
                assert!(error < GRADIENT * size, "{what}: {error} of {size}");
                continue;
            }
            let theirs = &self.tensors[&format!("{prefix}grad_norm.{name}")];
            assert_norm(norm(&ours), theirs, &what);
        }
        let named = [format!("{prefix}grad."), format!("{prefix}grad_norm.")];
        let theirs = self.tensors.keys();
        let theirs = theirs.filter(|name| named.iter().any(|prefix| name.starts_with(prefix)));
        assert_eq!(theirs.count(), ours.gradient.len(), "case {number}: a gradient is left over");
        let theirs = &self.tensors[&format!("{prefix}grad_total_norm")];
        assert_norm(total.sqrt(), theirs, &format!("case {number}, {prefix}"));
    }
}

fn real(value: f64) -> Real {
    Real::new(value).unwrap()
}

fn int(value: usize) -> i64 {
    i64::try_from(value).unwrap()
}

fn norm(tensor: &Tensor) -> f64 {
    tensor.to_kind(Kind::Double).norm().double_value(&[])
}

fn assert_norm(ours: f64, theirs: &Tensor, what: &str) {
    let theirs = theirs.double_value(&[]);
    assert!((ours - theirs).abs() < GRADIENT * theirs, "{what}: {ours} against {theirs}");
}

fn assert_loss(ours: f64, theirs: f64, what: &str) {
    let error = (ours - theirs).abs();
    assert!(error < LOSS * theirs.abs().max(SMALL), "{what}: {ours} against {theirs}");
}

/// The policy with which all cases measure their divergence.
fn reference(policy: &Policy) -> Policy {
    let scaled = |(name, weight)| (name, 0.97 * weight);
    policy_of(&policy.parameters().into_iter().map(scaled).collect::<Vec<_>>())
}

/// The gradient that an estimator estimates.
fn estimate(
    estimator: &Estimator<'_>,
    config: &EstimatorConfig,
    policy: &Policy,
    reference: Option<&Policy>,
) -> Estimate {
    let policies = Policies { policy, behaviour: None, reference };
    accumulate(estimator, &policies, config, &Threads::one()).unwrap()
}

/// Compares the log-probability of every ratio with those at these cells.
fn compare_logps(
    estimator: &Estimator<'_>,
    policy: &Policy,
    theirs: &Tensor,
    cells: &[usize],
    what: &str,
) {
    let (ours, theirs) = (log_probabilities(estimator, policy).unwrap(), floats(theirs));
    assert_eq!(ours.len(), cells.len(), "{what}");
    for (ours, &cell) in ours.into_iter().zip(cells) {
        let theirs = theirs[cell];
        assert!((ours - theirs).abs() < LOGP, "{what}, cell {cell}: {ours} against {theirs}");
    }
}

/// Cells of a mask, row-major.
fn cells(mask: &Tensor) -> Vec<usize> {
    let mask = ids(mask).into_iter().enumerate();
    mask.filter(|&(_, is_in)| is_in == 1).map(|(cell, _)| cell).collect()
}

/// The configuration under which every row has ratios, whatever its advantage.
fn with_all_rows(config: &EstimatorConfig) -> EstimatorConfig {
    EstimatorConfig { kl: real(1.0), ..config.clone() }
}

/// One loss of a file whose completions have no steps: a seed, and the rows of one micro-batch.
struct MicroBatch {
    seed: usize,
    rows: Range<usize>,
    /// Of the results' names.
    prefix: String,
}

impl MicroBatch {
    fn all(case: &Case) -> Vec<Self> {
        let rows = case.count("B") as usize;
        let of_result = |result: &Value| {
            let seed = count(result, "seed_index") as usize;
            let first = result["first_row"].as_u64().map_or(0, |row| usize::try_from(row).unwrap());
            let together = case.settings["rows_per_loss"].as_u64();
            let together = together.map_or(rows, |rows| usize::try_from(rows).unwrap());
            let prefix = match together == rows {
                true => format!("seed{seed}."),
                false => format!("seed{seed}.rows{first}."),
            };
            Self { seed, rows: first..first + together, prefix }
        };
        let results = case.settings["results"].as_array().unwrap();
        assert!(!results.is_empty());
        results.iter().map(of_result).collect()
    }

    /// Compares log-probabilities, also of the reference, the loss and the gradient of the estimator that is made from a
    /// batch, a configuration and the given old log-probabilities.
    fn compare<'a>(
        &self,
        case: &Case,
        policy: &Policy,
        (batch, config, old): (&'a Batch<'a>, &EstimatorConfig, &'a [f64]),
        make: impl Fn(&'a Batch<'a>, &EstimatorConfig, &'a [f64]) -> Estimator<'a>,
    ) {
        let what = format!("case {}, {}", case.settings["case"], self.prefix);
        let mask = cells(&case.rows("completion_mask", None, &self.rows));
        let all = make(batch, &with_all_rows(config), old);
        let theirs = &case.tensors[&format!("{}token_logps", self.prefix)];
        compare_logps(&all, policy, theirs, &mask, &what);
        let reference = case.reference(policy);
        if let Some(reference) = &reference {
            let theirs = case.rows("reference_token_logps", Some(self.seed), &self.rows);
            compare_logps(&all, reference, &theirs, &mask, &format!("{what}, reference"));
        }
        let ours = estimate(&make(batch, config, old), config, policy, reference.as_ref());
        let loss = format!("{}loss", self.prefix);
        assert!(case.tensors.contains_key(&loss), "{what}");
        case.compare(&ours, &loss, &self.prefix, 1.0);
    }
}
