//! The section `[reward]`: how completions are rewarded.
//!
//! Built-in tasks have their own graders and accept weights only. A dataset task is graded by rules, a program, or
//! both. Grades nothing.

use std::collections::BTreeMap;

use bincode::{enc::Encoder, error::EncodeError};
use serde::{Deserialize, Serialize};

use crate::digest::{ArtifactDigest, Real};

/// The reward of a completion: a weighted sum of parts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardConfig {
    /// Weight by part; a part without one counts 0. Without any weights, `correct` counts 1; of a dataset, every part.
    pub weights: BTreeMap<String, Real>,
    /// Parts that a rule grades, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, Rule>,
    /// The reward program and its arguments; empty without one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The files of the folder in which the program runs, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, ArtifactDigest>,
    /// Seconds to wait for the answer to a row; 10 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<Real>,
    /// Address space of the program in MiB; 4096 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
}

/// One rule, each worth 0 or 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bincode::Encode)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Rule {
    /// The completion equals the answer, apart from spaces around both.
    Exact {
        /// Whether upper and lower case are the same.
        #[serde(default)]
        ignore_case: bool,
    },
    /// The completion's last number equals the answer's.
    Numeric {
        /// The largest difference allowed.
        #[serde(default)]
        tolerance: Real,
    },
    /// A regular expression matches somewhere in the completion.
    Regex {
        /// The expression, of Rust's regex crate.
        pattern: String,
        /// Whether the match (its first group, if it has one) must equal the answer.
        #[serde(default)]
        is_answer: bool,
    },
    /// The completion's last box has the answer's mathematical value.
    Boxed {},
}

impl Rule {
    /// Whether the rule compares with an answer.
    pub fn needs_answer(&self) -> bool {
        !matches!(self, Self::Regex { is_answer: false, .. })
    }
}

/// The name of the part for a program that answers with one number.
pub const PROGRAM_PART: &str = "program";

/// Whether a part of a grade may have this name: 1 to 32 letters, digits or `_`.
pub fn is_part_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=32).contains(&name.len()) && name.chars().all(is_plain)
}

/// A reward program: a command in a folder of exactly these files.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The folder's files, by name.
    pub files: BTreeMap<String, ArtifactDigest>,
    /// Seconds of wall time for a row.
    pub timeout_seconds: f64,
    /// Address space in bytes.
    pub memory: u64,
}

impl RewardConfig {
    /// The reward program, if there is one.
    pub fn program(&self) -> Option<Program> {
        (!self.command.is_empty()).then(|| Program {
            command: self.command.clone(),
            files: self.files.clone(),
            timeout_seconds: self.timeout_seconds.map_or(10.0, Real::get),
            memory: u64::from(self.memory_mib.unwrap_or(4096)) << 20,
        })
    }

    /// Whether the section has rules or a program.
    pub fn grades(&self) -> bool {
        let Self { weights: _, rules, command, files, timeout_seconds, memory_mib } = self;
        let is_bare = rules.is_empty() && command.is_empty() && files.is_empty();
        !is_bare || timeout_seconds.is_some() || memory_mib.is_some()
    }
}

/// Weights alone have the encoding from before there were rules. Otherwise a length that no map has and the other
/// fields come first.
impl bincode::Encode for RewardConfig {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let Self { weights, rules, command, files, timeout_seconds, memory_mib } = self;
        if self.grades() {
            u64::MAX.encode(encoder)?;
            (rules, command, files, timeout_seconds, memory_mib).encode(encoder)?;
        }
        weights.encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::encode;

    fn one() -> Real {
        Real::new(1.0).unwrap()
    }

    /// Runs and stages from before there were rules keep their names.
    #[test]
    fn weights_alone_are_encoded_as_a_map() {
        let weights = BTreeMap::from([("correct".to_owned(), one())]);
        let config = RewardConfig { weights: weights.clone(), ..RewardConfig::default() };
        assert_eq!(encode(&config), encode(&weights));
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(json, r#"{"weights":{"correct":1.0}}"#);
    }

    #[test]
    fn every_key_reaches_the_name() {
        let bare = RewardConfig::default();
        let digest = ArtifactDigest::of(b"print()");
        let others = [
            RewardConfig { rules: [("a".into(), Rule::Boxed {})].into(), ..bare.clone() },
            RewardConfig {
                rules: [("a".into(), Rule::Exact { ignore_case: false })].into(),
                ..bare.clone()
            },
            RewardConfig { command: vec!["x".into()], ..bare.clone() },
            RewardConfig { files: [("x".into(), digest)].into(), ..bare.clone() },
            RewardConfig { timeout_seconds: Some(one()), ..bare.clone() },
            RewardConfig { memory_mib: Some(64), ..bare.clone() },
        ];
        let names: std::collections::BTreeSet<_> = others.iter().map(encode).collect();
        assert_eq!(names.len(), others.len());
        assert!(!names.contains(&encode(&bare)));
    }
}
