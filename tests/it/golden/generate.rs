//! Greedy completions, guided ones included, against LLaDA's `generate`.

use agrpo_spec::{PositionRule, Real, Sampler, Seed};
use agrpo_stages::sampler::{Row, sample};

use super::{cases, count, folder, ids, policy, tensors};

#[test]
fn greedy_completions_are_the_reference_s_token_for_token() {
    let expected = tensors("llada_tiny/expected.safetensors");
    let policy = policy();
    let mut compared = 0;
    for case in cases("llada_tiny/generate_cases.json") {
        assert_eq!(case["remasking"], "low_confidence", "the only order that draws nothing");
        let real = |name: &str| Real::new(case[name].as_f64().unwrap()).unwrap();
        let number = &case["case"];
        let prompt = &expected[&format!("generate.{number}.prompt")];
        let sampler = Sampler {
            completion_tokens: count(&case, "gen_length"),
            block_tokens: count(&case, "block_length"),
            steps: count(&case, "steps"),
            temperature: real("temperature"),
            top_k: 0,
            top_p: Real::new(1.0).unwrap(),
            position: PositionRule::LowConfidence,
            guidance: real("cfg_scale"),
        };
        let rows: Vec<_> = (0..prompt.size()[0])
            .map(|row| Row { prompt: ids(&prompt.get(row)), seed: Seed::new(0) })
            .collect();
        let ours = sample(&policy, &rows, &sampler, 64).unwrap();
        let output = &expected[&format!("generate.{number}.output")];
        let completion = output.narrow(1, prompt.size()[1], i64::from(sampler.completion_tokens));
        assert_eq!(ours.completion_ids, ids(&completion), "case {number}");
        compared += 1;
    }
    assert!(compared > 0, "no case in {}", folder().display());
}
