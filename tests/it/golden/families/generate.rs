//! Completions of Dream and SDAR against their own `diffusion_generate` and `block_diffusion_generate`, token for token
//! and pass for pass.

use agrpo_compute::Threads;
use agrpo_compute::model::{PADDING, Policy, Queries};
use agrpo_compute::sampler::{Row, choose, sample};
use agrpo_compute::trajectories::Trajectories;
use agrpo_spec::{Cache, Confidence, PositionRule, Real, Sampler, Seed};
use serde_json::Value;
use tch::{Kind, Tensor};

use super::super::{cases, count, folder, ids, tensors};
use super::{checkpoint, policy};

/// Greedy, in one block.
pub(super) fn greedy(tokens: u32, steps: u32, position: PositionRule) -> Sampler {
    let real = |value| Real::new(value).unwrap();
    Sampler {
        completion_tokens: tokens,
        block_tokens: tokens,
        steps,
        temperature: real(0.0),
        top_k: 0,
        top_p: real(1.0),
        position,
        confidence: Confidence::Sampling,
        guidance: real(0.0),
        cache: Cache::None,
        threshold: None,
    }
}

pub(super) fn completions(policy: &Policy, prompt: &Tensor, sampler: &Sampler) -> Trajectories {
    let row = |row| Row { prompt: ids(&prompt.get(row)), seed: Seed::new(0) };
    let rows: Vec<Row> = (0..prompt.size()[0]).map(row).collect();
    sample(policy, &rows, sampler, 64, &Threads::one()).unwrap()
}

fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap()
}

/// One of Dream's cases.
struct Dream {
    case: Value,
    /// With padding where the case has some.
    prompt: Tensor,
    output: Tensor,
    /// The completions of every row after each step.
    states: Vec<Vec<Vec<i64>>>,
}

fn dream() -> Vec<Dream> {
    let all = tensors("dream_tiny/expected.safetensors");
    let of = |case: Value| {
        let tensor = |name: &str| all.get(&format!("generate.{}.{name}", case["case"]));
        let mut prompt = tensor("prompt").unwrap().shallow_clone();
        if let Some(mask) = tensor("attention_mask") {
            prompt = prompt.masked_fill(&mask.eq(0), PADDING);
        }
        let completion = |t: &Tensor| {
            t.narrow(
                -1,
                count(&case, "prompt_length").into(),
                count(&case, "max_new_tokens").into(),
            )
        };
        let history = completion(tensor("history").unwrap());
        let (steps, rows) = (history.size()[0], history.size()[1]);
        let state = |step| (0..rows).map(|row| ids(&history.get(step).get(row))).collect();
        let states = (0..steps).map(state).collect();
        let output = completion(tensor("output").unwrap());
        Dream { case, prompt, output, states }
    };
    cases("dream_tiny/generate_cases.json").into_iter().map(of).collect()
}

impl Dream {
    fn mask(&self) -> i64 {
        count(&self.case, "mask_token_id").into()
    }

    /// The completion of a row before each step, and the positions that the step wrote.
    fn steps(&self, row: usize) -> Vec<(Vec<i64>, Vec<usize>)> {
        let mut before = vec![self.mask(); self.states[0][row].len()];
        let mut all = vec![];
        for after in self.states.iter().map(|state| &state[row]) {
            let wrote = (0..after.len()).filter(|&j| before[j] != after[j]).collect();
            all.push((std::mem::replace(&mut before, after.clone()), wrote));
        }
        all
    }
}

