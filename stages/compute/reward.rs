//! Reward: grades every completion, and turns the grades of each group into advantages.
//!
//! A task grades by itself, a dataset by `problems/grading.rs`. `r_i` is the weighted sum of the grade's parts, G the
//! number of a group's completions, m the mean of their rewards:
//! ```text
//! A_i = (r_i - b_i) / s
//! b_i = m                                     "group-mean" (GRPO, Shao et al., arXiv 2402.03300)
//!       sum over j != i of r_j / (G - 1)      "leave-one-out" (RLOO, Ahmadian et al., arXiv 2402.14740;
//!                                             apple/ml-diffucoder, commit f735e01); r_i - b_i = (r_i - m) G / (G - 1)
//! s   = 1                                     "none" (Liu et al., "Dr. GRPO", arXiv 2503.20783; AGRPO, d1, d2)
//!       sqrt(mean of (r - m)^2)               "group-std", over the group; "batch-std", over the shard's counted ones
//!       sqrt(sum of (r - m)^2 / (G - 1)) + 1e-4   "group-sample-std" (TRL; LeapLabTHU/JustGRPO, commit eebe50e)
//! ```
//! A group without spread has no advantage. Arithmetic in f64, no libtorch: the same on every machine.

use std::collections::BTreeMap;

use agrpo_spec::{
    Advantage, AdvantageScale, Artifact, Baseline, Inputs, Outputs, RewardSpec, Rewards, RowReward,
    encode, metrics,
};

use crate::error::{Result, data};
use crate::problems::{Answered, Asked, Graded, Grader, Problems};
use crate::{context::Context, estimator::Worth, trajectories::Trajectories};

pub(crate) fn execute(
    spec: &RewardSpec,
    inputs: &Inputs,
    Context { problems, scorer, .. }: Context<'_>,
) -> Result<Outputs> {
    let trajectories = Trajectories::from_bytes(inputs.blob(spec.trajectories)?)?;
    let problems = problems.problems(&spec.task, spec.language, inputs)?;
    let grader = Grader::open(&spec.reward, inputs, scorer)?;
    let from = (spec.first_prompt, spec.group);
    let rewards = grade(&trajectories, from, &spec.advantage, &problems, &grader)?;
    let rows = &rewards.rows;
    let all: Vec<f64> = rows.iter().map(|row| row.reward).collect();
    let share = |counts: fn(&RowReward) -> bool| {
        ratio(rows.iter().filter(|row| counts(row)).count(), rows.len())
    };
    let mut metrics = BTreeMap::from([
        (metrics::REWARD.into(), mean(&all)),
        (metrics::CORRECT.into(), share(|row| row.correct)),
        (metrics::NONZERO_ADVANTAGES.into(), share(|row| row.advantage != 0.0)),
        (metrics::COUNTED.into(), share(|row| row.counted)),
        (metrics::COMPLETIONS.into(), ratio(rows.len(), 1)),
    ]);
    for name in rows.iter().flat_map(|row| row.parts.keys()) {
        let part = |row: &RowReward| row.parts.get(name).copied().unwrap_or(0.0);
        let key = format!("{}{name}", metrics::PART_PREFIX);
        metrics.entry(key).or_insert_with(|| mean(&rows.iter().map(part).collect::<Vec<_>>()));
    }
    let artifact = Artifact::Blob(encode(&rewards).into());
    Ok(Outputs { artifacts: BTreeMap::from([("rewards", artifact)]), metrics })
}

