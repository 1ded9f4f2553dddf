//! A run file as written, with its defaults filled in.

use serde::{Deserialize, Serialize};

use super::defaults;
use super::{
    Advantage, BenchmarkTask, CheckpointConfig, Confidence, EstimatorConfig, EvaluationConfig,
    GridCell, LoraConfig, ModelShape, Numerics, OptimizerConfig, PositionRule, Protocol, Retention,
    RewardConfig, RolloutConfig, Sampler, SftConfig, Task,
};
use crate::digest::{Appended, ArtifactDigest, Real};
use crate::family::Family;

/// The length of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Policy updates.
    pub iterations: u32,
}

/// A run file, with its defaults filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The run's label; part of its identity. 1 to 64 letters, digits, `-`, `_` or `.`; of a run file, not
    /// `-` first, which commands would take for an option, and not dots alone, which are folders.
    pub name: String,
    /// Root of all randomness of the run.
    pub seed: u64,
    /// The numerics class: how far results are equal to the bit.
    #[serde(default)]
    pub numerics: Numerics,
    /// The task.
    pub task: Task,
    /// The shape of the run's own model; requires `sft`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelShape>,
    /// The fine-tuning that makes the base, before reinforcement learning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sft: Option<SftConfig>,
    /// The base, if it is a checkpoint; instead of `model` and `sft`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointConfig>,
    /// How trajectories are sampled.
    pub rollout: RolloutConfig,
    /// How completions are rewarded.
    #[serde(default)]
    pub reward: RewardConfig,
    /// How rewards become advantages.
    #[serde(default)]
    pub advantage: Advantage,
    /// The policy gradient.
    pub estimator: EstimatorConfig,
    /// The policy's optimizer.
    pub optimizer: OptimizerConfig,
    /// The adapter that is trained instead of all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// The length of the run.
    pub training: TrainingConfig,
    /// How progress is measured.
    pub evaluation: EvaluationConfig,
    /// Which results are kept; not part of the run's identity or record.
    #[serde(default, skip_serializing)]
    pub retention: Retention,
}

impl RunConfig {
    /// Fills in what a run file leaves out and another key decides: `[advantage]` and `estimator.token_mean` by the
    /// estimator's kind, `rollout.confidence` by the task's protocol, `lora.targets` by the model's family; and
    /// leaves out sizes of heads that are what they would be anyway. Stored runs have these keys; in those from before a key, its
    /// serde default is what it was.
    pub(super) fn filled(mut self, written: &toml::Table) -> Self {
        let has = |section: &str, key: &str| {
            written.get(section).and_then(|section| section.get(key)).is_some()
        };
        let published = Advantage::published(self.estimator.kind);
        if !has("advantage", "baseline") {
            self.advantage.baseline = published.baseline;
        }
        if !has("advantage", "scale") {
            self.advantage.scale = published.scale;
        }
        if !has("estimator", "token_mean") {
            self.estimator.token_mean = self.estimator.kind.token_mean();
        }
        if !has("rollout", "confidence") {
            self.rollout.confidence = self.published_confidence(self.rollout.position);
        }
        let modules = self.family().traits().tensors.targets();
        if let Some(lora) = self.lora.as_mut().filter(|_| !has("lora", "targets")) {
            lora.targets = modules.map(str::to_owned).into();
        }
        self.model.iter_mut().for_each(ModelShape::normalise);
        self.checkpoint.iter_mut().for_each(|checkpoint| checkpoint.shape.normalise());
        self
    }

    /// The family of the run's models.
    pub fn family(&self) -> Family {
        let of_checkpoint = self.checkpoint.as_ref().map(|checkpoint| checkpoint.shape.family);
        of_checkpoint.or(self.model.as_ref().map(|model| model.family)).unwrap_or_default()
    }

    /// By which distribution the task's protocol ranks positions in this order: d1 by the model's, AGRPO by the sampler's.
    fn published_confidence(&self, position: PositionRule) -> Confidence {
        match (&self.task, position) {
            (
                Task::Benchmark(BenchmarkTask { protocol: Protocol::D1, .. }),
                PositionRule::LowConfidence,
            ) => Confidence::Model,
            _ => Confidence::Sampling,
        }
    }

