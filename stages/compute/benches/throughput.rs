//! Throughput of the costly stages on one thread and on more, as rates and as shares of the rate of this machine's
//! products.
//!
//! That rate is one 1024 x 1024 product of the kernels on one thread, measured in the same run. A share counts the
//! arithmetic that the algorithm asks for: every token of a sequence through every block (products and
//! attention), the head at the positions that are drawn or trained; a gradient sample is three forward
//! passes. What the program saves by not computing unneeded positions, or a timestep of a completion that
//! was drawn twice, shows as a higher share, which can exceed 1.
//! Under the rates, for rollout and gradient, the shares of the threads' time by phase: products, with their own share of
//! the product's rate; attention; norms and gates (*element-wise*); distributions over the vocabulary (*choice*); and all
//! else: libtorch, the program around it, and waiting.
//! `make bench ARGS="tiny mid --threads 2"`: shapes by name, and the most threads, by default those of the machine.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its table")]

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::time::Instant;

use agrpo_compute::estimator::{Batch, Policies, Worth, accumulate, estimator};
use agrpo_compute::model::{ModelConfig, Policy};
use agrpo_compute::sampler::{Row, sample};
use agrpo_compute::{Threads, execute_on, phases, trajectories::Trajectories};
use agrpo_spec::memory::{PassSizes, Sizes};
use agrpo_spec::{
    Cache, Confidence, EstimatorConfig, EstimatorKind, Family, Inputs, ModelShape, Plan,
    PositionRule, Purpose, Real, Run, Sampler, Samples, Seed, SftSpec, StageSpec, Strata,
};
use support::{arguments, seconds};
use tch::{Device, Kind, Tensor};

mod support;

struct Shape {
    name: &'static str,
    sequences: usize,
    prompt: u32,
    completion: u32,
    steps: u32,
    block: u32,
    model: ModelShape,
    vocabulary: i64,
    k: usize,
    micro_batch: u32,
    /// top-k and top-p.
    filters: (u32, f64),
}

fn shapes() -> [Shape; 3] {
    let model = |d_model, n_layers, n_heads, mlp_hidden_size| ModelShape {
        family: Family::default(),
        n_kv_heads: None,
        head_size: None,
        attention_block: None,
        n_experts: None,
        experts_per_token: None,
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
            block: 8,
            model: model(96, 3, 4, 256),
            vocabulary: 24,
            k: 4,
            micro_batch: 64,
            filters: (0, 1.0),
        },
        Shape {
            name: "mid",
            sequences: 16,
            prompt: 64,
            completion: 64,
            steps: 16,
            block: 64,
            model: model(512, 6, 8, 1376),
            vocabulary: 4096,
            k: 2,
            micro_batch: 16,
            filters: (0, 1.0),
        },
        // A vocabulary of LLaDA's size, and the published filters.
        Shape {
            name: "real",
            sequences: 4,
            prompt: 64,
            completion: 64,
            steps: 32,
            block: 16,
            model: model(512, 4, 8, 1376),
            vocabulary: 126_464,
            k: 2,
            micro_batch: 4,
            filters: (150, 0.99),
        },
    ]
}

fn real(value: f64) -> Real {
    Real::new(value).expect("finite")
}

/// Multiplications and additions a second of a product of the kernels.
fn product_rate() -> f64 {
    let shape = ModelShape { d_model: 1024, n_layers: 1, ..shapes()[1].model.clone() };
    let policy = Policy::draw(ModelConfig::new(&shape, 1024, 0, 1, 1), 0.05, Seed::new(1));
    let policy = policy.expect("a valid shape");
    let x = Tensor::ones([1024, 1024], (Kind::Float, Device::Cpu));
    let seconds = (0..4).map(|_| seconds(|| drop(policy.head(&x)))).fold(f64::INFINITY, f64::min);
    2.0 * 1024f64.powi(3) / seconds
}

/// Sequences of fine-tuning a second, as the run `countdown` fine-tunes.
fn fine_tuned(threads: &Threads) -> f64 {
    let run = Run::parse(include_str!("../../../jobs/runs/countdown.toml")).expect("a valid run");
    let Some(StageSpec::Sft(spec)) = Plan::new(run).pending().values().next().cloned() else {
        panic!("the run begins with fine-tuning");
    };
    let sequences = f64::from(spec.batch * STEPS);
    let spec = StageSpec::Sft(SftSpec { steps: STEPS, ..spec });
    let stage = || execute_on(threads, &spec, &Inputs::default()).expect("a valid stage");
    sequences / seconds(|| drop(stage()))
}

/// Steps of fine-tuning that are measured at once.
const STEPS: u32 = 20;