/// Grades every completion. The groups are those of consecutive training prompts, from `first_prompt` on.
pub(crate) fn grade(
    trajectories: &Trajectories,
    (first_prompt, group): (u64, u32),
    advantage: &Advantage,
    problems: &Problems,
    grader: &Grader<'_>,
) -> Result<Rewards> {
    let group = group as usize;
    if trajectories.rows == 0 || !trajectories.rows.is_multiple_of(group) {
        let rows = trajectories.rows;
        return Err(data(format!("{rows} trajectories do not make groups of {group}")));
    }
    let numbers = (first_prompt..).zip((0..trajectories.rows).step_by(group));
    let asked: Vec<Asked> =
        numbers.clone().map(|(number, _)| problems.training(number)).collect::<Result<_, _>>()?;
    let mut answered = Vec::with_capacity(trajectories.rows);
    for ((number, first), asked) in numbers.zip(&asked) {
        for row in first..first + group {
            if !asked.is_stated_by(trajectories.prompt(row)) {
                return Err(data(format!(
                    "sample {row} was not asked training problem {number} of this task"
                )));
            }
            let id = format!("{number}/{}", row - first);
            answered.push(Answered { id, asked, completion: trajectories.completion(row) });
        }
    }
    let graded = problems.grade(&answered, grader)?;
    let rewards: Vec<f64> = graded.iter().map(|graded| graded.reward).collect();
    let row = |(Graded { parts, reward, correct }, Worth { advantage, counted })| RowReward {
        reward,
        correct,
        parts,
        advantage,
        counted,
    };
    let rows = graded.into_iter().zip(worths(&rewards, group, advantage)).map(row);
    Ok(Rewards { rows: rows.collect() })
}

/// The worth of each completion to an estimator; completions of a group follow one another.
fn worths(rewards: &[f64], group: usize, config: &Advantage) -> Vec<Worth> {
    let spread = rewards.chunks(group).flat_map(|group| {
        let counted = !config.filter_groups || !is_flat(group);
        group.iter().map(move |_| counted)
    });
    let counted: Vec<bool> = spread.collect();
    let advantages = advantages(rewards, &counted, group, config);
    let worth = |(advantage, counted)| Worth { advantage, counted };
    advantages.into_iter().zip(counted).map(worth).collect()
}

/// Whether all rewards of a group are equal, so that a policy learns nothing from it.
fn is_flat(group: &[f64]) -> bool {
    group.iter().all(|reward| *reward == group[0])
}

/// Rewards to advantages. The shard's deviation is that of the completions that are counted.
fn advantages(rewards: &[f64], counted: &[bool], group: usize, config: &Advantage) -> Vec<f64> {
    let centred = rewards.chunks(group).flat_map(|group| {
        // The mean of equal numbers can differ from them in the last bit.
        let mean = if is_flat(group) { group[0] } else { mean(group) };
        group.iter().map(move |reward| reward - mean)
    });
    let centred: Vec<f64> = centred.collect();
    // A group (or shard) without spread has only zeros to divide.
    let deviation = |squares: &[f64]| {
        if squares.is_empty() { 0.0 } else { mean(squares).sqrt() }
    };
    let divide = |values: &[f64], deviation: f64| -> Vec<f64> {
        values.iter().map(|a| if deviation > 0.0 { a / deviation } else { 0.0 }).collect()
    };
    let squares = |values: &[f64]| values.iter().map(|a| a * a).collect::<Vec<_>>();
    let of_group = |values: &[f64]| divide(values, deviation(&squares(values)));
    let others = ratio(group.saturating_sub(1).max(1), 1);
    let of_sample = |values: &[f64]| {
        divide(values, (squares(values).iter().sum::<f64>() / others).sqrt() + 1e-4)
    };
    let mut scaled: Vec<f64> = match config.scale {
        AdvantageScale::None => centred,
        AdvantageScale::GroupStd => centred.chunks(group).flat_map(of_group).collect(),
        AdvantageScale::GroupSampleStd => centred.chunks(group).flat_map(of_sample).collect(),
        AdvantageScale::BatchStd => {
            let of_counted = centred.iter().zip(counted).filter(|&(_, counted)| *counted);
            let squares: Vec<f64> = of_counted.map(|(a, _)| a * a).collect();
            divide(&centred, deviation(&squares))
        }
    };
    if config.baseline == Baseline::LeaveOneOut {
        let factor = ratio(group, 1) / others;
        scaled.iter_mut().for_each(|advantage| *advantage *= factor);
    }
    scaled
}

fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() * ratio(1, values.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(baseline: Baseline, scale: AdvantageScale) -> Advantage {
        Advantage { baseline, scale, filter_groups: false }
    }

    #[test]
    fn advantages_compare_within_a_group() {
        let rewards = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0];
        let of = |baseline, scale| advantages(&rewards, &[true; 8], 4, &config(baseline, scale));
        assert_eq!(
            of(Baseline::GroupMean, AdvantageScale::None),
            [0.75, -0.25, -0.25, -0.25, 0.0, 0.0, 0.0, 0.0]
        );
        let third = -1.0 / 3.0;
        assert_eq!(
            of(Baseline::LeaveOneOut, AdvantageScale::None),
            [1.0, third, third, third, 0.0, 0.0, 0.0, 0.0]
        );
        let group = of(Baseline::GroupMean, AdvantageScale::GroupStd);
        assert!((group[0] - 3f64.sqrt()).abs() < 1e-12 && group[4] == 0.0, "{group:?}");
        let sample = of(Baseline::GroupMean, AdvantageScale::GroupSampleStd);
        assert!((sample[0] - 0.75 / 0.5001).abs() < 1e-12 && sample[4] == 0.0, "{sample:?}");
        let batch = of(Baseline::GroupMean, AdvantageScale::BatchStd);
        let square: f64 = batch.iter().map(|a| a * a).sum();
        assert!((square - 8.0).abs() < 1e-12, "mean square 1 over the shard: {batch:?}");
    }

    /// What the published programs made of these rewards (commits in the head; d1: dllm-reasoning/d1, commit 837888f),
    /// in f32.
    #[test]
    fn advantages_are_those_of_the_published_programs() {
        let (mean, others) = (Baseline::GroupMean, Baseline::LeaveOneOut);
        let (plain, sample) = (AdvantageScale::None, AdvantageScale::GroupSampleStd);
        let close = |baseline, scale, group: usize, rewards: &[f64], expected: &[f64]| {
            let counted = vec![true; rewards.len()];
            let found = advantages(rewards, &counted, group, &config(baseline, scale));
            let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(found.len() == expected.len() && apart < 1e-6, "{found:?} and {expected:?}");
        };
        close(mean, plain, 4, &[2.0, 0.0, -1.0, 0.5], &[1.625, -0.375, -1.375, 0.125]);
        let rewards = [1.0, 1.0, 4.0, 0.0, 3.0, 0.25];
        close(
            mean,
            plain,
            3,
            &rewards,
            &[-1.0, -1.0, 2.0, -1.083_333_4, 1.916_666_6, -0.833_333_4],
        );
        let rewards = [2.5, 0.0, 0.5, 0.0];
        close(others, plain, 4, &rewards, &[2.333_333_3, -1.0, -0.333_333_3, -1.0]);
        let expected = [1.414_013_6, -1.414_013_6, -1.414_080_3, 1.414_080_3];
        close(others, sample, 2, &[1.0, 0.0, 0.5, 2.0], &expected);
        let one = 0.865_875_4;
        close(mean, sample, 4, &[1.0, 0.0, 0.0, 1.0], &[one, -one, -one, one]);
        let low = -0.520_091_5;
        let expected = [low, low, 1.976_347_9, 0.104_018_3, low, low];
        close(mean, sample, 6, &[0.0, 0.0, 2.0, 0.5, 0.0, 0.0], &expected);
        let rewards = [1.0, 0.0, 1.0, 0.0, 0.5, 0.5, 0.5, 0.5];
        close(mean, sample, 4, &rewards, &[one, -one, one, -one, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_group_without_spread_has_no_advantage_and_can_be_left_out() {
        let rewards = [0.1, 0.1, 0.1, 0.0, 1.0, 0.0];
        let baselines = [Baseline::GroupMean, Baseline::LeaveOneOut];
        let scales = [
            AdvantageScale::None,
            AdvantageScale::GroupStd,
            AdvantageScale::BatchStd,
            AdvantageScale::GroupSampleStd,
        ];
        for (baseline, scale) in
            baselines.into_iter().flat_map(|of| scales.map(|scale| (of, scale)))
        {
            let of = |filter_groups| {
                worths(&rewards, 3, &Advantage { filter_groups, ..config(baseline, scale) })
            };
            assert!(of(false)[..3].iter().all(|worth| worth.advantage == 0.0 && worth.counted));
            let counted: Vec<_> = of(true).iter().map(|worth| worth.counted).collect();
            assert_eq!(counted, [false, false, false, true, true, true]);
            if (baseline, scale) == (Baseline::GroupMean, AdvantageScale::BatchStd) {
                let square: f64 = of(true).iter().map(|worth| worth.advantage.powi(2)).sum();
                assert!((square - 3.0).abs() < 1e-12, "mean square 1 over those that count");
            }
        }
    }
}