    /// By which distribution tokens are confident in evaluations in this order that sample.
    pub fn evaluation_confidence(&self, position: PositionRule) -> Confidence {
        self.evaluation.confidence.unwrap_or_else(|| self.published_confidence(position))
    }

    /// Whether the adapter is merged into its base before sampling.
    pub fn merges_adapter(&self) -> bool {
        self.lora.as_ref().is_some_and(|lora| lora.merge_for_sampling)
    }

    /// Tokens of a completion in evaluations.
    pub fn evaluation_completion_tokens(&self) -> u32 {
        self.evaluation.completion_tokens.unwrap_or(self.rollout.completion_tokens)
    }

    /// Tokens of a block in evaluations.
    pub fn evaluation_block_tokens(&self) -> u32 {
        self.evaluation.block_tokens.unwrap_or(self.rollout.block_tokens)
    }

    /// Stages that share the problems of an evaluation; 1 where one computes all.
    pub fn evaluation_shards(&self) -> u32 {
        self.evaluation.shards.0.unwrap_or(1)
    }

    /// The greedy sampler of the run's evaluations at this many unmask steps.
    pub fn evaluation_sampler(&self, steps: u32) -> Sampler {
        let evaluation = &self.evaluation;
        Sampler {
            completion_tokens: self.evaluation_completion_tokens(),
            block_tokens: self.evaluation_block_tokens(),
            steps,
            temperature: Real::default(),
            top_k: 0,
            top_p: defaults::real(1.0),
            position: evaluation.position,
            // The same as the model's, as it is greedy.
            confidence: Confidence::Sampling,
            guidance: evaluation.guidance,
            cache: evaluation.cache,
            threshold: evaluation.threshold,
        }
    }

    /// The samplers of the run's evaluations: one for each number of `steps`, then those of the grid's other cells.
    pub fn evaluation_samplers(&self) -> Vec<Sampler> {
        let steps = self.evaluation.steps.iter();
        let mut all: Vec<Sampler> = steps.map(|&steps| self.evaluation_sampler(steps)).collect();
        for &GridCell { completion_tokens, steps } in self.evaluation.grid.0.iter().flatten() {
            let sampler = Sampler { completion_tokens, ..self.evaluation_sampler(steps) };
            if !all.contains(&sampler) {
                all.push(sampler);
            }
        }
        all
    }

    /// Tokens of the longest completion in evaluations.
    pub fn longest_evaluation(&self) -> u32 {
        let grid = self.evaluation.grid.0.iter().flatten().map(|cell| cell.completion_tokens);
        grid.fold(self.evaluation_completion_tokens(), u32::max)
    }

    /// Every small file that the run's problems and grades come from, with its role.
    pub fn material(&self) -> Vec<(String, ArtifactDigest)> {
        let datasets = self.task.datasets().into_iter();
        let datasets = datasets.map(|(role, digest)| (format!("dataset {role}"), digest));
        let program = self.reward.files.iter();
        datasets.chain(program.map(|(name, digest)| (format!("program {name}"), *digest))).collect()
    }

