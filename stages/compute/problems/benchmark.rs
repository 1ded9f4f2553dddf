//! Public tasks: datasets from a spec's inputs, prompts by a checkpoint's chat template, grading by a
//! protocol's rules.
//!
//! A pass over the training problems is a permutation of them, a new one for each pass. d1 cuts prompts to
//! their last 200 tokens in training; nothing else is cut. Refuses a prompt that is longer than the run file
//! allows, and names its row.

use agrpo_grading::{
    Placed, evaluation_messages, evaluation_prefill, evaluation_problems, messages, reward,
    reward_parts, training_problems, verdict,
};
use agrpo_spec::{
    Benchmark, BenchmarkTask, Inputs, Language, Protocol, Purpose, RewardConfig, Seed, StageError,
};

use super::question::{Asked, EvaluationGrade, Question};
use super::rows::read;
use crate::error::data;
use crate::model::ModelConfig;
use crate::tasks::Grade;
use crate::text::chat::{ChatTokenizer, Specials};

/// d1's longest training prompt; a longer one loses its head, with the template's.
const D1_PROMPT_TOKENS: usize = 200;

/// The problems of both sides.
#[derive(Debug)]
pub(crate) struct BenchmarkProblems {
    task: BenchmarkTask,
    tokenizer: ChatTokenizer,
    training: Vec<Placed>,
    held_out: Vec<Placed>,
}

impl BenchmarkProblems {
    pub(super) fn open(
        task: &BenchmarkTask,
        language: Language,
        inputs: &Inputs,
    ) -> Result<Self, StageError> {
        let config = ModelConfig::from_json(inputs.blob(language.config)?)?;
        let tokenizer = ChatTokenizer::read(inputs.blob(language.tokenizer)?, &config)?;
        let train = read(inputs, "task.benchmark.train", task.train)?;
        let test = read(inputs, "task.benchmark.test", task.test)?;
        let of = |side: &str| {
            let side = side.to_owned();
            move |error: agrpo_grading::DataError| data(format!("task.benchmark.{side}: {error}"))
        };
        let training =
            training_problems(&train, task.name, task.protocol, &test).map_err(of("train"))?;
        let held_out = evaluation_problems(&test, task.name, task.protocol).map_err(of("test"))?;
        if training.is_empty() {
            return Err(data("task.benchmark.train has no problem that the protocol trains on"));
        }
        Ok(Self { task: task.clone(), tokenizer, training, held_out })
    }

    /// Refuses weights of parts that are not graded.
    pub(super) fn check_weights(&self, reward: &RewardConfig) -> Result<(), StageError> {
        let parts = reward_parts(self.task.name, self.task.protocol);
        match reward.weights.keys().find(|name| !parts.contains(&name.as_str())) {
            Some(name) => {
                Err(data(format!("reward.weights = {name}: expected one of {}", parts.join(", "))))
            }
            None => Ok(()),
        }
    }

    /// Spells every prompt that a run may ask.
    pub(super) fn check_prompts(&self, held_out: u32) -> Result<(), StageError> {
        self.training.iter().try_for_each(|problem| self.asked_in_training(problem).map(drop))?;
        self.held_out(held_out).map(drop)
    }

    pub(super) fn training(&self, number: u64) -> Result<Asked, StageError> {
        let count = self.training.len() as u64;
        let (pass, place) = (number / count, number % count);
        let length = u32::try_from(count).map_err(|_| data("too many training problems"))?;
        let order = Seed::new(self.task.seed).child(Purpose::Permutation, pass).permutation(length);
        let place = usize::try_from(place).expect("less than a length");
        self.asked_in_training(&self.training[order[place] as usize])
    }

    fn asked_in_training(&self, placed: &Placed) -> Result<Asked, StageError> {
        let messages = messages(&placed.problem, self.task.protocol);
        let mut prompt = self.tokenizer.ids(&messages).map_err(of_row("train", placed))?;
        if self.task.protocol == Protocol::D1 {
            prompt.drain(..prompt.len().saturating_sub(D1_PROMPT_TOKENS));
        }
        self.asked(&placed.problem, prompt)
    }

    pub(super) fn held_out(&self, count: u32) -> Result<Vec<Asked>, StageError> {
        let found = self.held_out.len();
        let problems = self.held_out.get(..count as usize).ok_or_else(|| {
            data(format!(
                "evaluation.problems = {count}: expected at most {found}, which task.benchmark.test has"
            ))
        })?;
        let asked = |placed: &Placed| {
            let protocol = self.task.protocol;
            let messages = evaluation_messages(&placed.problem, protocol);
            let mut prompt = self.tokenizer.ids(&messages).map_err(of_row("test", placed))?;
            prompt.extend(self.tokenizer.plain_ids(evaluation_prefill(protocol))?);
            self.asked(&placed.problem, prompt)
        };
        problems.iter().map(asked).collect()
    }

    pub(super) fn grade(
        &self,
        problem: &agrpo_grading::Problem,
        completion: &[i64],
    ) -> Result<Grade, StageError> {
        let text = self.tokenizer.text(completion, Specials::Skip)?;
        Ok(reward(problem, self.task.protocol, &text))
    }

    pub(super) fn evaluate(
        &self,
        problem: &agrpo_grading::Problem,
        completion: &[i64],
    ) -> Result<EvaluationGrade, StageError> {
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

    fn asked(
        &self,
        problem: &agrpo_grading::Problem,
        prompt: Vec<i64>,
    ) -> Result<Asked, StageError> {
        let (found, most) = (prompt.len(), self.task.prompt_tokens);
        let shown = self.tokenizer.text(&prompt, Specials::Skip)?;
        if found > most as usize {
            // Prompts of one protocol begin alike.
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
            data(format!("task.benchmark.{side}: row {}: {text}", placed.row))
        }
        error => error,
    }
}