/// In three orders, one with padding. Steps that write nothing have no number in ours.
#[test]
fn dream_s_completions_are_its_own_program_s() {
    let policy = policy("dream_tiny");
    let mut compared = 0;
    for dream in dream() {
        let position = match dream.case["alg"].as_str().unwrap() {
            "maskgit_plus" => PositionRule::LowConfidence,
            "entropy" => PositionRule::Entropy,
            "topk_margin" => PositionRule::Margin,
            "origin" => continue,
            other => panic!("{other} is no order"),
        };
        let (tokens, steps) = (count(&dream.case, "max_new_tokens"), count(&dream.case, "steps"));
        let ours = completions(&policy, &dream.prompt, &greedy(tokens, steps, position));
        assert_eq!(ours.completion_ids, ids(&dream.output), "{}", dream.case);
        for row in 0..ours.rows {
            let all = dream.steps(row).into_iter().map(|(_, wrote)| wrote);
            for (step, wrote) in all.filter(|wrote| !wrote.is_empty()).enumerate() {
                let of_step = |&j: &usize| ours.steps(row)[j] == number(step);
                let ours: Vec<usize> = (0..ours.completion_len).filter(of_step).collect();
                assert_eq!(ours, wrote, "row {row}, step {step}: {}", dream.case);
            }
        }
        compared += 1;
    }
    assert!(compared > 2, "{compared} cases in {}", folder().display());
}