    /// The grader of evaluations, if the task has none of its own.
    pub fn grading(&self) -> Appended<RewardConfig> {
        Appended(matches!(self.task, Task::Dataset(_)).then(|| self.reward.clone()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{AdvantageScale, Baseline, EstimatorKind, Run};

    /// A run of a checkpoint in words, in low-confidence order, with more keys below the sections of these names.
    pub(crate) fn words(protocol: &str, changes: &[(&str, &str)]) -> String {
        let digest = "0".repeat(64);
        let mut text = format!(
            r#"name = "words"
seed = 5
[task.benchmark]
name = "gsm8k"
protocol = "{protocol}"
train = "{digest}"
test = "{digest}"
[checkpoint]
folder = "{digest}"
config = "{digest}"
tokenizer = "{digest}"
[checkpoint.shape]
d_model = 32
n_layers = 2
n_heads = 2
mlp_hidden_size = 48
embedding_size = 272
max_sequence_length = 4096
[lora]
head = false
[rollout]
prompts = 4
group = 6
shards = 2
micro_batch = 8
completion_tokens = 8
block_tokens = 8
steps = 8
position = "low-confidence"
[estimator]
micro_batch = 8
[optimizer]
learning_rate = 1e-3
[training]
iterations = 2
[evaluation]
problems = 4
every = 1
steps = [8]
micro_batch = 8
"#
        );
        for (section, line) in changes {
            text = text.replace(&format!("[{section}]\n"), &format!("[{section}]\n{line}\n"));
        }
        text
    }

    fn read(text: &str) -> Run {
        Run::parse(text).unwrap()
    }

    #[test]
    fn advantages_are_by_default_those_that_a_kind_was_published_with() {
        let (mean, others) = (Baseline::GroupMean, Baseline::LeaveOneOut);
        let (none, sample) = (AdvantageScale::None, AdvantageScale::GroupSampleStd);
        for (kind, baseline, scale) in [
            (EstimatorKind::Agrpo, mean, none),
            (EstimatorKind::DiffuGrpo, mean, none),
            (EstimatorKind::CoupledGrpo, others, none),
            (EstimatorKind::MergedStep, mean, none),
            (EstimatorKind::ArGrpo, mean, sample),
        ] {
            let of_kind = format!("kind = \"{kind}\"\nk = 1");
            let text = words("agrpo", &[("estimator", &of_kind)]);
            let text = text.replace("block_tokens = 8", "block_tokens = 1");
            let found = read(&text).config().advantage.clone();
            assert_eq!((found.baseline, found.scale), (baseline, scale), "{kind}");
            // What a file says, stays; the other key is the kind's.
            let own = read(&format!("{text}[advantage]\nbaseline = \"leave-one-out\"\n"));
            let found = own.config().advantage.clone();
            assert_eq!((found.baseline, found.scale), (others, scale), "{kind}");
            let own = read(&format!("{text}[advantage]\nscale = \"group-std\"\n"));
            let found = own.config().advantage.clone();
            assert_eq!((found.baseline, found.scale), (baseline, AdvantageScale::GroupStd));
            let table = Run::from_table(toml::from_str(&text).unwrap()).unwrap();
            assert_eq!(table, read(&text), "a table is read like a text");
        }
    }

    #[test]
    fn positions_are_ranked_as_the_protocol_ranks_them() {
        let of = |text: &str| {
            let run = read(text);
            let config = run.config();
            (config.rollout.confidence, config.evaluation_confidence(config.evaluation.position))
        };
        let (model, sampling) = (Confidence::Model, Confidence::Sampling);
        assert_eq!(of(&words("d1", &[])), (model, model));
        assert_eq!(of(&words("agrpo", &[])), (sampling, sampling));
        let random = words("d1", &[]).replace("\"low-confidence\"", "\"random\"");
        assert_eq!(of(&random), (sampling, model));
        let [line_of_model, line] =
            ["model", "sampling"].map(|it| format!("confidence = \"{it}\""));
        let written = words("d1", &[("rollout", &line), ("evaluation", &line)]);
        assert_eq!(of(&written), (sampling, sampling));
        let written =
            words("agrpo", &[("rollout", &line_of_model), ("evaluation", &line_of_model)]);
        assert_eq!(of(&written), (model, model));
        // The run's own evaluations are greedy, where both are one: no part of its name.
        let greedy = words("agrpo", &[("evaluation", &line_of_model)]);
        assert_eq!(read(&greedy).id(), read(&words("agrpo", &[])).id());
        assert_eq!(read(&greedy).config().evaluation_sampler(8).confidence, sampling);
        assert_ne!(read(&written).id(), read(&greedy).id());
    }

    /// Records from before the keys say nothing of them, and mean what they meant.
    #[test]
    fn records_from_before_keep_their_names_and_their_meaning() {
        let line = "confidence = \"sampling\"";
        let run = read(&words("d1", &[("rollout", line)]));
        let mut record = serde_json::to_value(run.config()).unwrap();
        let remove = |of: &mut serde_json::Value, key| of.as_object_mut().unwrap().remove(key);
        assert!(remove(&mut record["rollout"], "confidence").is_some());
        assert!(remove(&mut record["advantage"], "baseline").is_some());
        assert!(record["optimizer"].get("starts_at_zero").is_none());
        let read = Run::resolve(serde_json::from_value(record).unwrap()).unwrap();
        assert_eq!(read, run);
    }
}
