//! Milliseconds that a written position costs the sampler beside its share of the forward pass, at the vocabulary of
//! LLaDA-8B: the distribution, its entropy and the draw, on one thread.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its table")]

use agrpo_compute::sampler::choose;
use agrpo_spec::{Cache, Confidence, PositionRule, Real, Sampler, Seed};

#[expect(dead_code, reason = "shared by the benchmarks")]
mod support;

const VOCABULARY: u32 = 126_464;
const MASK: usize = 126_336;
const POSITIONS: u32 = 64;

fn real(value: f64) -> Real {
    Real::new(value).expect("finite")
}

fn sampler(temperature: f64, top_k: u32, top_p: f64) -> Sampler {
    Sampler {
        completion_tokens: 1,
        block_tokens: 1,
        steps: 1,
        temperature: real(temperature),
        top_k,
        top_p: real(top_p),
        position: PositionRule::Random,
        confidence: Confidence::Sampling,
        guidance: real(0.0),
        cache: Cache::None,
        threshold: None,
    }
}

/// Nearly normal logits with a few peaks, as of a model that has learned something.
fn logits(spread: f64) -> Vec<f32> {
    let seed = Seed::new(1);
    let uniform = |v, of| seed.uniform(v, of);
    let normal = |v| 1.7 * ((0..4).map(|of| uniform(v, of)).sum::<f64>() - 2.0);
    let peak = |v| if v % 20_011 == 7 { 8.0 } else { 0.0 };
    #[expect(clippy::cast_possible_truncation, reason = "logits are f32")]
    let logit = |v: u32| (spread * normal(v) + peak(v)) as f32;
    (0..VOCABULARY).map(logit).collect()
}

fn milliseconds(logits: &[f32], sampler: &Sampler) -> f64 {
    let all = support::seconds(|| {
        for n in 0..POSITIONS {
            choose(logits, sampler, MASK, Seed::new(2).uniform(n, 0)).expect("numbers");
        }
    });
    all * 1e3 / f64::from(POSITIONS)
}

fn main() {
    let samplers = [
        ("top-k 150, top-p 0.99", sampler(0.6, 150, 0.99)),
        ("unfiltered", sampler(1.0, 0, 1.0)),
        ("greedy", sampler(0.0, 0, 1.0)),
        ("top-p 0.99", sampler(1.0, 0, 0.99)),
    ];
    println!("{:<24} {:>12} {:>12}", "ms for a position", "flat", "peaked");
    for (name, sampler) in samplers {
        let [flat, peaked] = [1.0, 3.0].map(|spread| milliseconds(&logits(spread), &sampler));
        println!("{name:<24} {flat:>12.3} {peaked:>12.3}");
    }
}
