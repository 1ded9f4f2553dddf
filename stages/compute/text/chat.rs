//! Conversations to token ids and back, by the `tokenizer.json` of a LLaDA checkpoint.
//!
//! ```text
//! <|startoftext|> { <|start_header_id|> ROLE <|end_header_id|> \n\n content, stripped <|eot_id|> } ...
//! <|start_header_id|> assistant <|end_header_id|> \n\n
//! ```
//! Ids are read from the files: mask, end and padding from `config.json`, the template's pieces from the
//! tokenizer by their text. Refuses a tokenizer whose mask is not the configuration's, and a message that
//! spells a special token, which would end its own turn. Cuts no prompt.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::panic::catch_unwind;

use agrpo_grading::Message;
use agrpo_spec::{Files, StageError, one_line};
use tokenizers::Tokenizer;

use crate::error::data;
use crate::folder;
use crate::model::ModelConfig;

mod guard;
mod layout;

use layout::PIECES;
pub use layout::other_layout;

const FILE: &str = "tokenizer.json";
/// The token of a position that is not written yet.
const MASK: &str = "<|mdm_mask|>";

/// Whether special tokens are part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// As they are spelled.
    Keep,
    /// Left out.
    Skip,
}

/// A checkpoint's tokenizer, with the ids that its model knows.
#[derive(Debug)]
pub struct ChatTokenizer {
    tokenizer: Tokenizer,
    /// Ids that no message may spell.
    special: BTreeSet<i64>,
    /// Rows of the embedding: every id lies below.
    embedding: i64,
    mask: i64,
    end: i64,
    pad: i64,
    end_of_turn: i64,
}

/// Reads a tokenizer whose ids are the model's. Data error that names the id where they are not.
fn read(bytes: &[u8], config: &ModelConfig) -> Result<Tokenizer, StageError> {
    let refuse = |why: &dyn Display| data(format!("{FILE}: {}", one_line(why)));
    let added = guard::check(bytes).map_err(|why| refuse(&why))?;
    // The crate panics on some files that it has read halfway.
    let mut tokenizer = catch_unwind(|| Tokenizer::from_bytes(bytes))
        .map_err(|_| refuse(&"no tokenizer that can be read"))?
        .map_err(|error| refuse(&error))?;
    // Left in the file by the program that wrote it; transformers resets both as well.
    tokenizer.with_padding(None).with_truncation(None).map_err(|error| refuse(&error))?;
    let is_beyond = |id: u64| i64::try_from(id).map_or(true, |id| id >= config.embedding_size);
    if let Some(token) = added.iter().find(|token| token.id.is_some_and(is_beyond)) {
        let (text, id) = (one_line(&token.content), token.id.unwrap_or_default());
        return Err(data(format!(
            "{FILE}: the added token {text:?} has the id {id}, but config.json has embedding_size = {}: tokenizer \
             and model are not of one checkpoint",
            config.embedding_size
        )));
    }
    let mask = id(&tokenizer, MASK)?;
    if mask != config.mask_token_id {
        return Err(data(format!(
            "{FILE}: {MASK} is token {mask}, but config.json has mask_token_id = {}: tokenizer and \
             model are not of one checkpoint",
            config.mask_token_id
        )));
    }
    for (key, id) in [("eos_token_id", config.eos_token_id), ("pad_token_id", config.pad())] {
        if u32::try_from(id).ok().and_then(|id| tokenizer.id_to_token(id)).is_none() {
            return Err(data(format!("{FILE} has no token {id}, which config.json has as {key}")));
        }
    }
    let largest = tokenizer.get_vocab(true).into_values().max().map_or(-1, i64::from);
    if largest >= config.embedding_size {
        return Err(data(format!(
            "{FILE} has the token {largest}, but config.json has embedding_size = {}: tokenizer and \
             model are not of one checkpoint",
            config.embedding_size
        )));
    }
    Ok(tokenizer)
}

/// Whether the tokenizer of a checkpoint, of whatever template, knows the model's ids.
pub(crate) fn check(bytes: &[u8], config: &ModelConfig) -> Result<(), StageError> {
    read(bytes, config).map(drop)
}

fn id(tokenizer: &Tokenizer, text: &str) -> Result<i64, StageError> {
    let id = tokenizer.token_to_id(text).map(i64::from);
    id.ok_or_else(|| data(format!("{FILE} has no token {text:?}")))
}

impl ChatTokenizer {
    /// Reads a `tokenizer.json` for a model. Data error where it is none, where it lacks a piece of the
    /// template, or where its ids are not the model's.
    pub fn read(bytes: &[u8], config: &ModelConfig) -> Result<Self, StageError> {
        let tokenizer = read(bytes, config)?;
        let pieces = PIECES.map(|text| id(&tokenizer, text));
        let mut special = pieces.into_iter().collect::<Result<BTreeSet<_>, _>>()?;
        let added = tokenizer.get_added_tokens_decoder();
        special.extend(added.iter().filter(|(_, t)| t.special).map(|(&id, _)| i64::from(id)));
        special.extend([config.mask_token_id, config.eos_token_id, config.pad()]);
        Ok(Self {
            embedding: config.embedding_size,
            mask: config.mask_token_id,
            end: config.eos_token_id,
            pad: config.pad(),
            end_of_turn: id(&tokenizer, PIECES[3])?,
            tokenizer,
            special,
        })
    }

    /// Reads the one in a policy's folder.
    pub fn of_policy(files: &Files) -> Result<Self, StageError> {
        let config = ModelConfig::of_folder(files)?;
        Self::read(&folder::small(files, "policy", FILE)?, &config)
    }

    /// The mask token.
    pub fn mask(&self) -> i64 {
        self.mask
    }

    /// The end-of-sequence token.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// The token of padding.
    pub fn pad(&self) -> i64 {
        self.pad
    }

    /// The token that ends a turn.
    pub fn end_of_turn(&self) -> i64 {
        self.end_of_turn
    }

    /// A conversation up to where the assistant answers. Data error where a message spells a special
    /// token.
    pub fn ids(&self, messages: &[Message]) -> Result<Vec<i64>, StageError> {
        let ids = self.plain_ids(&layout::conversation(messages))?;
        let special = ids.iter().filter(|id| self.special.contains(id)).count();
        if special != 3 + 3 * messages.len() {
            return Err(data("a message spells a special token such as <|eot_id|>; leave it out"));
        }
        Ok(ids)
    }

    /// A text as it stands: special tokens where they are spelled, nothing added around it.
    pub fn plain_ids(&self, text: &str) -> Result<Vec<i64>, StageError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|error| data(format!("{FILE}: {}", one_line(&error))))?;
        Ok(encoding.get_ids().iter().copied().map(i64::from).collect())
    }

    /// The text of ids. Rows of the embedding that no token uses spell nothing. Data error where an id
    /// lies outside of the embedding.
    pub fn text(&self, ids: &[i64], specials: Specials) -> Result<String, StageError> {
        let known = |&id: &i64| {
            let inside = (0..self.embedding).contains(&id);
            u32::try_from(id).ok().filter(|_| inside).ok_or_else(|| {
                data(format!("{id} is not a token id: the model has {}", self.embedding))
            })
        };
        let ids: Vec<u32> = ids.iter().map(known).collect::<Result<_, _>>()?;
        self.tokenizer
            .decode(&ids, specials == Specials::Skip)
            .map_err(|error| data(format!("{FILE}: {}", one_line(&error))))
    }
}

#[cfg(test)]
mod tests;
