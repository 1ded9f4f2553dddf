//! Grades the completions of single rows by a dataset's task and `[reward]`, without a run.

use agrpo_grading::Row;
use agrpo_spec::{DatasetTask, Inputs, RewardConfig, RowReward, Scorer};

use super::grading::{Graded, Grader};
use super::templates::Templates;
use crate::error::{Result, internal};

/// A dataset's templates and its `[reward]`, for completions of any origin.
#[derive(Debug)]
pub struct RowGrader<'a> {
    templates: Templates,
    grader: Grader<'a>,
}

impl<'a> RowGrader<'a> {
    /// Reads templates, patterns and the program's files. Error where one of them is invalid.
    pub fn open(
        task: &DatasetTask,
        reward: &RewardConfig,
        inputs: &Inputs,
        scorer: &'a dyn Scorer,
    ) -> Result<Self> {
        Ok(Self {
            templates: Templates::read(task)?,
            grader: Grader::open(reward, inputs, scorer)?,
        })
    }

    /// The reward of a completion as an answer to a row. Error as in a reward stage.
    pub fn grade(&self, row: Row, completion: &str) -> Result<RowReward> {
        let number = row.number;
        let item = self.templates.item(row, format!("row {number}"))?;
        let sample = item.sample(number.to_string(), completion.to_owned());
        let graded = self.grader.grade(&[sample])?.pop();
        let Graded { parts, reward, correct } =
            graded.ok_or_else(|| internal("a row without a grade"))?;
        Ok(RowReward { reward, correct, parts, advantage: 0.0, counted: true })
    }
}
