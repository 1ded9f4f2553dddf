//! A user's own task: rows of a dataset, asked by templates, spelt by a checkpoint's tokenizer or, for a model
//! from scratch, by the characters that occur in them.
//!
//! Leaves out a training row whose prompt is also held out; cuts and skips nothing else. Refuses a row that
//! cannot be asked, and names it. The vocabulary follows from the two files alone.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use agrpo_grading::{Message, Role};
use agrpo_spec::{DatasetTask, Inputs, Language, Purpose, Seed, StageError};
use bytes::Bytes;

use super::question::{Asked, Question};
use super::rows::read;
use super::templates::{Item, Templates};
use crate::error::data;
use crate::model::ModelConfig;
use crate::text::chat::{ChatTokenizer, Specials};
use crate::text::tokenizer::{self, TaskTokenizer};

/// Different characters of the largest vocabulary from scratch.
const MOST_CHARACTERS: usize = 1 << 14;

/// What turns text to ids and back.
#[derive(Debug)]
enum Spelling {
    /// A character is a token; prompts are padded to one length.
    Characters { tokenizer: Box<TaskTokenizer>, file: Bytes },
    /// A conversation in a checkpoint's words.
    Chat(Box<ChatTokenizer>),
}

/// The problems of both sides.
#[derive(Debug)]
pub(crate) struct DatasetProblems {
    task: DatasetTask,
    spelling: Spelling,
    training: Vec<Arc<Item>>,
    held_out: Vec<Arc<Item>>,
    /// The order of the last pass.
    order: Mutex<Option<(Seed, Arc<Vec<u32>>)>>,
}

impl DatasetProblems {
    pub(crate) fn open(
        task: &DatasetTask,
        language: Option<Language>,
        inputs: &Inputs,
    ) -> Result<Self, StageError> {
        let templates = Templates::read(task)?;
        let train = read(inputs, "task.dataset.train", task.train)?;
        let test = read(inputs, "task.dataset.test", task.test)?;
        let held_out = templates.items(test, "test")?;
        let mut training = templates.items(train, "train")?;
        let spelling = match language {
            Some(language) => {
                let config = ModelConfig::from_json(inputs.blob(language.config)?)?;
                let tokenizer = ChatTokenizer::read(inputs.blob(language.tokenizer)?, &config)?;
                Spelling::Chat(Box::new(tokenizer))
            }
            None => characters(training.iter().chain(&held_out))?,
        };
        let asked: BTreeSet<&str> = held_out.iter().map(|item| item.prompt.as_str()).collect();
        training.retain(|item| !asked.contains(item.prompt.as_str()));
        if training.is_empty() {
            return Err(data(
                "task.dataset.train has no row whose prompt task.dataset.test does not have too",
            ));
        }
        let order = Mutex::default();
        Ok(Self { task: task.clone(), spelling, training, held_out, order })
    }

    /// The task's own tokenizer, and its file; none where a checkpoint brings one.
    pub(crate) fn characters(&self) -> Option<(&TaskTokenizer, &Bytes)> {
        match &self.spelling {
            Spelling::Characters { tokenizer, file } => Some((tokenizer, file)),
            Spelling::Chat(_) => None,
        }
    }

