//! Estimates a run's cost before anything is computed: floating-point operations, and bytes in the store.
//!
//! ```text
//! pass(B, L, Q) = B (2 L n (4 D^2 + 3 D M) + 4 n L^2 D + 2 Q V D)
//! rollout       = completions x steps x pass          gradient = completions x k x pass x (1 + back)
//! ```
//! A multiplication and an addition count as two operations. `back` is 1 with adapters, whose base needs no gradient,
//! else 2; checkpointing adds 1, since it computes every block again. Equal states are counted separately, so a stage
//! can cost less. Measures nothing.

use crate::memory::{PassSizes, Sizes, Workload};
use crate::run::{Run, RunConfig, Samples};
use crate::stage::StageKind;

/// What one stage of a kind costs, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StageCost {
    /// Which kind.
    pub kind: StageKind,
    /// Stages of that kind in the whole run.
    pub stages: u64,
    /// Floating-point operations of one stage.
    pub flops: f64,
    /// Bytes that one stage writes to the store, with the largest possible kept sets.
    pub bytes: u64,
}

impl Sizes {
    /// Floating-point operations of a forward pass.
    pub fn forward_flops(&self, pass: &PassSizes) -> f64 {
        let [d, n, m, v] =
            [self.d_model, self.n_layers, self.mlp_hidden_size, self.vocabulary].map(|x| x as f64);
        let [sequences, length, queried] =
            [pass.sequences, pass.length, pass.queried].map(|x| x as f64);
        let blocks = 2.0 * length * n * (4.0 * d * d + 3.0 * d * m) + 4.0 * n * length * length * d;
        sequences * (blocks + 2.0 * queried * v * d)
    }
}

impl Workload {
    /// The costs of a run's stages, in the order of the chain. Fine-tuning and grading cost little compared with the
    /// others, so only their number is given.
    pub fn costs(&self, run: &Run) -> Vec<StageCost> {
        let config = run.config();
        let (iterations, shards) =
            (u64::from(config.training.iterations), u64::from(config.rollout.shards));
        let updates = iterations * u64::from(config.estimator.inner_updates);
        let evaluations = (0..=config.training.iterations).filter(|&i| run.is_evaluated(i)).count();
        let cost = |kind, stages, (flops, bytes)| StageCost { kind, stages, flops, bytes };
        vec![
            cost(StageKind::Sft, run.sft_chunks().into(), (0.0, 3 * self.trained_bytes())),
            cost(StageKind::Rollout, iterations * shards, self.rollout_cost(config)),
            cost(StageKind::Reward, iterations * shards, (0.0, 64 * self.rollout_rows)),
            cost(StageKind::Gradient, updates * shards, self.gradient_cost(config)),
            cost(StageKind::Update, updates, (0.0, 3 * self.trained_bytes())),
            cost(StageKind::Evaluation, evaluations as u64, self.evaluation_cost(config)),
        ]
    }

    fn of_one(&self, pass: &PassSizes) -> f64 {
        self.sizes.forward_flops(&PassSizes { sequences: 1, ..*pass })
    }

    fn rollout_cost(&self, config: &RunConfig) -> (f64, u64) {
        let rollout = &config.rollout;
        let passes = self.rollout_rows as f64 * f64::from(rollout.steps);
        let completion = u64::from(rollout.completion_tokens);
        // Ids and steps in 8 bytes, log-probabilities and entropies in 4; kept ids in 8.
        let kept = if rollout.top_k > 0 { 8 * u64::from(rollout.top_k) } else { 0 };
        let row = 8 * self.rollout.length + completion * (8 + 4 + 4 + kept);
        (passes * self.of_one(&self.rollout), self.rollout_rows * row)
    }

    fn gradient_cost(&self, config: &RunConfig) -> (f64, u64) {
        let samples = match config.estimator.k {
            Samples::All => config.rollout.steps,
            Samples::Count(k) => k,
        };
        let back = if self.lora.is_some() { 1.0 } else { 2.0 };
        let again = if self.checkpointing { 1.0 } else { 0.0 };
        // The other policies need a forward pass only.
        let passes = 1.0 + back + again + self.other_policies as f64;
        let states = self.rollout_rows as f64 * f64::from(samples);
        (states * passes * self.of_one(&self.gradient), self.trained_bytes())
    }

    fn evaluation_cost(&self, config: &RunConfig) -> (f64, u64) {
        let steps: u32 = config.evaluation.steps.iter().sum();
        let guided = if config.evaluation.guidance.get() > 0.0 { 2.0 } else { 1.0 };
        let passes = f64::from(config.evaluation.problems) * f64::from(steps) * guided;
        (passes * self.of_one(&self.evaluation), 16 << 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Run;

    fn costs(change: impl Fn(&str) -> String) -> Vec<StageCost> {
        let run = Run::parse(&change(include_str!("../../jobs/runs/smoke.toml"))).unwrap();
        Workload::of(&run, 24, 8).costs(&run)
    }

    fn of(costs: &[StageCost], kind: StageKind) -> StageCost {
        *costs.iter().find(|cost| cost.kind == kind).unwrap()
    }

    /// On the published model, a token costs about two operations a weight beside attention's.
    #[test]
    fn a_pass_costs_two_operations_a_weight() {
        let sizes =
            Sizes { d_model: 4096, n_layers: 32, mlp_hidden_size: 12_288, vocabulary: 126_464 };
        let pass = PassSizes { sequences: 3, length: 1, queried: 1 };
        // All matrices but the embedding, which is looked up.
        let weights = 8_015_581_184.0 - 126_464.0 * 4096.0;
        assert!((sizes.forward_flops(&pass) / (6.0 * weights) - 1.0).abs() < 1e-3);
    }

    #[test]
    fn the_cost_of_a_kind_is_in_proportion_to_its_work() {
        let plain = costs(str::to_owned);
        let total: u64 = plain.iter().map(|cost| cost.stages).sum();
        let run = Run::parse(include_str!("../../jobs/runs/smoke.toml")).unwrap();
        assert_eq!(total, crate::Plan::total_stages(&run));
        let kept = costs(|text| text.replace("[training]", "[lora]\nhead = true\n[training]"));
        let again = |text: &str| {
            let text = text.replace("[training]", "[lora]\nhead = true\n[training]");
            text.replace("checkpointing = false", "checkpointing = true")
        };
        let gradient = |costs: &[StageCost]| of(costs, StageKind::Gradient).flops;
        // Backward passes cost two of forward with all weights, one with a frozen base; one more again.
        assert!((gradient(&kept) / gradient(&plain) - 2.0 / 3.0).abs() < 1e-12);
        assert!((gradient(&costs(again)) / gradient(&plain) - 1.0).abs() < 1e-12);
        assert_eq!(of(&kept, StageKind::Rollout).flops, of(&plain, StageKind::Rollout).flops);
    }
}