/// `origin` draws positions, which no seed of ours repeats: given its states, we choose its tokens.
#[test]
fn dream_s_tokens_in_its_random_order_are_its_own_program_s() {
    let policy = policy("dream_tiny");
    let mut compared = 0;
    for dream in dream().iter().filter(|dream| dream.case["alg"] == "origin") {
        let sampler = greedy(1, 1, PositionRule::Random);
        for row in 0..dream.states[0].len() {
            let prompt = ids(&dream.prompt.get(number(row)));
            let after = dream.states.iter().map(|state| &state[row]);
            for ((before, wrote), after) in dream.steps(row).into_iter().zip(after) {
                let ids_bl =
                    Tensor::from_slice(&[prompt.as_slice(), &before].concat()).unsqueeze(0);
                let logits_lv =
                    policy.head(&policy.hidden(&ids_bl, &Queries::All).unwrap()).squeeze_dim(0);
                for position in wrote {
                    let logits_v = logits_lv.get(number(prompt.len() + position));
                    let logits: Vec<f32> = logits_v.to_kind(Kind::Float).try_into().unwrap();
                    let mask = usize::try_from(dream.mask()).unwrap();
                    let (token, ..) = choose(&logits, &sampler, mask, 0.5).unwrap();
                    assert_eq!(number(token), after[position], "{}", dream.case);
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 0, "no case in {}", folder().display());
}

/// SDAR's checkpoint with the blocks and the end that a case asks for.
fn sdar(case: &Value) -> Policy {
    agrpo_compute::use_one_thread();
    let path = folder().join("sdar_tiny/config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    config["block_size"] = case["block_length"].clone();
    if let Some(stop) = case["stop_ids"].get(0) {
        config["eos_token_id"] = stop.clone();
    }
    let mut files = checkpoint("sdar_tiny");
    files.insert("config.json".into(), serde_json::to_vec(&config).unwrap().into());
    Policy::from_folder(&files).unwrap()
}

/// The published program goes on to the end of the last block, so that is where our completion ends.
fn sampler_of(case: &Value, prompt_tokens: usize) -> Sampler {
    let tokens = count(case, "output_length") - u32::try_from(prompt_tokens).unwrap();
    let block = count(case, "block_length");
    let threshold = case["threshold"].as_f64().and_then(Real::new);
    let steps = match threshold {
        Some(_) => tokens,
        None => count(case, "denoising_steps") * (tokens / block),
    };
    let position = match case["remasking"].as_str().unwrap() {
        "sequential" => PositionRule::LeftToRight,
        "low_confidence_static" | "low_confidence_dynamic" => PositionRule::LowConfidence,
        other => panic!("{other} is no order"),
    };
    let plain = Sampler { block_tokens: block, threshold, ..greedy(tokens, steps, position) };
    match count(case, "top_k") {
        0 => plain,
        // Of one kept token every draw is certain, and so is every confidence.
        top_k => Sampler { top_k, temperature: Real::new(1.0).unwrap(), ..plain },
    }
}

/// In every order, with thresholds and without, in blocks of two lengths; and the block before each pass, though ours
/// computes whole sequences and the published program keeps keys and values. Behind an end ours are ends, where the
/// published program leaves masks. Where a step writes more tokens than are masked, that program writes over the prompt
/// (case 1): ours is compared up to the end of that block, and from there on after what that program made of it.
#[test]
fn sdar_s_completions_are_its_own_program_s() {
    let all = tensors("sdar_tiny/expected.safetensors");
    let mut seen = std::collections::BTreeSet::new();
    for case in cases("sdar_tiny/generate_cases.json") {
        let tensor = |name: &str| &all[&format!("generate.{}.{name}", case["case"])];
        let (policy, prompt) = (sdar(&case), ids(tensor("prompt")));
        let states: Vec<Vec<i64>> = (0..tensor("block_states").size()[0])
            .map(|n| ids(&tensor("block_states").get(n)))
            .collect();
        let mut output = ids(tensor("output"));
        output.truncate(output.len() - count(&case, "masks_left") as usize);
        let sampler = sampler_of(&case, prompt.len());
        let ours = sampled(&policy, &prompt, &sampler);
        let block = sampler.block_tokens as usize;
        if output[..prompt.len()] == prompt {
            compare(&ours, (&output, &states), block, &case);
            assert_eq!(ours.sampled_steps(0), count(&case, "denoising_passes"), "{case}");
            let behind = &ours.completion(0)[output.len() - prompt.len()..];
            assert!(behind.iter().all(|&id| id == policy.config().eos_token_id), "{case}");
        } else {
            let first = prompt.len().next_multiple_of(block);
            let begun = ours.steps(0)[..first - prompt.len()].iter().max().unwrap() + 1;
            let (begun_states, later) = states.split_at(usize::try_from(begun).unwrap());
            let begun_output = [&prompt, &output[prompt.len()..first]].concat();
            compare(&ours, (&begun_output, begun_states), block, &case);
            let ours = sampled(&policy, &output[..first], &sampler_of(&case, first));
            compare(&ours, (&output, later), block, &case);
        }
        seen.insert((sampler.position.name(), sampler.threshold.is_some(), sampler.block_tokens));
    }
    assert!(seen.len() > 3, "cases of all kinds in {}: {seen:?}", folder().display());
}

fn sampled(policy: &Policy, prompt: &[i64], sampler: &Sampler) -> Trajectories {
    completions(policy, &Tensor::from_slice(prompt).unsqueeze(0), sampler)
}

/// Compares tokens with the output's, as far as it goes, and the block before each pass.
fn compare(
    ours: &Trajectories,
    (output, states): (&[i64], &[Vec<i64>]),
    block: usize,
    case: &Value,
) {
    let begin = ours.prompt_len;
    for (pass, expected) in (0..).zip(states) {
        let position = ours.steps(0).iter().position(|&step| step == pass).unwrap();
        let first = (begin + position) / block * block;
        let state = ours.state(0, pass, count(case, "mask_token_id").into());
        assert_eq!(state[first..first + block], *expected, "pass {pass}: {case}");
    }
    assert_eq!(ours.completion(0)[..output.len() - begin], output[begin..], "{case}");
}

#[test]
fn llada_moe_s_completions_are_those_of_llada_s_own_program() {
    let (policy, all) = (policy("llada_moe_tiny"), tensors("llada_moe_tiny/expected.safetensors"));
    let mut compared = 0;
    for case in cases("llada_moe_tiny/generate_cases.json") {
        let tensor = |name: &str| &all[&format!("generate.{}.{name}", case["case"])];
        let tokens = count(&case, "gen_length");
        let sampler = Sampler {
            block_tokens: count(&case, "block_length"),
            ..greedy(tokens, count(&case, "steps"), PositionRule::LowConfidence)
        };
        let prompt = tensor("prompt");
        let ours = completions(&policy, prompt, &sampler);
        let output = tensor("output").narrow(1, prompt.size()[1], tokens.into());
        assert_eq!(ours.completion_ids, ids(&output), "{case}");
        compared += 1;
    }
    assert!(compared > 0, "no case in {}", folder().display());
}
