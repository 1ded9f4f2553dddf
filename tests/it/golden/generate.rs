//! Greedy completions, guided and cached ones included, against LLaDA's and Fast-dLLM's `generate`.

use agrpo_compute::Threads;
use agrpo_compute::model::Policy;
use agrpo_compute::sampler::{Row, sample};
use agrpo_compute::trajectories::Trajectories;
use agrpo_spec::{Cache, Confidence, PositionRule, Real, Sampler, Seed};
use serde_json::Value;
use tch::Tensor;

use super::{cases, count, folder, ids, policy, tensors};

/// A case's lengths; greedy, the most probable token first.
fn greedy(case: &Value) -> Sampler {
    let real = |value| Real::new(value).unwrap();
    Sampler {
        completion_tokens: count(case, "gen_length"),
        block_tokens: count(case, "block_length"),
        steps: count(case, "steps"),
        temperature: real(0.0),
        top_k: 0,
        top_p: real(1.0),
        position: PositionRule::LowConfidence,
        confidence: Confidence::Sampling,
        guidance: real(0.0),
        cache: Cache::None,
        threshold: None,
    }
}

fn completions(policy: &Policy, prompt: &Tensor, sampler: &Sampler) -> Trajectories {
    let rows: Vec<_> = (0..prompt.size()[0])
        .map(|row| Row { prompt: ids(&prompt.get(row)), seed: Seed::new(0) })
        .collect();
    sample(policy, &rows, sampler, 64, &Threads::one()).unwrap()
}

fn assert_same(ours: &Trajectories, prompt: &Tensor, output: &Tensor, case: &Value) {
    let tokens = i64::try_from(ours.completion_len).unwrap();
    let completion = output.narrow(1, prompt.size()[1], tokens);
    assert_eq!(ours.completion_ids, ids(&completion), "{case}");
}

#[test]
fn greedy_completions_are_the_reference_s_token_for_token() {
    let expected = tensors("llada_tiny/expected.safetensors");
    let policy = policy();
    let mut compared = 0;
    for case in cases("llada_tiny/generate_cases.json") {
        assert_eq!(case["remasking"], "low_confidence", "the only order that draws nothing");
        let real = |name: &str| Real::new(case[name].as_f64().unwrap()).unwrap();
        let prompt = &expected[&format!("generate.{}.prompt", case["case"])];
        let sampler = Sampler {
            temperature: real("temperature"),
            guidance: real("cfg_scale"),
            ..greedy(&case)
        };
        let ours = completions(&policy, prompt, &sampler);
        assert_same(&ours, prompt, &expected[&format!("generate.{}.output", case["case"])], &case);
        compared += 1;
    }
    assert!(compared > 0, "no case in {}", folder().display());
}

/// With the prefix cache, the dual cache and neither, with and without a threshold: the tokens, and what
/// they cost in forward passes.
#[test]
fn cached_completions_are_the_reference_s_token_for_token_and_pass_for_pass() {
    let expected = tensors("llada_tiny/cached_generation.safetensors");
    let policy = policy();
    let mut seen = std::collections::BTreeSet::new();
    for case in cases("llada_tiny/cached_generation_cases.json") {
        let (number, name) = (&case["case"], case["cache"].as_str().unwrap());
        let prompt = &expected[&format!("{number}.prompt")];
        let sampler = Sampler {
            cache: match name {
                "none" => Cache::None,
                "prefix_cache" => Cache::Prefix,
                "dual_cache" => Cache::Dual,
                other => panic!("{other} is no cache"),
            },
            threshold: case["threshold"].as_f64().and_then(Real::new),
            ..greedy(&case)
        };
        let ours = completions(&policy, prompt, &sampler);
        assert_same(&ours, prompt, &expected[&format!("{number}.{name}.output")], &case);
        for row in 0..ours.rows {
            assert_eq!(ours.sampled_steps(row), count(&case, "forward_passes"), "{case}");
        }
        seen.insert((sampler.cache.name(), sampler.threshold.is_some()));
    }
    assert_eq!(seen.len(), 6, "cases of all kinds in {}: {seen:?}", folder().display());
}
