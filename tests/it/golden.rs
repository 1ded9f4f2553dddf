//! Fidelity: the model, the sampler and the estimator against the tensors of the reference
//! implementations (`tests/golden/`, or the folder that `AGRPO_GOLDEN` names).
//!
//! Here: logits, greedy completions, and the uniform AGRPO case. Cases with classifier-free guidance,
//! importance weights or a KL term wait for those features.

use std::collections::BTreeMap;
use std::path::PathBuf;

use agrpo_spec::{PositionRule, Real, Sampler, Seed};
use agrpo_stages::estimator::agrpo::{Measured, Surrogate, passes};
use agrpo_stages::estimator::timesteps::Timesteps;
use agrpo_stages::model::{Policy, Queries};
use agrpo_stages::sampler::{Row, sample};
use agrpo_stages::trajectories::{KeptSets, Trajectories};
use serde_json::Value;
use tch::{Kind, Tensor};

fn folder() -> PathBuf {
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    std::env::vars_os()
        .find(|(name, _)| name == "AGRPO_GOLDEN")
        .map_or_else(|| ours.into(), |(_, path)| path.into())
}

fn tensors(path: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(folder().join(path)).unwrap().into_iter().collect()
}

fn cases(path: &str) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(folder().join(path)).unwrap()).unwrap()
}

fn policy() -> Policy {
    agrpo_stages::use_one_thread();
    let files = std::fs::read_dir(folder().join("llada_tiny")).unwrap();
    let mut model = BTreeMap::new();
    for path in files.map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "config.json" || name.starts_with("model") && name.ends_with(".safetensors") {
            model.insert(name, std::fs::read(path).unwrap().into());
        }
    }
    Policy::from_folder(&model).unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    tensor.to_kind(Kind::Double).flatten(0, -1).try_into().unwrap()
}

fn ids(tensor: &Tensor) -> Vec<i64> {
    tensor.flatten(0, -1).try_into().unwrap()
}

fn count(case: &Value, name: &str) -> u32 {
    u32::try_from(case[name].as_u64().unwrap()).unwrap()
}

#[test]
fn logits_are_the_reference_s() {
    let expected = tensors("llada_tiny/expected.safetensors");
    let policy = policy();
    let hidden = policy.hidden(&expected["forward.input_ids"], &Queries::All).unwrap();
    let logits = policy.head(&hidden);
    let worst = (&logits - &expected["forward.logits"]).abs().max().double_value(&[]);
    assert!(worst < 1e-4, "largest difference {worst}");
}

/// What the last block and the head leave out must not change what they compute.
#[test]
fn queried_positions_are_those_of_the_whole_pass() {
    let input = &tensors("llada_tiny/expected.safetensors")["forward.input_ids"];
    let policy = policy();
    let whole = policy.hidden(input, &Queries::All).unwrap();
    let range = policy.hidden(input, &Queries::Range { start: 7, len: 9 }).unwrap();
    let rows = input.size()[0];
    let at = Tensor::from_slice(&[3i64, 39, 0]).expand([rows, 3], false).contiguous();
    let picked = policy.hidden(input, &Queries::At(&at)).unwrap();
    let close = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]) < 1e-5;
    assert!(close(&range, &whole.narrow(1, 7, 9)));
    assert!(close(&picked, &whole.index_select(1, &Tensor::from_slice(&[3i64, 39, 0]))));
}

#[test]
fn greedy_completions_are_the_reference_s_token_for_token() {
    let expected = tensors("llada_tiny/expected.safetensors");
    let policy = policy();
    let mut compared = 0;
    for case in cases("llada_tiny/generate_cases.json") {
        if case["cfg_scale"].as_f64() != Some(0.0) {
            continue;
        }
        let number = &case["case"];
        let prompt = &expected[&format!("generate.{number}.prompt")];
        let sampler = Sampler {
            completion_tokens: count(&case, "gen_length"),
            block_tokens: count(&case, "block_length"),
            steps: count(&case, "steps"),
            temperature: Real::new(0.0).unwrap(),
            top_k: 0,
            top_p: Real::new(1.0).unwrap(),
            position: PositionRule::LowConfidence,
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
    assert!(compared > 0, "no case without guidance in {}", folder().display());
}

#[test]
fn loss_and_gradient_are_the_reference_s() {
    let all = tensors("agrpo_gradient/agrpo_gradient.safetensors");
    let policy = policy();
    let mut compared = 0;
    for case in cases("agrpo_gradient/agrpo_gradient_cases.json") {
        if case["iw"] != "uniform" || case["beta"].as_f64() != Some(0.0) {
            continue;
        }
        let get = |name: &str| &all[&format!("{}.{name}", case["case"])];
        let trajectories = trajectories(&get);
        let rows: Vec<usize> = (0..trajectories.rows).collect();
        let k = count(&case, "k") as usize;
        let steps = ids(get("mc_steps"));
        let timesteps = Timesteps { k, weights: vec![1.0; steps.len()], steps };
        let surrogate = Surrogate {
            clip_low: case["eps_low"].as_f64().unwrap(),
            clip_high: case["eps_high"].as_f64().unwrap(),
            temperature: case["temp"].as_f64().unwrap(),
        };
        let advantages = floats(get("advantages"));
        let mask = policy.config().mask_token_id;
        let scale = 1.0 / f64::from(count(&case, "k") * count(&case, "group_size"));
        policy.require_grad();
        policy.zero_grad();
        let mut total = Measured::default();
        for pass in passes(&trajectories, &rows, &advantages, &timesteps, mask, 8) {
            let (loss, measured) = pass.loss(&policy, surrogate, scale).unwrap();
            loss.backward();
            total.add(&measured);
        }
        let loss = case["loss"].as_f64().unwrap();
        assert!((total.loss - loss).abs() < 1e-5 * loss.abs(), "{} against {loss}", total.loss);
        for (name, ours) in policy.gradients() {
            let theirs = get(&format!("grad.{name}"));
            let norm = |t: &Tensor| t.to_kind(Kind::Double).norm().double_value(&[]);
            let error = norm(&(&ours - theirs));
            assert!(error < 1e-4 * norm(theirs), "{name}: {error} of {}", norm(theirs));
        }
        compared += 1;
    }
    assert!(compared > 0, "no uniform case without KL in {}", folder().display());
}

fn trajectories<'a>(get: &impl Fn(&str) -> &'a Tensor) -> Trajectories {
    let (prompts, completions) = (get("prompt_ids"), get("completion_ids"));
    let length = |t: &Tensor, dim: usize| usize::try_from(t.size()[dim]).unwrap();
    let kept_tokens = get("kept_tokens");
    let vocabulary = length(kept_tokens, 2);
    let mut kept = KeptSets { offsets: vec![0], ids: vec![] };
    for row in floats(kept_tokens).chunks(vocabulary) {
        let set = (0i64..).zip(row).filter(|&(_, &is_kept)| is_kept == 1.0);
        kept.ids.extend(set.map(|(id, _)| id));
        kept.offsets.push(i64::try_from(kept.ids.len()).unwrap());
    }
    #[expect(clippy::cast_possible_truncation, reason = "they were f32")]
    let singles = |t: &Tensor| floats(t).into_iter().map(|x| x as f32).collect::<Vec<_>>();
    Trajectories {
        rows: length(prompts, 0),
        prompt_len: length(prompts, 1),
        completion_len: length(completions, 1),
        prompt_ids: ids(prompts),
        completion_ids: ids(completions),
        unmask_steps: ids(get("unmask_steps")),
        token_logps: singles(get("old_token_logps")),
        token_entropies: singles(get("token_entropies")),
        kept: Some(kept),
    }
}
