//! Reward: grades every completion, and turns the grades of each group into advantages.
//!
//! `A_i = (r_i - mean of its group) / s`, with s = 1 as published (no division by a deviation; Liu et
//! al., "Dr. GRPO", arXiv 2503.20783), or the group's or the shard's standard deviation by choice.
//! Arithmetic in f64, no libtorch: the same on every machine.

use std::collections::BTreeMap;

use agrpo_spec::{AdvantageScale, Artifact, Inputs, Outputs, RewardSpec, StageError, encode};

use crate::error::data;
use crate::tasks;
use crate::tokenizer::{self, TaskTokenizer};
use crate::trajectories::Trajectories;

/// A completion's worth.
#[derive(Clone, Debug, PartialEq, bincode::Encode, bincode::Decode)]
pub struct RowReward {
    /// Sum of the parts.
    pub reward: f64,
    /// Whether the answer is right.
    pub correct: bool,
    /// The reward's parts, by name.
    pub parts: BTreeMap<String, f64>,
    /// The advantage over the completion's group.
    pub advantage: f64,
}

/// The worth of every row of a trajectories file, in its order. Stored as canonical bincode.
#[derive(Clone, Debug, PartialEq, bincode::Encode, bincode::Decode)]
pub struct Rewards {
    /// One a row.
    pub rows: Vec<RowReward>,
}

pub(crate) fn execute(spec: &RewardSpec, inputs: &Inputs) -> Result<Outputs, StageError> {
    let trajectories = Trajectories::from_bytes(inputs.blob(spec.trajectories)?)?;
    let tokenizer = TaskTokenizer::read(&tokenizer::build(&spec.task))?;
    let group = spec.group as usize;
    if trajectories.rows == 0 || !trajectories.rows.is_multiple_of(group) {
        let rows = trajectories.rows;
        return Err(data(format!("{rows} trajectories do not make groups of {group}")));
    }
    let mut rows = Vec::with_capacity(trajectories.rows);
    for row in 0..trajectories.rows {
        let prompt = tokenizer.text(trajectories.prompt(row))?;
        let problem = tasks::problem_from_prompt(&spec.task, &prompt)
            .ok_or_else(|| data(format!("{prompt:?} is no prompt of this task")))?;
        let completion = tokenizer.text(trajectories.completion(row))?;
        let grade = tasks::grade(&problem.question, &completion);
        let parts = grade.parts.iter().map(|(&name, &value)| (name.to_owned(), value)).collect();
        let (reward, correct) = (grade.reward, grade.correct);
        rows.push(RowReward { reward, correct, parts, advantage: 0.0 });
    }
    let rewards: Vec<f64> = rows.iter().map(|row| row.reward).collect();
    let advantages = advantages(&rewards, group, spec.advantage_scale);
    rows.iter_mut().zip(&advantages).for_each(|(row, &advantage)| row.advantage = advantage);
    let correct = rows.iter().filter(|row| row.correct).count();
    let moving = advantages.iter().filter(|&&advantage| advantage != 0.0).count();
    let metrics = BTreeMap::from([
        ("reward".into(), mean(&rewards)),
        ("correct".into(), ratio(correct, rows.len())),
        ("nonzero_advantages".into(), ratio(moving, rows.len())),
        ("completions".into(), ratio(rows.len(), 1)),
    ]);
    let artifact = Artifact::Blob(encode(&Rewards { rows }).into());
    Ok(Outputs { artifacts: BTreeMap::from([("rewards", artifact)]), metrics })
}

/// Rewards to advantages; completions of a group follow one another.
fn advantages(rewards: &[f64], group: usize, scale: AdvantageScale) -> Vec<f64> {
    let centred = rewards.chunks(group).flat_map(|group| {
        let mean = mean(group);
        group.iter().map(move |reward| reward - mean)
    });
    let centred: Vec<f64> = centred.collect();
    // A group (or shard) without spread has only zeros to divide.
    let divide = |values: &[f64]| -> Vec<f64> {
        let deviation = mean(&values.iter().map(|a| a * a).collect::<Vec<_>>()).sqrt();
        values.iter().map(|a| if deviation > 0.0 { a / deviation } else { 0.0 }).collect()
    };
    match scale {
        AdvantageScale::None => centred,
        AdvantageScale::GroupStd => centred.chunks(group).flat_map(divide).collect(),
        AdvantageScale::BatchStd => divide(&centred),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of completions are small")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() * ratio(1, values.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_compare_within_a_group() {
        let rewards = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0];
        assert_eq!(
            advantages(&rewards, 4, AdvantageScale::None),
            [0.75, -0.25, -0.25, -0.25, 0.0, 0.0, 0.0, 0.0]
        );
        let group = advantages(&rewards, 4, AdvantageScale::GroupStd);
        assert!((group[0] - 3f64.sqrt()).abs() < 1e-12 && group[4] == 0.0, "{group:?}");
        let batch = advantages(&rewards, 4, AdvantageScale::BatchStd);
        let square: f64 = batch.iter().map(|a| a * a).sum();
        assert!((square - 8.0).abs() < 1e-12, "mean square 1 over the shard: {batch:?}");
    }
}
