//! Text to token ids and back, by the `tokenizers` crate and a `tokenizer.json` of its format.
//!
//! The tasks' own tokenizer knows characters and no merges: one character, one token, so a prompt's
//! tokens are its characters. Its file is part of every policy, hence of its digest: the same bytes
//! on every call and machine (the crate writes vocabularies in the order of ids). Ids of special
//! tokens are read from the file, never assumed. Refuses text that the vocabulary cannot spell.

use agrpo_spec::StageError;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::models::bpe::BPE;
use tokenizers::{AddedToken, Tokenizer};

use crate::error::data;
use crate::tasks::DrawnTask;

/// Ends a completion, and pads it.
const END: &str = "<|endoftext|>";

/// The token of a position that is not written yet.
const MASK: &str = "<|mdm_mask|>";

/// The tokens that are no characters.
pub(crate) const SPECIAL: [&str; 2] = [END, MASK];

/// With the two special tokens a vocabulary of 24; `=`, `.` and `?`, which no task needs, round it off.
const ALPHABET: [char; 22] = [
    ' ', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '+', '-', '*', '/', '(', ')', '=', ',',
    ':', '.', '?',
];

/// Why text and ids do not match. `Display` is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenizerError {
    #[error("tokenizer.json: {0}")]
    File(String),
    #[error("tokenizer.json has no token {0:?}")]
    NoSpecial(&'static str),
    #[error("the tokenizer cannot spell {0:?}")]
    Text(String),
    #[error("{0} is not a token id: the vocabulary has {1}")]
    Id(i64, i64),
}

/// A policy whose tokenizer does not fit what it is given.
impl From<TokenizerError> for StageError {
    fn from(error: TokenizerError) -> Self {
        data(error.to_string())
    }
}

/// The bytes of the task's `tokenizer.json`.
pub(crate) fn build(task: &DrawnTask) -> Vec<u8> {
    let alphabet = match task {
        DrawnTask::Countdown(_) | DrawnTask::Sudoku(_) => ALPHABET,
    };
    of_characters(alphabet)
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
    vocabulary: i64,
    end: i64,
    mask: i64,
}

impl TaskTokenizer {
    /// Reads a `tokenizer.json`.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let tokenizer = Tokenizer::from_bytes(bytes)
            .map_err(|error| TokenizerError::File(error.to_string()))?;
        let special = |text| {
            tokenizer.token_to_id(text).map(i64::from).ok_or(TokenizerError::NoSpecial(text))
        };
        let (end, mask) = (special(END)?, special(MASK)?);
        let vocabulary = i64::try_from(tokenizer.get_vocab_size(true))
            .map_err(|error| TokenizerError::File(error.to_string()))?;
        Ok(Self { tokenizer, vocabulary, end, mask })
    }

    /// Number of tokens, special ones included.
    pub(crate) fn vocabulary(&self) -> i64 {
        self.vocabulary
    }

    /// The end-of-sequence token, which is also the padding.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// The mask token.
    pub(crate) fn mask(&self) -> i64 {
        self.mask
    }

    /// The text's ids; nothing is added in front or behind.
    pub(crate) fn ids(&self, text: &str) -> Result<Vec<i64>, TokenizerError> {
        let refuse = || TokenizerError::Text(text.to_owned());
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|_| refuse())?;
        // Without an unknown token the crate drops what it does not know; the way back shows it.
        let back = self.tokenizer.decode(encoding.get_ids(), false).map_err(|_| refuse())?;
        if back != text {
            return Err(refuse());
        }
        Ok(encoding.get_ids().iter().copied().map(i64::from).collect())
    }

    /// The text of the ids before the first end-of-sequence token.
    pub(crate) fn text(&self, ids: &[i64]) -> Result<String, TokenizerError> {
        let known = |&id: &i64| {
            let refuse = || TokenizerError::Id(id, self.vocabulary);
            let known = u32::try_from(id).map_err(|_| refuse())?;
            self.tokenizer.id_to_token(known).map(|_| known).ok_or_else(refuse)
        };
        let ids: Vec<u32> =
            ids.iter().take_while(|&&id| id != self.end).map(known).collect::<Result<_, _>>()?;
        self.tokenizer.decode(&ids, false).map_err(|error| TokenizerError::File(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use agrpo_spec::{ArtifactDigest, CountdownTask, Real, SudokuTask};

    use super::*;

    fn countdown() -> DrawnTask {
        let held_out = Real::new(0.2).unwrap();
        DrawnTask::Countdown(CountdownTask {
            seed: 0,
            numbers: 3,
            max_number: 9,
            max_target: 99,
            prompt_tokens: 12,
            held_out,
        })
    }

    fn tokenizer() -> TaskTokenizer {
        TaskTokenizer::read(&build(&countdown())).unwrap()
    }

    /// These bytes are part of every policy: a change renames them all.
    #[test]
    fn the_file_is_frozen() {
        let bytes = build(&countdown());
        let digest = ArtifactDigest::of(&bytes).to_string();
        assert_eq!(digest, "101f7ed9b3b5ddfb25ba1af5b65ec88982a92d24364092f37c95b481191a9e9a");
        for _ in 0..20 {
            assert_eq!(build(&countdown()), bytes);
        }
        let held_out = Real::new(0.2).unwrap();
        assert_eq!(build(&DrawnTask::Sudoku(SudokuTask { seed: 1, blanks: 8, held_out })), bytes);
    }

    #[test]
    fn a_character_is_a_token() {
        let tokenizer = tokenizer();
        assert_eq!((tokenizer.vocabulary(), tokenizer.end(), tokenizer.mask()), (24, 22, 23));
        let text: String = ALPHABET.into_iter().collect();
        assert_eq!(tokenizer.ids(&text).unwrap(), (0..22).collect::<Vec<_>>());
        for text in ["", " ", "    3,5,7:22", "(3+5)*7", "0412001300000000", "   "] {
            let ids = tokenizer.ids(text).unwrap();
            assert_eq!(ids.len(), text.len());
            assert_eq!(tokenizer.text(&ids).unwrap(), text);
        }
        assert_eq!(tokenizer.ids("<|mdm_mask|>").unwrap(), [tokenizer.mask()]);
    }

    #[test]
    fn decoding_stops_at_the_first_end() {
        let tokenizer = tokenizer();
        let end = tokenizer.end();
        let ids = [tokenizer.ids("3+5").unwrap(), vec![end, end, 9], vec![-1]].concat();
        assert_eq!(tokenizer.text(&ids).unwrap(), "3+5");
        assert_eq!(tokenizer.text(&[end]).unwrap(), "");
        assert_eq!(tokenizer.text(&[4, tokenizer.mask(), 5]).unwrap(), "3<|mdm_mask|>4");
    }

    #[test]
    fn what_is_not_in_the_vocabulary_is_refused() {
        let tokenizer = tokenizer();
        for text in ["x", "3\n", "3 ×5", "<|eot_id|>"] {
            assert_eq!(tokenizer.ids(text), Err(TokenizerError::Text(text.to_owned())));
        }
        for id in [-1, 24, i64::MIN, i64::MAX] {
            assert_eq!(tokenizer.text(&[3, id]), Err(TokenizerError::Id(id, 24)));
        }
        assert!(matches!(TaskTokenizer::read(b"{}"), Err(TokenizerError::File(_))));
        let bytes = String::from_utf8(build(&countdown())).unwrap().replace("mdm_mask", "other");
        assert_eq!(
            TaskTokenizer::read(bytes.as_bytes()).unwrap_err(),
            TokenizerError::NoSpecial(MASK)
        );
    }
}
