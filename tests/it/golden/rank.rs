//! Which positions d1's `generate` writes: it draws tokens at a temperature and ranks positions by the model's own
//! softmax. Given its states, logits and drawn tokens, `confidence = "model"` ranks alike.

use agrpo_compute::model::{Policy, Queries};
use agrpo_compute::sampler::{Drawn, Ranked, rank};
use agrpo_spec::{Cache, Confidence, Family, PositionRule, Real, Sampler};
use serde_json::Value;
use tch::{Kind, Tensor};

use super::{cases, count, floats, folder, ids, policy, tensors};

fn sampler(case: &Value, confidence: Confidence) -> Sampler {
    let real = |value| Real::new(value).unwrap();
    Sampler {
        completion_tokens: count(case, "C"),
        block_tokens: count(case, "block_length"),
        steps: count(case, "steps"),
        temperature: real(case["temperature"].as_f64().unwrap()),
        top_k: 0,
        top_p: real(1.0),
        position: PositionRule::LowConfidence,
        confidence,
        guidance: real(0.0),
        cache: Cache::None,
        threshold: None,
    }
}

/// A row at one pass.
struct Pass {
    step_of_block: usize,
    masked: Vec<usize>,
    /// Of the completion, C x V.
    logits: Vec<Vec<f32>>,
    drawn: Vec<i64>,
    confidence: Vec<f64>,
    written: Vec<usize>,
}

impl Pass {
    fn rank(&self, case: &Value, confidence: Confidence) -> Ranked {
        let drawn = |&position: &usize| Drawn {
            position,
            logits: &self.logits[position],
            token: usize::try_from(self.drawn[position]).unwrap(),
        };
        let drawn: Vec<_> = self.masked.iter().map(drawn).collect();
        let mask = count(case, "mask_token_id") as usize;
        let sampler = sampler(case, confidence);
        rank((&sampler, Family::Llada), mask, self.step_of_block, &drawn).unwrap()
    }
}

/// The positions that are written, ascending.
fn written(ranked: &Ranked) -> Vec<usize> {
    let mut all: Vec<usize> = ranked.all[..ranked.written].iter().map(|(at, _)| *at).collect();
    all.sort_unstable();
    all
}

/// The logits of every position of the completion, B x C x V: stored, or computed from the states.
fn logits(policy: &Policy, case: &Value, prompts: &Tensor, states: &Tensor) -> Tensor {
    let all = Tensor::cat(&[prompts, states], 1);
    let hidden = policy.hidden(&all, &Queries::All).unwrap();
    let logits = policy.head(&hidden);
    let (p, c) = (count(case, "P"), count(case, "C"));
    logits.narrow(1, p.into(), c.into())
}

fn passes(case: &Value, policy: &Policy) -> Vec<Pass> {
    let all = tensors("rivals/rank.safetensors");
    let of = |name: &str| all.get(&format!("rank.{}.{name}", case["case"]));
    let [states, drawn, confidence, written] =
        ["states", "drawn", "confidence", "written"].map(|name| of(name).unwrap());
    let (block, steps) = (count(case, "block_length"), count(case, "steps_per_block"));
    let mask = i64::from(count(case, "mask_token_id"));
    let mut passes = vec![];
    for s in 0..count(case, "forward_passes") {
        let at = |tensor: &Tensor| tensor.get(s.into());
        let of_pass = match of("logits") {
            Some(logits) => at(logits),
            None => logits(policy, case, of("prompt_ids").unwrap(), &at(states)),
        };
        let end = ((s / steps + 1) * block) as usize;
        for row in 0..i64::from(count(case, "B")) {
            let state = ids(&at(states).get(row));
            let v = usize::try_from(*of_pass.size().last().unwrap()).unwrap();
            let logits: Vec<f32> =
                of_pass.get(row).to_kind(Kind::Float).flatten(0, -1).try_into().unwrap();
            let chosen = ids(&at(written).get(row).to_kind(Kind::Int64));
            passes.push(Pass {
                step_of_block: (s % steps) as usize,
                masked: (0..end).filter(|&position| state[position] == mask).collect(),
                logits: logits.chunks(v).map(<[f32]>::to_vec).collect(),
                drawn: ids(&at(drawn).get(row)),
                confidence: floats(&at(confidence).get(row)),
                written: (0..chosen.len()).filter(|&position| chosen[position] == 1).collect(),
            });
        }
    }
    passes
}

#[test]
fn positions_are_ranked_as_d1_ranks_them() {
    let policy = policy();
    let mut compared = 0;
    for case in cases("rivals/rank_cases.json") {
        let (mut others, mut largest) = (0, 0.0f64);
        for pass in passes(&case, &policy) {
            let ranked = pass.rank(&case, Confidence::Model);
            assert_eq!(written(&ranked), pass.written, "{case}");
            assert!(!pass.written.is_empty(), "{case}");
            for (position, score) in &ranked.all {
                largest = largest.max((score.exp() - pass.confidence[*position]).abs());
            }
            let by_sampling = pass.rank(&case, Confidence::Sampling);
            others += u32::from(written(&by_sampling) != pass.written);
            compared += 1;
        }
        assert!(largest < 1e-5, "confidences differ by {largest}: {case}");
        assert_eq!(others, count(&case, "row_steps_where_tempered_ranking_would_differ"), "{case}");
    }
    assert!(compared > 0, "no case in {}", folder().display());
}