    /// Tokens of every prompt from scratch, and of the longest one of a checkpoint.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.task.prompt_tokens as usize
    }

    /// Spells every prompt that a run may ask, and every answer that it learns.
    pub(super) fn check(&self, held_out: u32, completion_tokens: u32) -> Result<(), StageError> {
        self.training.iter().try_for_each(|item| self.asked(item).map(drop))?;
        self.held_out(held_out)?;
        let Spelling::Characters { .. } = self.spelling else { return Ok(()) };
        for Item { answer, place, .. } in self.training.iter().map(AsRef::as_ref) {
            let length = answer.as_deref().unwrap_or_default().chars().count();
            if length > completion_tokens as usize {
                return Err(data(format!(
                    "rollout.completion_tokens = {completion_tokens}: the answer of {place} has {length} \
                     characters; raise the key, or leave the row out"
                )));
            }
        }
        Ok(())
    }

    /// The n-th training row of a stream, counted from 0: pass after pass, each in an order of its own.
    fn nth(&self, stream: Seed, number: u64) -> Result<&Arc<Item>, StageError> {
        let count = self.training.len() as u64;
        let seed = stream.child(Purpose::Permutation, number / count);
        let place = usize::try_from(number % count).expect("less than a length");
        let length = u32::try_from(count).map_err(|_| data("too many training rows"))?;
        let mut kept = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let order = match kept.as_ref() {
            Some((of, order)) if *of == seed => Arc::clone(order),
            _ => {
                let order = Arc::new(seed.permutation(length));
                *kept = Some((seed, Arc::clone(&order)));
                order
            }
        };
        Ok(&self.training[order[place] as usize])
    }

    pub(super) fn training(&self, number: u64) -> Result<Asked, StageError> {
        self.asked(self.nth(Seed::new(self.task.seed), number)?)
    }

    /// Prompt and answer of the n-th example of fine-tuning; drawn like training problems, from another stream.
    pub(crate) fn example(&self, number: u64) -> Result<(String, String), StageError> {
        let item = self.nth(Seed::new(self.task.seed).child(Purpose::Problem, 1), number)?;
        let answer = item.answer.clone().ok_or_else(|| {
            StageError::Invalid(
                "fine-tuning learns from task.dataset.answer, which is left out".into(),
            )
        })?;
        Ok((self.padded(&item.prompt), answer))
    }

    pub(super) fn held_out(&self, count: u32) -> Result<Vec<Asked>, StageError> {
        let found = self.held_out.len();
        let items = self.held_out.get(..count as usize).ok_or_else(|| {
            data(format!(
                "evaluation.problems = {count}: expected at most {found}, which task.dataset.test has"
            ))
        })?;
        items.iter().map(|item| self.asked(item)).collect()
    }

    /// The completion for people and graders.
    pub(super) fn text(&self, completion: &[i64]) -> Result<String, StageError> {
        match &self.spelling {
            Spelling::Characters { tokenizer, .. } => Ok(tokenizer.text(completion)?),
            Spelling::Chat(tokenizer) => tokenizer.text(completion, Specials::Skip),
        }
    }

    /// Spaces on the left, as the drawn tasks have them.
    fn padded(&self, prompt: &str) -> String {
        let width = self.prompt_tokens();
        format!("{prompt:>width$}")
    }

    fn asked(&self, item: &Arc<Item>) -> Result<Asked, StageError> {
        let prompt = match &self.spelling {
            Spelling::Characters { tokenizer, .. } => tokenizer.ids(&self.padded(&item.prompt))?,
            Spelling::Chat(tokenizer) => {
                let message = |role, text: &String| Message { role, content: text.clone() };
                let system = item.system.iter().map(|text| message(Role::System, text));
                let question = std::iter::once(message(Role::User, &item.prompt));
                let messages: Vec<_> = system.chain(question).collect();
                tokenizer
                    .ids(&messages)
                    .map_err(|error| data(format!("{}: {error}", item.place)))?
            }
        };
        let (found, most) = (prompt.len(), self.task.prompt_tokens);
        if found > most as usize {
            return Err(data(format!(
                "task.dataset.prompt_tokens = {most}: the prompt of {} has {found} tokens; raise the key, or \
                 leave the row out",
                item.place
            )));
        }
        let question = Question::Dataset(Arc::clone(item));
        Ok(Asked { prompt, shown: item.prompt.clone(), question })
    }
}

/// One token for each character of prompts and answers, in the order of code points, and the blank that
/// pads.
fn characters<'a>(items: impl Iterator<Item = &'a Arc<Item>>) -> Result<Spelling, StageError> {
    let mut all = BTreeSet::from([' ']);
    for item in items {
        for text in std::iter::once(&item.prompt).chain(&item.answer) {
            if let Some(special) = tokenizer::SPECIAL.iter().find(|special| text.contains(*special))
            {
                return Err(data(format!(
                    "{} spells {special}, which is a token of its own: leave it out",
                    item.place
                )));
            }
            all.extend(text.chars());
        }
        if all.len() > MOST_CHARACTERS {
            return Err(data(format!(
                "task.dataset has more than {MOST_CHARACTERS} different characters up to {}: a model from \
                 scratch has a token for each; a [checkpoint] brings its own",
                item.place
            )));
        }
    }
    let file = Bytes::from(tokenizer::of_characters(all));
    Ok(Spelling::Characters { tokenizer: Box::new(TaskTokenizer::read(&file)?), file })
}

#[cfg(test)]
mod tests;
