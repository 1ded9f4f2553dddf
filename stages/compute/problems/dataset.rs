//! A custom task: rows of a dataset, rendered by templates, and tokenized by a checkpoint's tokenizer or, for a model
//! from scratch, by the characters that occur in them.
//!
//! Leaves out a training row whose prompt is also held out; cuts and skips nothing else. Refuses a row that cannot be
//! rendered or tokenized, and names it. The vocabulary follows from the two files alone.

use std::{collections::BTreeSet, sync::Arc};

use agrpo_grading::{Message, Role};
use agrpo_spec::{DatasetTask, Inputs, Purpose, Seed};

use super::question::{Asked, Question};
use super::rows::{Passes, first, read};
use super::templates::{Item, Templates};
use crate::error::{Result, data, data_from, invalid};
use crate::text::chat::{ChatTokenizer, Specials};
use crate::text::tokenizer::{self, TaskTokenizer};

/// Different characters of the largest vocabulary from scratch.
const MOST_CHARACTERS: usize = 1 << 14;

/// Turns text into ids and back.
#[derive(Debug)]
enum Spelling {
    /// A character is a token; prompts are padded to one length.
    Characters(Box<TaskTokenizer>),
    /// A checkpoint's tokenizer and chat template.
    Chat(Arc<ChatTokenizer>),
}

/// The training and the held-out problems.
#[derive(Debug)]
pub(crate) struct DatasetProblems {
    task: DatasetTask,
    spelling: Spelling,
    training: Vec<Arc<Item>>,
    held_out: Vec<Arc<Item>>,
    passes: Passes,
}

impl DatasetProblems {
    pub(crate) fn open(
        task: &DatasetTask,
        tokenizer: Option<Arc<ChatTokenizer>>,
        inputs: &Inputs,
    ) -> Result<Self> {
        let templates = Templates::read(task)?;
        let train = read(inputs, "task.dataset.train", task.train)?;
        let test = read(inputs, "task.dataset.test", task.test)?;
        let held_out = templates.items(test, "test")?;
        let mut training = templates.items(train, "train")?;
        let spelling = match tokenizer {
            Some(tokenizer) => Spelling::Chat(tokenizer),
            None => characters(training.iter().chain(&held_out))?,
        };
        let asked: BTreeSet<&str> = held_out.iter().map(|item| item.prompt.as_str()).collect();
        training.retain(|item| !asked.contains(item.prompt.as_str()));
        if training.is_empty() {
            return Err(data(
                "task.dataset.train has no row whose prompt task.dataset.test does not have too",
            ));
        }
        let passes = Passes::default();
        Ok(Self { task: task.clone(), spelling, training, held_out, passes })
    }

    /// The task's own tokenizer; none if a checkpoint has one.
    pub(super) fn characters(&self) -> Option<&TaskTokenizer> {
        match &self.spelling {
            Spelling::Characters(tokenizer) => Some(tokenizer),
            Spelling::Chat(_) => None,
        }
    }

    /// Tokenizes every prompt that a run may use, and every answer that it learns.
    pub(super) fn check(&self, held_out: u32, completion_tokens: u32) -> Result<()> {
        self.training.iter().try_for_each(|item| self.asked(item).map(drop))?;
        self.held_out(held_out)?;
        let Spelling::Characters(_) = self.spelling else { return Ok(()) };
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

    pub(super) fn training(&self, number: u64) -> Result<Asked> {
        self.asked(self.passes.nth(&self.training, Seed::new(self.task.seed), number)?)
    }

    /// Prompt and answer of the n-th example of fine-tuning; drawn like training problems, from another stream.
    pub(super) fn example(&self, number: u64) -> Result<(String, String)> {
        let stream = Seed::new(self.task.seed).child(Purpose::Problem, 1);
        let item = self.passes.nth(&self.training, stream, number)?;
        let answer = item.answer.clone().ok_or_else(|| {
            invalid("fine-tuning learns from task.dataset.answer, which is left out")
        })?;
        Ok((self.padded(&item.prompt), answer))
    }

    pub(super) fn held_out(&self, count: u32) -> Result<Vec<Asked>> {
        let items = first(&self.held_out, count, "task.dataset.test")?;
        items.iter().map(|item| self.asked(item)).collect()
    }

    /// The completion for people and graders.
    pub(super) fn text(&self, completion: &[i64]) -> Result<String> {
        match &self.spelling {
            Spelling::Characters(tokenizer) => tokenizer.text(completion),
            Spelling::Chat(tokenizer) => tokenizer.text(completion, Specials::Skip),
        }
    }

    /// Pads a prompt with spaces on the left, as drawn tasks do.
    fn padded(&self, prompt: &str) -> String {
        let width = self.task.prompt_tokens as usize;
        format!("{prompt:>width$}")
    }

    fn asked(&self, item: &Arc<Item>) -> Result<Asked> {
        let prompt = match &self.spelling {
            Spelling::Characters(tokenizer) => tokenizer.ids(&self.padded(&item.prompt))?,
            Spelling::Chat(tokenizer) => {
                let message = |role, text: &String| Message { role, content: text.clone() };
                let system = item.system.iter().map(|text| message(Role::System, text));
                let question = std::iter::once(message(Role::User, &item.prompt));
                let messages: Vec<_> = system.chain(question).collect();
                tokenizer
                    .ids(&messages)
                    .map_err(|error| data_from(format!("{}: {error}", item.place), error))?
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

/// One token for each character that occurs, in the order of code points, and the space that pads.
fn characters<'a>(items: impl Iterator<Item = &'a Arc<Item>>) -> Result<Spelling> {
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
    Ok(Spelling::Characters(Box::new(TaskTokenizer::read(&tokenizer::of_characters(all))?)))
}

#[cfg(test)]
mod tests;