impl Shape {
    fn policy(&self) -> Policy {
        let length = i64::from(self.prompt) + i64::from(self.completion);
        let config = ModelConfig::new(&self.model, self.vocabulary, 0, 1, length);
        Policy::draw(config, 0.05, Seed::new(1)).expect("a valid shape")
    }

    fn sampler(&self) -> Sampler {
        Sampler {
            completion_tokens: self.completion,
            block_tokens: self.block,
            steps: self.steps,
            temperature: real(1.0),
            top_k: self.filters.0,
            top_p: real(self.filters.1),
            position: self.position(),
            confidence: Confidence::Sampling,
            guidance: real(0.0),
            cache: Cache::None,
            threshold: None,
        }
    }

    /// Filters come with the published order of positions.
    fn position(&self) -> PositionRule {
        if self.filters.0 > 0 { PositionRule::Random } else { PositionRule::LowConfidence }
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
        let of_block = self.steps * self.block / self.completion;
        let queried = |step| match self.position() {
            PositionRule::Random => self.block / of_block,
            _ => self.block - self.block / of_block * step,
        };
        let block: f64 = (0..of_block).map(|step| self.forward_flops(queried(step))).sum();
        block * f64::from(self.completion / self.block) * self.sequences as f64
    }

    fn gradient_flops(&self) -> f64 {
        3.0 * self.forward_flops(self.completion / self.steps) * (self.sequences * self.k) as f64
    }

    fn gradient(&self, policy: &Policy, trajectories: &Trajectories, threads: &Threads) {
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
        accumulate(&estimator, &policies, &config, threads).expect("a valid estimate");
    }

    fn print(&self, count: NonZeroUsize, rate: f64) {
        let (policy, rows, sampler) = (self.policy(), self.rows(), self.sampler());
        let (threads, micro_batch) = (Threads::new(count), self.micro_batch as usize);
        let mut trajectories = None;
        let (rollout, of_rollout) = measured(rate, count, || {
            trajectories = sample(&policy, &rows, &sampler, micro_batch, &threads).ok();
        });
        let trajectories = trajectories.expect("the sampler works at this shape");
        let (gradient, of_gradient) =
            measured(rate, count, || self.gradient(&policy, &trajectories, &threads));
        let tokens = (self.sequences * self.completion as usize) as f64;
        let samples = (self.sequences * self.k) as f64;
        println!(
            "{:<9} {count:>7} {:>17.1} {:>6.3} {:>19.2} {:>6.3}",
            self.name,
            tokens / rollout,
            self.rollout_flops() / rollout / rate,
            samples / gradient,
            self.gradient_flops() / gradient / rate,
        );
        println!("          rollout: {of_rollout}\n         gradient: {of_gradient}");
    }
}

/// Seconds of a call, and how the threads' time divides into phases.
fn measured(rate: f64, threads: NonZeroUsize, mut call: impl FnMut()) -> (f64, String) {
    phases::spent();
    let mut all = 0.0;
    let median = seconds(|| {
        let begin = Instant::now();
        call();
        all += begin.elapsed().as_secs_f64();
    });
    let phases::Spent { seconds: phases, operations } = phases::spent();
    let all = all * threads.get() as f64;
    let shares = phases.map(|seconds| seconds / all);
    let peak = operations / phases[0] / rate;
    let [products, attention, element_wise, choice] = shares;
    let other = 1.0 - shares.iter().sum::<f64>();
    let text = format!(
        "products {products:.2} (at {peak:.2} of the rate), attention {attention:.2}, \
         element-wise {element_wise:.2}, choice {choice:.2}, other {other:.2}"
    );
    (median, text)
}

/// Nanoseconds since the first call.
fn clock() -> u64 {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    u64::try_from(BEGIN.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn main() {
    agrpo_compute::use_one_thread();
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let (most, named) = arguments(cores);
    let is_asked = |name: &str| named.is_empty() || named.iter().any(|asked| asked == name);
    let rate = product_rate();
    phases::measure_by(clock);
    println!("products on one thread: {:.1} GFLOP/s", rate / 1e9);
    println!(
        "{:<9} {:>7} {:>17} {:>6} {:>19} {:>6}",
        "shape", "threads", "rollout tokens/s", "share", "gradient samples/s", "share"
    );
    let counts = [NonZeroUsize::MIN, most];
    let counts = if most == NonZeroUsize::MIN { &counts[..1] } else { &counts };
    for shape in shapes().into_iter().filter(|shape| is_asked(shape.name)) {
        counts.iter().for_each(|&count| shape.print(count, rate));
    }
    if is_asked("countdown") {
        for &count in counts {
            let sequences = fine_tuned(&Threads::new(count));
            println!("countdown {count:>7} {sequences:>17.0} sequences/s of fine-tuning");
        }
    }
}
