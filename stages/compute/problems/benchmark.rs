//! Public tasks: prompts by a checkpoint's chat template, grades by a protocol's rules.
//!
//! d1 cuts training prompts to their last 200 tokens; nothing else is cut. Refuses a prompt that is longer than
//! the run file allows, and names its row.

use std::sync::Arc;

use agrpo_grading::{
    Placed, Problem, evaluation_messages, evaluation_prefill, evaluation_problems, messages,
    reward, reward_parts, training_problems, verdict,
};
use agrpo_spec::{Benchmark, BenchmarkTask, Inputs, Protocol, RewardConfig, Seed, StageError};

use super::question::{Asked, EvaluationGrade, Question};
use super::rows::{Passes, first, read};
use crate::error::{Result, data, data_from};
use crate::tasks::Grade;
use crate::text::chat::{ChatTokenizer, Specials};

/// The training and the held-out problems.
#[derive(Debug)]
pub(crate) struct BenchmarkProblems {
    task: BenchmarkTask,
    tokenizer: Arc<ChatTokenizer>,
    training: Vec<Placed>,
    held_out: Vec<Placed>,
    passes: Passes,
}

impl BenchmarkProblems {
    pub(super) fn open(
        task: &BenchmarkTask,
        tokenizer: Arc<ChatTokenizer>,
        inputs: &Inputs,
    ) -> Result<Self> {
        let train = read(inputs, "task.benchmark.train", task.train)?;
        let test = read(inputs, "task.benchmark.test", task.test)?;
        let training = training_problems(&train, task.name, task.protocol, &test)
            .map_err(|error| data_from(format!("task.benchmark.train: {error}"), error))?;
        let held_out = evaluation_problems(&test, task.name, task.protocol)
            .map_err(|error| data_from(format!("task.benchmark.test: {error}"), error))?;
        if training.is_empty() {
            return Err(data("task.benchmark.train has no problem that the protocol trains on"));
        }
        let passes = Passes::default();
        Ok(Self { task: task.clone(), tokenizer, training, held_out, passes })
    }

    /// Refuses weights of parts that are not graded.
    pub(super) fn check_weights(&self, reward: &RewardConfig) -> Result<()> {
        let parts = reward_parts(self.task.name, self.task.protocol);
        match reward.weights.keys().find(|name| !parts.contains(&name.as_str())) {
            Some(name) => {
                Err(data(format!("reward.weights = {name}: expected one of {}", parts.join(", "))))
            }
            None => Ok(()),
        }
    }

    /// Tokenizes every prompt that a run may use.
    pub(super) fn check_prompts(&self, held_out: u32) -> Result<()> {
        self.training.iter().try_for_each(|problem| self.asked_in_training(problem).map(drop))?;
        self.held_out(held_out).map(drop)
    }

    pub(super) fn training(&self, number: u64) -> Result<Asked> {
        let seed = Seed::new(self.task.seed);
        self.asked_in_training(self.passes.nth(&self.training, seed, number)?)
    }

    fn asked_in_training(&self, placed: &Placed) -> Result<Asked> {
        let messages = messages(&placed.problem, self.task.protocol);
        let mut prompt = self.tokenizer.ids(&messages).map_err(of_row("train", placed))?;
        if self.task.protocol == Protocol::D1 {
            // A longer prompt is cut at the front, the chat template included.
            prompt.drain(..prompt.len().saturating_sub(200));
        }
        self.asked(&placed.problem, prompt)
    }

    pub(super) fn held_out(&self, count: u32) -> Result<Vec<Asked>> {
        let problems = first(&self.held_out, count, "task.benchmark.test")?;
        let asked = |placed: &Placed| {
            let protocol = self.task.protocol;
            let messages = evaluation_messages(&placed.problem, protocol);
            let mut prompt = self.tokenizer.ids(&messages).map_err(of_row("test", placed))?;
            prompt.extend(self.tokenizer.plain_ids(evaluation_prefill(protocol))?);
            self.asked(&placed.problem, prompt)
        };
        problems.iter().map(asked).collect()
    }

    pub(super) fn grade(&self, problem: &Problem, completion: &[i64]) -> Result<Grade> {
        let text = self.tokenizer.text(completion, Specials::Skip)?;
        Ok(reward(problem, self.task.protocol, &text))
    }

    pub(super) fn evaluate(
        &self,
        problem: &Problem,
        completion: &[i64],
    ) -> Result<EvaluationGrade> {
        let text = self.tokenizer.text(completion, Specials::Keep)?;
        let verdict = verdict(problem, self.task.protocol, &text);
        let cells = verdict.cells.map(|cells| (f64::from(cells.correct), f64::from(cells.empty)));
        // d1 counts cells over all puzzles; AGRPO takes the mean of each puzzle's share.
        let pooled = self.task.name == Benchmark::Sudoku && self.task.protocol == Protocol::D1;
        let (score, most) = match cells {
            Some(cells) if pooled => cells,
            _ => (verdict.score(), 1.0),
        };
        Ok(EvaluationGrade { text, correct: verdict.correct, score, most, reward: None })
    }

    fn asked(&self, problem: &Problem, prompt: Vec<i64>) -> Result<Asked> {
        let (found, most) = (prompt.len(), self.task.prompt_tokens);
        let shown = self.tokenizer.text(&prompt, Specials::Skip)?;
        if found > most as usize {
            // Prompts of one protocol begin alike, so the end is shown.
            let count = shown.chars().count();
            let end: String = shown.chars().skip(count.saturating_sub(80)).collect();
            return Err(data(format!(
                "task.benchmark.prompt_tokens = {most}: the prompt that ends in {end:?} has {found} tokens; \
                 raise the key, or leave the problem out of the dataset"
            )));
        }
        Ok(Asked { prompt, shown, question: Question::Benchmark(problem.clone()) })
    }
}

/// An error of a prompt, with the row that asks it.
fn of_row(side: &str, placed: &Placed) -> impl FnOnce(StageError) -> StageError {
    move |error| match error {
        StageError::Data(text) => {
            data(text.reworded(|text| format!("task.benchmark.{side}: row {}: {text}", placed.row)))
        }
        error => error,
    }
}
