//! Conversations to token ids and back, by the `tokenizer.json` of a checkpoint and the layout of its family.
//!
//! ```text
//! LLaDA        <|startoftext|> { <|start_header_id|> ROLE <|end_header_id|> \n\n content, stripped <|eot_id|> } ...
//!              <|start_header_id|> assistant <|end_header_id|> \n\n
//! Dream, SDAR  { <|im_start|> ROLE \n content <|im_end|> \n } ... <|im_start|> assistant \n
//! ```
//! Ids are read from the files: mask, end and padding from `config.json`, the layout's pieces from the
//! tokenizer by their text. Refuses a tokenizer whose mask is not the configuration's, and a message that
//! spells a special token, which would end its own turn. Cuts no prompt.

use std::{collections::BTreeSet, panic::catch_unwind};

use agrpo_grading::Message;
use agrpo_spec::{ChatLayout, FamilyTraits, Files, Message as Reason, one_line};
use tokenizers::Tokenizer;

use crate::error::{Result, data};
use crate::folder;
use crate::model::{ModelConfig, check_headers};
use crate::text::tokenizer::{MASK, unreadable};

mod guard;
mod layout;

pub use layout::other_layout;

const FILE: &str = "tokenizer.json";

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
    /// How the family writes conversations.
    layout: &'static ChatLayout,
    /// Ids that no message may spell.
    special: BTreeSet<i64>,
    /// Rows of the embedding: every id lies below.
    embedding: i64,
}

/// Reads a tokenizer whose ids are the model's. Data error that names the id where they are not.
fn read(bytes: &[u8], config: &ModelConfig) -> Result<Tokenizer> {
    let refuse = |why: Reason| data(why.reworded(|why| format!("{FILE}: {}", one_line(why))));
    let added = guard::check(bytes).map_err(refuse)?;
    // The crate panics on some files that it has read halfway.
    let mut tokenizer = catch_unwind(|| Tokenizer::from_bytes(bytes))
        .map_err(|_| refuse("no tokenizer that can be read".into()))?
        .map_err(unreadable)?;
    // The program that wrote the file left them in it; transformers resets both too.
    tokenizer.with_padding(None).with_truncation(None).map_err(unreadable)?;
    let size = config.embedding_size;
    let mismatch = |what: String, key: &str, value: i64| {
        Err(data(format!(
            "{FILE}{what}, but config.json has {key} = {value}: tokenizer and model are not of one checkpoint"
        )))
    };
    let is_beyond = |id: u64| i64::try_from(id).map_or(true, |id| id >= size);
    if let Some(token) = added.iter().find(|token| token.id.is_some_and(is_beyond)) {
        let (text, id) = (one_line(&token.content), token.id.unwrap_or_default());
        let what = format!(": the added token {text:?} has the id {id}");
        return mismatch(what, "embedding_size", size);
    }
    let (text, mask) = mask(&tokenizer, config.family.traits())?;
    if mask != config.mask_token_id {
        let what = format!(": {text} is token {mask}");
        return mismatch(what, "mask_token_id", config.mask_token_id);
    }
    for (key, id) in [("eos_token_id", config.eos_token_id), ("pad_token_id", config.pad())] {
        if u32::try_from(id).ok().and_then(|id| tokenizer.id_to_token(id)).is_none() {
            return Err(data(format!("{FILE} has no token {id}, which config.json has as {key}")));
        }
    }
    let largest = tokenizer.get_vocab(true).into_values().max().map_or(-1, i64::from);
    if largest >= size {
        return mismatch(format!(" has the token {largest}"), "embedding_size", size);
    }
    Ok(tokenizer)
}

/// The mask's text and id. Tokenizers that this program makes for its own tasks have one mask for all families. Data error
/// where there is neither.
fn mask(tokenizer: &Tokenizer, family: &FamilyTraits) -> Result<(&'static str, i64)> {
    let text = family.chat.mask;
    let found =
        [text, MASK].into_iter().find_map(|text| Some((text, tokenizer.token_to_id(text)?)));
    found
        .map(|(text, id)| (text, i64::from(id)))
        .ok_or_else(|| data(format!("{FILE} has no token {text:?}, the mask of {}", family.name)))
}

/// Checks that a folder's configuration, the headers of its weights and its tokenizer match, whatever its chat
/// template. Of an adapter's folder without a base, checks only the header. Data error that names file and tensor.
pub fn check_folder(files: &Files) -> Result<()> {
    let Some(config) = check_headers(files)? else { return Ok(()) };
    folder::optional(files, FILE)?.map_or(Ok(()), |bytes| read(&bytes, &config).map(drop))
}

impl ChatTokenizer {
    /// Reads a `tokenizer.json` for a model. Data error where it is none, where it lacks a piece of the
    /// template, or where its ids are not the model's.
    pub fn read(bytes: &[u8], config: &ModelConfig) -> Result<Self> {
        let tokenizer = read(bytes, config)?;
        let FamilyTraits { name, chat: layout, .. } = config.family.traits();
        let piece = |text: &&str| {
            tokenizer.token_to_id(text).map(i64::from).ok_or_else(|| {
                data(format!("{FILE} has no token {text:?}, a piece of {name}'s conversations"))
            })
        };
        let pieces = layout.pieces.iter().map(piece);
        let mut special = pieces.collect::<Result<BTreeSet<_>, _>>()?;
        let added = tokenizer.get_added_tokens_decoder();
        special.extend(added.iter().filter(|(_, t)| t.special).map(|(&id, _)| i64::from(id)));
        special.extend([config.mask_token_id, config.eos_token_id, config.pad()]);
        Ok(Self { tokenizer, layout, special, embedding: config.embedding_size })
    }

    /// A conversation up to where the assistant answers. Data error where a message spells a special
    /// token.
    pub fn ids(&self, messages: &[Message]) -> Result<Vec<i64>> {
        let ids = self.plain_ids(&layout::conversation(self.layout, messages))?;
        let special = ids.iter().filter(|id| self.special.contains(id)).count();
        if special != layout::special_tokens(self.layout, messages) {
            let last = self.layout.pieces.last().copied().unwrap_or_default();
            return Err(data(format!(
                "a message spells a special token such as {last}; leave it out"
            )));
        }
        Ok(ids)
    }

    /// The ids of a text as it is: special tokens where it spells them, nothing added around it.
    pub fn plain_ids(&self, text: &str) -> Result<Vec<i64>> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(unreadable)?;
        Ok(encoding.get_ids().iter().copied().map(i64::from).collect())
    }

    /// The text of ids. Rows of the embedding that no token uses spell nothing. Data error where an id
    /// lies outside of the embedding.
    pub fn text(&self, ids: &[i64], specials: Specials) -> Result<String> {
        let known = |&id: &i64| {
            let inside = (0..self.embedding).contains(&id);
            u32::try_from(id).ok().filter(|_| inside).ok_or_else(|| {
                data(format!("{id} is not a token id: the model has {}", self.embedding))
            })
        };
        let ids: Vec<u32> = ids.iter().map(known).collect::<Result<_, _>>()?;
        self.tokenizer.decode(&ids, specials == Specials::Skip).map_err(unreadable)
    }
}

#[cfg(test)]
pub(crate) mod tests;
