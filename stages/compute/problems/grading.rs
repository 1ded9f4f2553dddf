//! The rewards of completions: by the task's own grade, or by a dataset's rules and reward program.
//!
//! Starts no program: the stage's [`Scorer`] does. A part that is missing, or there twice, is an error.

use std::collections::BTreeMap;

use agrpo_grading::Rules;
use agrpo_spec::{Inputs, Program, RewardConfig, Sample, Score, Scorer, StageError};
use bytes::Bytes;

use crate::error::{Result, data, internal, invalid};
use crate::tasks::Grade;

/// A completion's reward, before it is compared with others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Graded {
    pub(crate) parts: BTreeMap<String, f64>,
    /// Their weighted sum.
    pub(crate) reward: f64,
    pub(crate) correct: bool,
}

impl Graded {
    /// The grade of a task that grades by itself.
    pub(super) fn of(grade: &Grade, config: &RewardConfig) -> Result<Self> {
        let reward = if config.weights.is_empty() {
            grade.reward
        } else {
            let part = |name: &String| {
                let part = grade.parts.get(name.as_str());
                part.ok_or_else(|| data(format!("the task grades no part {name:?}")))
            };
            let add = |sum, (name, weight): (&String, &agrpo_spec::Real)| {
                Ok::<_, StageError>(sum + weight.get() * part(name)?)
            };
            config.weights.iter().try_fold(0.0, add)?
        };
        let parts = grade.parts.iter().map(|(&name, &value)| (name.to_owned(), value)).collect();
        Ok(Self { parts, reward, correct: grade.correct })
    }
}

/// Grades a dataset's completions by its `[reward]`.
#[derive(Debug)]
pub(crate) struct Grader<'a> {
    config: RewardConfig,
    rules: Rules,
    program: Option<(Program, BTreeMap<String, Bytes>)>,
    scorer: &'a dyn Scorer,
}

impl<'a> Grader<'a> {
    /// Reads the patterns and the program's files.
    pub(crate) fn open(
        config: &RewardConfig,
        inputs: &Inputs,
        scorer: &'a dyn Scorer,
    ) -> Result<Self> {
        let program = config.program().map(|program| {
            let file = |(name, digest): (&String, &agrpo_spec::ArtifactDigest)| {
                Ok((name.clone(), inputs.blob(*digest)?.clone()))
            };
            let files = program.files.iter().map(file).collect::<Result<_>>()?;
            Ok::<_, StageError>((program, files))
        });
        Ok(Self {
            rules: Rules::new(&config.rules).map_err(invalid)?,
            program: program.transpose()?,
            config: config.clone(),
            scorer,
        })
    }

    /// The weights of the parts.
    pub(super) fn config(&self) -> &RewardConfig {
        &self.config
    }

    /// One grade for each sample, in order.
    pub(crate) fn grade(&self, samples: &[Sample]) -> Result<Vec<Graded>> {
        let scores = match &self.program {
            Some((program, files)) => self.scorer.score(program, files, samples)?,
            None => vec![Score::default(); samples.len()],
        };
        if scores.len() != samples.len() {
            let (found, wanted) = (scores.len(), samples.len());
            return Err(internal(format!("{found} scores for {wanted} completions")));
        }
        samples.iter().zip(scores).map(|(sample, score)| self.combined(sample, score)).collect()
    }

    fn combined(&self, sample: &Sample, score: Score) -> Result<Graded> {
        let mut parts = self.rules.grade(&sample.completion, sample.answer.as_deref());
        for (name, value) in score.parts {
            if parts.insert(name.clone(), value).is_some() {
                return Err(invalid(format!(
                    "reward.command answered the part {name:?} for {}, which is also one of reward.rules: \
                     expected different names",
                    sample.place
                )));
            }
        }
        let weights = &self.config.weights;
        if let Some(name) = weights.keys().find(|name| !parts.contains_key(*name)) {
            let names: Vec<_> = parts.keys().map(String::as_str).collect();
            return Err(invalid(format!(
                "reward.weights names the part {name:?}, and what was graded for {} is {}",
                sample.place,
                names.join(", ")
            )));
        }
        let weight = |name: &String| match weights.get(name) {
            Some(weight) => weight.get(),
            None if weights.is_empty() => 1.0,
            None => 0.0,
        };
        let reward: f64 = parts.iter().map(|(name, value)| weight(name) * value).sum();
        if !reward.is_finite() {
            return Err(invalid(format!(
                "the reward for {} is {reward}: expected parts and weights whose sum is finite",
                sample.place
            )));
        }
        let is_full = || parts.iter().all(|(name, &value)| weight(name) == 0.0 || value >= 1.0);
        let correct = score.correct.unwrap_or_else(is_full);
        Ok(Graded { parts, reward, correct })
    }
}

