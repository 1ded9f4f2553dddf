//! The result of an evaluation stage: one JSON document. Those of shards are joined in
//! `evaluation_shards.rs`.
//!
//! Its bytes are named by digest, so the order of the fields is part of the format: by name, as in a map.

use serde::{Deserialize, Serialize};

use crate::{digest::Real, run::PositionRule};

/// The result of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Held-out problems that were asked; in the document of a shard, its own.
    pub problems: u32,
    /// By sampler, in the order of the spec.
    pub results: Vec<EvaluationResult>,
    /// Completions of the first problems by the first sampler.
    #[serde(default)]
    pub samples: Vec<EvaluationSample>,
}

/// A sampler's results. Stages always write the optional fields, but that `completion_tokens` and `points` are
/// for some evaluations only; readers accept a document without them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationResult {
    /// The share of completions that are right, or of the points if a task gives partial points.
    pub accuracy: f64,
    /// Tokens of a completion, where the evaluation's samplers write completions of several lengths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_tokens: Option<u32>,
    /// Completions that are right.
    pub correct: u64,
    /// What `accuracy` is the quotient of. Only in the document of a shard: the accuracy of the whole is that of the sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points: Option<Points>,
    /// Which positions a step unmasked.
    pub position: Option<PositionRule>,
    /// Completions of a problem.
    pub samples: Option<u64>,
    /// `solved_by[c]` problems have c right completions.
    pub solved_by: Vec<u64>,
    /// Unmask steps.
    pub steps: u32,
    /// The sampler's temperature.
    pub temperature: Option<Real>,
}

/// Points of completions: one for each, or one for each part of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Points {
    /// Points of what is right.
    pub earned: f64,
    /// Points if everything were right.
    pub possible: f64,
}

/// A completion that an evaluation kept to be shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationSample {
    /// The completion as text.
    pub completion: String,
    /// Whether it is right.
    pub correct: bool,
    /// The prompt as text.
    pub prompt: String,
}

impl EvaluationResult {
    /// What tells the sampler from the others of its evaluation: `64` unmask steps or, where lengths differ, `128x64`.
    pub fn label(&self) -> String {
        let Self { completion_tokens, steps, .. } = self;
        let tokens = completion_tokens.map(|tokens| format!("{tokens}x")).unwrap_or_default();
        format!("{tokens}{steps}")
    }
}

impl Evaluation {
    /// The document's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("numbers and strings serialise")
    }

    /// Reads a document. Error if the bytes are another document, or not JSON.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_written_in_the_order_of_a_map() {
        let result = EvaluationResult {
            accuracy: 2.0 / 3.0,
            completion_tokens: None,
            correct: 4,
            points: None,
            position: Some(PositionRule::LowConfidence),
            samples: Some(2),
            solved_by: vec![1, 0, 2],
            steps: 8,
            temperature: Real::new(0.0),
        };
        let sample = EvaluationSample {
            completion: "4\n\u{e9}".to_owned(),
            correct: true,
            prompt: "2 + 2".to_owned(),
        };
        let of_length = EvaluationResult { completion_tokens: Some(16), ..result.clone() };
        assert_eq!([result.label(), of_length.label()], ["8", "16x8"]);
        let results = vec![result, of_length];
        let all = Evaluation { problems: 3, results, samples: vec![sample] };
        let map = json!({
            "problems": 3u32,
            "results": [{
                "steps": 8u32,
                "temperature": Real::new(0.0),
                "position": PositionRule::LowConfidence,
                "samples": 2usize,
                "correct": 4usize,
                "accuracy": 2.0 / 3.0,
                "solved_by": [1u32, 0, 2],
            }, {
                "steps": 8u32,
                "completion_tokens": 16u32,
                "temperature": Real::new(0.0),
                "position": PositionRule::LowConfidence,
                "samples": 2usize,
                "correct": 4usize,
                "accuracy": 2.0 / 3.0,
                "solved_by": [1u32, 0, 2],
            }],
            "samples": [{ "prompt": "2 + 2", "completion": "4\n\u{e9}", "correct": true }],
        });
        assert_eq!(all.to_bytes(), serde_json::to_vec_pretty(&map).unwrap());
        assert_eq!(Evaluation::from_bytes(&all.to_bytes()).unwrap(), all);
    }
}
