//! Throughput of the two costly stages, as rates and as shares of this machine's matrix peak.
//!
//! The peak is a 1024 x 1024 f32 product on one thread, measured in the same run. A share counts the
//! arithmetic that the algorithm asks for: every token of a sequence through every block (products and
//! attention), the head at the positions that are drawn or trained; a gradient sample is three forward
//! passes. What the program saves by not computing unneeded positions, or a timestep of a completion that
//! was drawn twice, shows as a higher share, which can exceed 1.
//! Run it under each numerics class (`make bench`): the class is set by the environment.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its table")]

use std::time::Instant;

use agrpo_compute::estimator::{Batch, Policies, Worth, accumulate, estimator};
use agrpo_compute::model::{ModelConfig, Policy};
use agrpo_compute::sampler::{Row, sample};
use agrpo_compute::trajectories::Trajectories;
use agrpo_spec::memory::{PassSizes, Sizes};
use agrpo_spec::{
    Cache, EstimatorConfig, EstimatorKind, ModelShape, PositionRule, Purpose, Real, Sampler,
    Samples, Seed, Strata,
};
use tch::{Device, Kind, Tensor};

struct Shape {
    name: &'static str,
    sequences: usize,
    prompt: u32,
    completion: u32,
    steps: u32,
    model: ModelShape,
    vocabulary: i64,
    k: usize,
    micro_batch: u32,
}

fn shapes() -> [Shape; 2] {
    let model = |d_model, n_layers, n_heads, mlp_hidden_size| ModelShape {
        d_model,
        n_layers,
        n_heads,
        mlp_hidden_size,
        rope_theta: real(10_000.0),
        rms_norm_eps: real(1e-5),
        init_std: real(0.05),
    };
    [
        Shape {
            name: "tiny",
            sequences: 512,
            prompt: 12,
            completion: 8,
            steps: 8,
            model: model(96, 3, 4, 256),
            vocabulary: 24,
            k: 4,
            micro_batch: 64,
        },
        Shape {
            name: "mid",
            sequences: 16,
            prompt: 64,
            completion: 64,
            steps: 16,
            model: model(512, 6, 8, 1376),
            vocabulary: 4096,
            k: 2,
            micro_batch: 16,
        },
    ]
}

fn real(value: f64) -> Real {
    Real::new(value).expect("finite")
}

/// Seconds of the fastest of `times` calls.
fn fastest(times: usize, mut call: impl FnMut()) -> f64 {
    let one = |_| {
        let start = Instant::now();
        call();
        start.elapsed().as_secs_f64()
    };
    (0..times).map(one).fold(f64::INFINITY, f64::min)
}

fn matrix_peak() -> f64 {
    let n = 1024i64;
    let matrix = || Tensor::ones([n, n], (Kind::Float, Device::Cpu));
    let (a, b) = (matrix(), matrix());
    let seconds = fastest(20, || drop(a.matmul(&b)));
    2.0 * (n as f64).powi(3) / seconds
}

impl Shape {
    fn policy(&self) -> Policy {
        let length = i64::from(self.prompt) + i64::from(self.completion);
        let config = ModelConfig::new(&self.model, self.vocabulary, 0, 1, length);
        Policy::draw(config, 0.05, Seed::new(1)).expect("a valid shape")
    }

    fn sampler(&self) -> Sampler {
        Sampler {
            completion_tokens: self.completion,
            block_tokens: self.completion,
            steps: self.steps,
            temperature: real(1.0),
            top_k: 0,
            top_p: real(1.0),
            position: PositionRule::LowConfidence,
            guidance: real(0.0),
            cache: Cache::None,
            threshold: None,
        }
    }

    fn rows(&self) -> Vec<Row> {
        // All prompts differ, so that no two states are equal and none is computed for two.
        let row = |n: u64| {
            let token = |j| 2 + Seed::new(n).below(20, 0, j) as i64;
            let prompt = (0..self.prompt).map(token).collect();
            Row { prompt, seed: Seed::new(3).child(Purpose::Sample, n) }
        };
        (0..self.sequences as u64).map(row).collect()
    }

    /// Of one forward pass over a sequence, with the head at `queried` positions.
    fn forward_flops(&self, queried: u32) -> f64 {
        let (length, queried) = (u64::from(self.prompt + self.completion), queried.into());
        let sizes = Sizes::new(&self.model, self.vocabulary.unsigned_abs());
        sizes.forward_flops(&PassSizes { sequences: 1, length, queried })
    }

    fn rollout_flops(&self) -> f64 {
        let masked = |step| self.completion - self.completion / self.steps * step;
        let sequence: f64 = (0..self.steps).map(|step| self.forward_flops(masked(step))).sum();
        sequence * self.sequences as f64
    }

    fn gradient_flops(&self) -> f64 {
        3.0 * self.forward_flops(self.completion / self.steps) * (self.sequences * self.k) as f64
    }

    fn gradient(&self, policy: &Policy, trajectories: &Trajectories) {
        policy.require_grad();
        policy.zero_grad();
        let worth = |row: usize| Worth { advantage: (row % 3) as f64 - 1.1, counted: true };
        let worths: Vec<_> = (0..self.sequences).map(worth).collect();
        let (sampler, model) = (self.sampler(), policy.config());
        let batch =
            Batch::new(trajectories, &worths, 1, &sampler, model).expect("sampled just now");
        let config = EstimatorConfig {
            k: Samples::Count(u32::try_from(self.k).expect("k is small")),
            strata: Strata::Shard,
            micro_batch: self.micro_batch,
            ..EstimatorConfig::plain(EstimatorKind::Agrpo)
        };
        let policies = Policies { policy, behaviour: None, reference: None };
        let estimator = estimator(&batch, &config, Seed::new(5));
        accumulate(&estimator, &policies, &config).expect("a valid estimate");
    }
}

fn main() {
    agrpo_compute::use_one_thread();
    let peak = matrix_peak();
    println!("matrix peak, one thread: {:.1} GFLOP/s", peak / 1e9);
    println!(
        "{:<5} {:>18} {:>7} {:>20} {:>7}",
        "shape", "rollout tokens/s", "share", "gradient samples/s", "share"
    );
    for shape in shapes() {
        let (policy, rows, sampler) = (shape.policy(), shape.rows(), shape.sampler());
        let mut trajectories = None;
        let rollout = fastest(3, || {
            trajectories = sample(&policy, &rows, &sampler, shape.micro_batch as usize).ok();
        });
        let trajectories = trajectories.expect("the sampler works at this shape");
        let gradient = fastest(3, || shape.gradient(&policy, &trajectories));
        let tokens = (shape.sequences * shape.completion as usize) as f64;
        let samples = (shape.sequences * shape.k) as f64;
        println!(
            "{:<5} {:>18.0} {:>7.3} {:>20.1} {:>7.3}",
            shape.name,
            tokens / rollout,
            shape.rollout_flops() / rollout / peak,
            samples / gradient,
            shape.gradient_flops() / gradient / peak,
        );
    }
}
