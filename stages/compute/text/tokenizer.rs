//! Text to token ids and back, by the `tokenizers` crate and a `tokenizer.json` of its format.
//!
//! The tasks' own tokenizer knows characters and no merges: one character, one token, so a prompt's
//! tokens are its characters. Its file is part of every policy, hence of its digest: the same bytes
//! on every call and machine (the crate writes vocabularies in the order of ids). Ids of special
//! tokens are read from the file, never assumed. Refuses text that the vocabulary cannot spell.

use agrpo_spec::{StageError, one_line};
use bytes::Bytes;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::models::bpe::BPE;
use tokenizers::{AddedToken, Tokenizer};

use crate::error::{Result, data, data_from};
use crate::tensors::length;

/// Ends a completion, and pads it.
const END: &str = "<|endoftext|>";

/// The token of a position that is not written yet.
pub(super) const MASK: &str = "<|mdm_mask|>";

pub(crate) const SPECIAL: [&str; 2] = [END, MASK];

/// With the two special tokens a vocabulary of 24; `=`, `.` and `?`, which no task needs, round it off.
const ALPHABET: [char; 22] = [
    ' ', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '+', '-', '*', '/', '(', ')', '=', ',',
    ':', '.', '?',
];

/// The bytes of the `tokenizer.json` of drawn tasks.
pub(crate) fn build() -> Vec<u8> {
    of_characters(ALPHABET)
}

/// The bytes of a `tokenizer.json` with a token for each of these characters, in their order.
pub(crate) fn of_characters(alphabet: impl IntoIterator<Item = char>) -> Vec<u8> {
    let named = (0..).zip(alphabet).map(|(id, character)| (character.to_string(), id));
    // Single characters need no merges.
    let model = BPE::new(named.collect(), vec![]);
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_decoder(Some(Fuse::new()));
    tokenizer.add_special_tokens(&[AddedToken::from(END, true), AddedToken::from(MASK, true)]);
    tokenizer.to_string(true).expect("a tokenizer in memory is JSON").into_bytes()
}

/// A tokenizer with an end-of-sequence and a mask token.
#[derive(Debug)]
pub(crate) struct TaskTokenizer {
    tokenizer: Tokenizer,
    /// The `tokenizer.json` that it was read from.
    pub(crate) file: Bytes,
    /// Number of tokens, special ones included.
    pub(crate) vocabulary: i64,
    /// Ends a completion, and pads it.
    pub(crate) end: i64,
    pub(crate) mask: i64,
}

impl TaskTokenizer {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self> {
        let tokenizer = Tokenizer::from_bytes(bytes).map_err(unreadable)?;
        let (end, mask) = (id(&tokenizer, END)?, id(&tokenizer, MASK)?);
        let vocabulary = length(tokenizer.get_vocab_size(true));
        Ok(Self { tokenizer, file: Bytes::copy_from_slice(bytes), vocabulary, end, mask })
    }

    /// The text's ids; nothing is added in front or behind.
    pub(crate) fn ids(&self, text: &str) -> Result<Vec<i64>> {
        let refuse = || format!("the tokenizer cannot spell {text:?}");
        let refused = |error: tokenizers::Error| data_from(refuse(), error);
        let encoding = self.tokenizer.encode_fast(text, false).map_err(refused)?;
        // Without an unknown token the crate drops what it does not know; decoding shows it.
        let back = self.tokenizer.decode(encoding.get_ids(), false).map_err(refused)?;
        if back != text {
            return Err(data(refuse()));
        }
        Ok(encoding.get_ids().iter().copied().map(i64::from).collect())
    }

    /// The text of the ids before the first end-of-sequence token.
    pub(crate) fn text(&self, ids: &[i64]) -> Result<String> {
        let known = |&id: &i64| {
            let known = u32::try_from(id).ok();
            known.filter(|&id| self.tokenizer.id_to_token(id).is_some()).ok_or_else(|| {
                let vocabulary = self.vocabulary;
                data(format!("{id} is not a token id: the vocabulary has {vocabulary}"))
            })
        };
        let ids: Vec<u32> =
            ids.iter().take_while(|&&id| id != self.end).map(known).collect::<Result<_, _>>()?;
        self.tokenizer.decode(&ids, false).map_err(unreadable)
    }
}

/// The id of a token. Data error where there is none.
pub(super) fn id(tokenizer: &Tokenizer, text: &str) -> Result<i64> {
    let id = tokenizer.token_to_id(text).map(i64::from);
    id.ok_or_else(|| data(format!("tokenizer.json has no token {text:?}")))
}

pub(super) fn unreadable(error: tokenizers::Error) -> StageError {
    data_from(format!("tokenizer.json: {}", one_line(&error)), error)
}

#[cfg(test)]
mod tests {
    use agrpo_spec::ArtifactDigest;

    use super::*;

    fn tokenizer() -> TaskTokenizer {
        TaskTokenizer::read(&build()).unwrap()
    }

    /// These bytes are part of every policy: a change renames them all.
    #[test]
    fn the_file_is_frozen() {
        let bytes = build();
        let digest = ArtifactDigest::of(&bytes).to_string();
        assert_eq!(digest, "101f7ed9b3b5ddfb25ba1af5b65ec88982a92d24364092f37c95b481191a9e9a");
        for _ in 0..20 {
            assert_eq!(build(), bytes);
        }
    }

    #[test]
    fn a_character_is_a_token() {
        let tokenizer = tokenizer();
        assert_eq!((tokenizer.vocabulary, tokenizer.end, tokenizer.mask), (24, 22, 23));
        let text: String = ALPHABET.into_iter().collect();
        assert_eq!(tokenizer.ids(&text).unwrap(), (0..22).collect::<Vec<_>>());
        for text in ["", " ", "    3,5,7:22", "(3+5)*7", "0412001300000000", "   "] {
            let ids = tokenizer.ids(text).unwrap();
            assert_eq!(ids.len(), text.len());
            assert_eq!(tokenizer.text(&ids).unwrap(), text);
        }
        assert_eq!(tokenizer.ids("<|mdm_mask|>").unwrap(), [tokenizer.mask]);
    }

    #[test]
    fn decoding_stops_at_the_first_end() {
        let tokenizer = tokenizer();
        let end = tokenizer.end;
        let ids = [tokenizer.ids("3+5").unwrap(), vec![end, end, 9], vec![-1]].concat();
        assert_eq!(tokenizer.text(&ids).unwrap(), "3+5");
        assert_eq!(tokenizer.text(&[end]).unwrap(), "");
        assert_eq!(tokenizer.text(&[4, tokenizer.mask, 5]).unwrap(), "3<|mdm_mask|>4");
    }

    #[test]
    fn text_outside_the_vocabulary_is_refused() {
        let tokenizer = tokenizer();
        for text in ["x", "3\n", "3 ×5", "<|eot_id|>"] {
            let refused = tokenizer.ids(text).unwrap_err().to_string();
            assert_eq!(refused, format!("the tokenizer cannot spell {text:?}"));
        }
        for id in [-1, 24, i64::MIN, i64::MAX] {
            let refused = tokenizer.text(&[3, id]).unwrap_err().to_string();
            assert_eq!(refused, format!("{id} is not a token id: the vocabulary has 24"));
        }
        let read = |bytes: &[u8]| TaskTokenizer::read(bytes).unwrap_err().to_string();
        assert!(read(b"{}").starts_with("tokenizer.json: "));
        let bytes = String::from_utf8(build()).unwrap().replace("mdm_mask", "other");
        assert_eq!(read(bytes.as_bytes()), format!("tokenizer.json has no token {MASK:?}"));
    }
}