/// The scorer of a process that runs no programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoPrograms;

impl Scorer for NoPrograms {
    fn score(&self, _: &Program, _: &BTreeMap<String, Bytes>, _: &[Sample]) -> Result<Vec<Score>> {
        Err(internal("nothing was handed to this stage that runs programs"))
    }
}

#[cfg(test)]
mod tests {
    use agrpo_spec::{Real, Rule};

    use super::*;

    /// Answers every sample alike.
    #[derive(Debug)]
    struct Fixed(Score);

    impl Scorer for Fixed {
        fn score(
            &self,
            _: &Program,
            _: &BTreeMap<String, Bytes>,
            samples: &[Sample],
        ) -> Result<Vec<Score>, StageError> {
            Ok(vec![self.0.clone(); samples.len()])
        }
    }

    fn graded(config: &RewardConfig, score: Score, completion: &str) -> Result<Graded, String> {
        let scorer = Fixed(score);
        let grader = Grader::open(config, &Inputs::default(), &scorer).unwrap();
        let sample = Sample {
            id: "0/0".into(),
            place: "row 1 of task.dataset.train".into(),
            prompt: "cab".into(),
            completion: completion.into(),
            answer: Some("abc".into()),
            row: serde_json::Map::new(),
        };
        grader.grade(&[sample]).map(|mut all| all.remove(0)).map_err(|error| error.to_string())
    }

    fn config(weights: &[(&str, f64)], with_program: bool) -> RewardConfig {
        let weight = |&(name, weight): &(&str, f64)| (name.to_owned(), Real::new(weight).unwrap());
        RewardConfig {
            weights: weights.iter().map(weight).collect(),
            rules: BTreeMap::from([
                ("right".to_owned(), Rule::Exact { ignore_case: false }),
                ("form".to_owned(), Rule::Regex { pattern: "^[a-c]+$".into(), is_answer: false }),
            ]),
            command: with_program.then(|| "x".to_owned()).into_iter().collect(),
            ..RewardConfig::default()
        }
    }

    fn score(parts: &[(&str, f64)], correct: Option<bool>) -> Score {
        let parts = parts.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        Score { parts, correct }
    }

    #[test]
    fn parts_are_summed_by_their_weights() {
        let none = Score::default;
        let all = graded(&config(&[], false), none(), "abc").unwrap();
        assert_eq!((all.reward, all.correct), (2.0, true));
        let half = graded(&config(&[], false), none(), "cab").unwrap();
        assert_eq!((half.reward, half.correct), (1.0, false));
        // A part of weight 0 is graded and decides nothing.
        let light = graded(&config(&[("form", 0.25)], false), none(), "cab").unwrap();
        assert_eq!((light.reward, light.correct, light.parts.len()), (0.25, true, 2));
        let program = score(&[("program", 0.5)], None);
        let mixed = graded(&config(&[("right", 1.0), ("program", 2.0)], true), program, "abc");
        let mixed = mixed.unwrap();
        assert_eq!((mixed.reward, mixed.correct), (2.0, false));
        let said = score(&[("program", 0.5)], Some(true));
        assert!(graded(&config(&[], true), said, "x").unwrap().correct);
    }

    #[test]
    fn a_part_is_there_once() {
        let twice = graded(&config(&[], true), score(&[("form", 1.0)], None), "x").unwrap_err();
        assert!(
            twice.contains("\"form\" for row 1 of task.dataset.train, which is also"),
            "{twice}"
        );
        let missing =
            graded(&config(&[("style", 1.0)], true), score(&[("program", 1.0)], None), "x");
        let missing = missing.unwrap_err();
        assert!(
            missing.contains("\"style\"") && missing.ends_with("form, program, right"),
            "{missing}"
        );
        let large = score(&[("a", f64::MAX), ("b", f64::MAX)], None);
        let large = graded(&config(&[], true), large, "x").unwrap_err();
        assert!(large.contains("is inf"), "{large}");
    }
}
