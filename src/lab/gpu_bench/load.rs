//! The size of a benchmark: a model, how it is sampled, and how much of it is differentiated.
//!
//! Arithmetic is counted as the algorithm asks for it: `n_layers (2 (4 D^2 + 3 D M) + 4 L D) L + 2 Q D V` FLOP of a
//! forward pass over L tokens with logits at Q of them, and two of those of a gradient sample, as adapters are
//! trained over a frozen base. What the program saves by not computing unneeded positions counts as computed.

use agrpo_compute::sampler::Row;
use agrpo_spec::memory::{PassSizes, Sizes};
use agrpo_spec::{
    Cache, Confidence, Family, ModelShape, PositionRule, Purpose, Real, Sampler, Seed,
};
use serde::Serialize;

/// A benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// The model.
    pub model: ModelShape,
    /// Rows of the embedding and of the head, V.
    pub vocabulary: u32,
    /// Whether weights are bfloat16, else f32.
    pub half: bool,
    /// Completions sampled side by side, all in one forward pass.
    pub sequences: u32,
    /// Tokens of a prompt.
    pub prompt_tokens: u32,
    /// How completions are sampled.
    pub sampler: Sampler,
    /// Blocks that are sampled by the clock; the earlier ones are given. All blocks take equally long.
    pub measured_blocks: u32,
    /// States that are differentiated by the clock.
    pub gradient_samples: u32,
    /// States of one forward and backward pass.
    pub gradient_states: u32,
}

impl Load {
    /// LLaDA-8B (Nie et al., arXiv 2502.09992) in bfloat16, with adapters and evaluations as published.
    pub fn llada_8b() -> Self {
        Self {
            model: ModelShape {
                family: Family::default(),
                n_kv_heads: None,
                head_size: None,
                attention_block: None,
                n_experts: None,
                experts_per_token: None,
                d_model: 4096,
                n_layers: 32,
                n_heads: 32,
                mlp_hidden_size: 12_288,
                rope_theta: real(500_000.0),
                rms_norm_eps: real(1e-5),
                init_std: real(0.02),
            },
            vocabulary: 126_464,
            half: true,
            sequences: 8,
            prompt_tokens: 256,
            sampler: Sampler {
                completion_tokens: 256,
                block_tokens: 32,
                steps: 128,
                temperature: real(0.6),
                top_k: 150,
                top_p: real(0.99),
                position: PositionRule::LowConfidence,
                confidence: Confidence::Sampling,
                guidance: real(0.0),
                cache: Cache::None,
                threshold: None,
            },
            measured_blocks: 1,
            gradient_samples: 4,
            gradient_states: 1,
        }
    }

    /// The same at a size that a processor computes in a moment, in f32.
    pub fn tiny() -> Self {
        let whole = Self::llada_8b();
        Self {
            model: ModelShape {
                family: Family::default(),
                n_kv_heads: None,
                head_size: None,
                attention_block: None,
                n_experts: None,
                experts_per_token: None,
                d_model: 32,
                n_layers: 2,
                n_heads: 2,
                mlp_hidden_size: 64,
                ..whole.model
            },
            vocabulary: 512,
            half: false,
            sequences: 4,
            prompt_tokens: 8,
            sampler: Sampler { completion_tokens: 16, block_tokens: 4, steps: 8, ..whole.sampler },
            gradient_samples: 2,
            ..whole
        }
    }

    /// Layers of LLaDA's head size and a quarter of its width, at which libraries choose kernels for large matrices:
    /// fresh ratios are measured on it.
    pub fn middle() -> Self {
        let whole = Self::llada_8b();
        Self {
            model: ModelShape {
                family: Family::default(),
                n_kv_heads: None,
                head_size: None,
                attention_block: None,
                n_experts: None,
                experts_per_token: None,
                d_model: 1024,
                n_layers: 4,
                n_heads: 8,
                mlp_hidden_size: 3072,
                ..whole.model
            },
            vocabulary: 32_768,
            prompt_tokens: 128,
            sampler: Sampler { completion_tokens: 128, steps: 64, ..whole.sampler },
            gradient_samples: 8,
            ..whole
        }
    }

    pub(super) fn blocks(&self) -> u32 {
        self.sampler.completion_tokens / self.sampler.block_tokens
    }

    pub(super) fn tokens_of_step(&self) -> u32 {
        self.sampler.completion_tokens / self.sampler.steps
    }

    /// The sampler of the measured blocks.
    pub(super) fn measured_sampler(&self) -> Sampler {
        let of_block = self.sampler.steps / self.blocks();
        Sampler {
            completion_tokens: self.measured_blocks * self.sampler.block_tokens,
            steps: self.measured_blocks * of_block,
            ..self.sampler.clone()
        }
    }

    /// Prompts, and the blocks before the measured ones; all differ, so no two states are equal.
    pub(super) fn rows(&self) -> Vec<Row> {
        let given = (self.blocks() - self.measured_blocks) * self.sampler.block_tokens;
        let row = |n: u32| {
            let seed = Seed::new(1).child(Purpose::Sample, n.into());
            let bound = u64::from(self.vocabulary - 2);
            let token = |at| i64::try_from(seed.below(bound, at, 0)).expect("below a u32");
            Row { prompt: (0..self.prompt_tokens + given).map(token).collect(), seed }
        };
        (0..self.sequences).map(row).collect()
    }

    /// Of one forward pass over one sequence.
    pub(super) fn flop(&self, queried: u32) -> f64 {
        let length = u64::from(self.prompt_tokens + self.sampler.completion_tokens);
        let pass = PassSizes { sequences: 1, length, queried: queried.into() };
        Sizes::new(&self.model, self.vocabulary.into()).forward_flops(&pass)
    }

    /// Of the measured steps of all sequences: each has logits at the block's masked positions.
    pub(super) fn rollout_flop(&self) -> f64 {
        let of_step = self.tokens_of_step();
        let steps = self.sampler.block_tokens / of_step;
        let masked = (0..steps).map(|step| self.sampler.block_tokens - step * of_step);
        let block: f64 = masked.map(|masked| self.flop(masked)).sum();
        f64::from(self.sequences) * f64::from(self.measured_blocks) * block
    }
}

pub(super) fn real(value: f64) -> Real {
    Real::new(value).expect("a constant is finite")
}
