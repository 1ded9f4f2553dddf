//! Code that tasks from datasets share: reads rows in the format that their first bytes show, orders the training
//! problems, and reads a checkpoint's tokenizer. Renders and grades nothing.

use std::sync::{Mutex, PoisonError};

use agrpo_grading::{Format, Row, rows};
use agrpo_spec::{ArtifactDigest, Inputs, Language, Purpose, Seed, lfs_pointer};

use crate::error::{Result, data, data_from};
use crate::{model::ModelConfig, text::chat::ChatTokenizer};

/// Reads all rows. Data error that names `key`, the run file's key of the dataset.
pub(super) fn read(inputs: &Inputs, key: &str, digest: ArtifactDigest) -> Result<Vec<Row>> {
    let bytes = inputs.blob(digest)?;
    if let Some(what) = lfs_pointer(bytes) {
        return Err(data(format!("{key} is {what}")));
    }
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let start = text.iter().find(|byte| !byte.is_ascii_whitespace());
    let format = match start {
        _ if bytes.starts_with(b"PAR1") => Format::Parquet,
        Some(b'{' | b'[') | None => Format::JsonLines,
        Some(_) => Format::Csv,
    };
    rows(bytes, format).map_err(|error| data_from(format!("{key}: {error}"), error))
}

/// A checkpoint's tokenizer and chat template.
pub(super) fn tokenizer(language: Language, inputs: &Inputs) -> Result<ChatTokenizer> {
    let config = ModelConfig::from_json(inputs.blob(language.config)?)?;
    ChatTokenizer::read(inputs.blob(language.tokenizer)?, &config)
}

/// The first `count` of the held-out problems of `key`.
pub(super) fn first<'a, T>(all: &'a [T], count: u32, key: &str) -> Result<&'a [T]> {
    all.get(..count as usize).ok_or_else(|| {
        let found = all.len();
        data(format!("evaluation.problems = {count}: expected at most {found}, which {key} has"))
    })
}

/// Takes training problems pass after pass, each in an order of its own. Remembers the order of the last pass.
#[derive(Debug, Default)]
pub(super) struct Passes(Mutex<Option<(Seed, Vec<u32>)>>);

impl Passes {
    /// The n-th of a stream, counted from 0.
    pub(super) fn nth<'a, T>(&self, all: &'a [T], stream: Seed, number: u64) -> Result<&'a T> {
        let count = all.len() as u64;
        let seed = stream.child(Purpose::Permutation, number / count);
        let place = usize::try_from(number % count).expect("less than a length");
        let length = u32::try_from(count).map_err(|_| data("too many training problems"))?;
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.take().filter(|(of, _)| *of == seed);
        let (_, order) = last.insert(known.unwrap_or_else(|| (seed, seed.permutation(length))));
        Ok(&all[order[place] as usize])
    }
}
