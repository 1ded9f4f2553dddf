//! A trajectory as text: each token with the step that wrote it and its probability.
//!
//! Read from the files of a rollout and of the policy's tokenizer; both are untrusted. Text is plain here: pages
//! and terminals escape it.

use std::collections::BTreeMap;

use agrpo_spec::{FolderListing, Manifest, RolloutSpec, trajectories};
use agrpo_store::Store;
use serde::Serialize;
use tokenizers::Tokenizer;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::decoders::fuse::Fuse;

use crate::ViewError;

/// Ends a completion, and pads it.
const END: &str = "<|endoftext|>";

/// A token of a completion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Token {
    /// What it writes.
    pub text: String,
    /// The unmask step that wrote it, from 0; none where the completion had ended before.
    pub step: Option<u32>,
    /// The probability with which it was drawn, from 0 to 1.
    pub probability: f64,
    /// Entropy of the distribution that it was drawn from, in nats.
    pub entropy: f64,
}

/// One completion and how it came about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trajectory {
    /// Its row in the rollout, from 0.
    pub row: usize,
    /// What was asked.
    pub prompt: String,
    /// Its tokens, from left to right.
    pub tokens: Vec<Token>,
    /// How many steps there were.
    pub steps: u32,
}

impl Trajectory {
    /// The completion as text.
    pub fn completion(&self) -> String {
        self.tokens.iter().map(|token| token.text.as_str()).collect()
    }
}

/// The trajectories of one rollout.
#[derive(Debug)]
pub struct Trajectories {
    tokenizer: Tokenizer,
    all: trajectories::Trajectories,
    pieces: BTreeMap<u32, String>,
}

impl Trajectories {
    /// The trajectories that a rollout left. Data error where the store has lost them, or where they or the
    /// policy's tokenizer are not what they should be.
    pub async fn read(
        store: &Store,
        spec: &RolloutSpec,
        manifest: &Manifest,
    ) -> Result<Self, ViewError> {
        let lacks = |what: &str| ViewError::Data(format!("stage {} has no {what}", manifest.stage));
        let listing = FolderListing::from_bytes(&store.get_blob(spec.policy).await?);
        let listing = listing.ok_or_else(|| lacks("policy that is a folder"))?;
        let entry = listing.files.get("tokenizer.json");
        let tokenizer = entry.ok_or_else(|| lacks("policy with a tokenizer.json"))?.digest;
        let tokenizer = store.get_blob(tokenizer).await?;
        let digest = manifest.output("trajectories").ok_or_else(|| lacks("trajectories"))?;
        Self::parse(&tokenizer, &store.get_blob(digest).await?)
    }

    /// The same from bytes.
    pub fn parse(tokenizer: &[u8], file: &[u8]) -> Result<Self, ViewError> {
        let refuse = |what: &str, why: &dyn std::fmt::Display| {
            ViewError::Data(format!("{what} cannot be read: {why}"))
        };
        let mut tokenizer =
            Tokenizer::from_bytes(tokenizer).map_err(|error| refuse("tokenizer.json", &error))?;
        // Without a decoder the crate puts a space between tokens, and bytes stay the letters they borrow.
        if tokenizer.get_decoder().is_none() {
            let cut = serde_json::to_string(&tokenizer.get_pre_tokenizer()).unwrap_or_default();
            match cut.contains("\"ByteLevel\"") {
                true => tokenizer.with_decoder(Some(ByteLevel::default())),
                false => tokenizer.with_decoder(Some(Fuse::new())),
            };
        }
        let all = trajectories::Trajectories::from_bytes(file)
            .map_err(|error| refuse("the trajectories", &error))?;
        let mut read = Self { tokenizer, all, pieces: BTreeMap::new() };
        read.pieces = read.all_pieces();
        Ok(read)
    }

    /// How many there are.
    pub fn rows(&self) -> usize {
        self.all.rows
    }

    /// One of them; `None` beyond the last.
    pub fn trajectory(&self, row: usize) -> Option<Trajectory> {
        if row >= self.all.rows {
            return None;
        }
        let cells = row * self.all.completion_len..(row + 1) * self.all.completion_len;
        let logps = self.all.token_logps[cells.clone()].iter();
        let sure = logps.zip(&self.all.token_entropies[cells]);
        let cells = self.all.completion(row).iter().zip(self.all.steps(row));
        let token = |((&id, &step), (&logp, &entropy)): ((&i64, &i64), (&f32, &f32))| Token {
            text: self.piece(id),
            step: u32::try_from(step).ok(),
            probability: f64::from(logp).exp().clamp(0.0, 1.0),
            entropy: f64::from(entropy),
        };
        let tokens: Vec<Token> = cells.zip(sure).map(token).collect();
        let last = tokens.iter().filter_map(|token| token.step).max();
        Some(Trajectory {
            row,
            prompt: self.all.prompt(row).iter().map(|&id| self.piece(id)).collect(),
            steps: last.map_or(0, |last| last + 1),
            tokens,
        })
    }

    /// Prompt and completion of a row as text, without the mark of the end that pads them; `None` beyond the
    /// last. A character may be several tokens, so a text is more than its tokens' texts.
    pub fn texts(&self, row: usize) -> Option<(String, String)> {
        let texts = || (self.text(self.all.prompt(row)), self.text(self.all.completion(row)));
        (row < self.all.rows).then(texts)
    }

    fn text(&self, ids: &[i64]) -> String {
        let known = |id: &i64| {
            let id = u32::try_from(*id).ok()?;
            self.tokenizer.id_to_token(id).map(|token| (id, token))
        };
        let mut text = String::new();
        for run in ids.chunk_by(|a, b| known(a).is_some() == known(b).is_some()) {
            let tokens: Vec<_> = run.iter().filter_map(known).collect();
            if tokens.is_empty() {
                text.extend(run.iter().map(|id| format!("<{id}>")));
            }
            let ids: Vec<u32> =
                tokens.into_iter().filter(|(_, token)| token != END).map(|(id, _)| id).collect();
            text.push_str(&self.tokenizer.decode(&ids, false).unwrap_or_default());
        }
        text.trim_start().to_owned()
    }

    /// What a token writes; the marks of padding and of the end write nothing.
    fn piece(&self, id: i64) -> String {
        let known = u32::try_from(id).ok().and_then(|id| self.pieces.get(&id));
        known.cloned().unwrap_or_else(|| format!("<{id}>"))
    }

    /// Every token of the file by itself. A token of bytes that are no text alone shows as replacement
    /// characters.
    fn all_pieces(&self) -> BTreeMap<u32, String> {
        let ids = self.all.prompt_ids.iter().chain(&self.all.completion_ids);
        let ids: std::collections::BTreeSet<u32> =
            ids.filter_map(|&id| u32::try_from(id).ok()).collect();
        let piece = |id: u32| {
            let text = self.tokenizer.decode(&[id], true).ok()?;
            Some((id, text))
        };
        ids.into_iter().filter_map(piece).collect()
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{Dtype, TensorView};
    use serde_json::{Value, json};

    use super::*;

    /// Byte-level tokens as published tokenizers have them: G with a dot is a space, A with a tilde and the
    /// sign of copyright are the two bytes of an accented letter.
    fn tokenizer(decoder: &Value) -> Vec<u8> {
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
        });
        let decoder =
            if *decoder == json!("ByteLevel") { byte_level.clone() } else { decoder.clone() };
        let special = |id: u32, text: &str| {
            json!({
                "id": id, "content": text, "special": true, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false,
            })
        };
        let file = json!({
            "version": "1.0", "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null,
            "added_tokens": [special(4, "<|endoftext|>"), special(5, "<|mdm_mask|>")],
            "decoder": decoder,
            "model": {
                "type": "BPE", "merges": [],
                "vocab": { "Sort": 0, "\u{120}the": 1, "\u{c3}": 2, "\u{a9}": 3 },
            },
        });
        file.to_string().into_bytes()
    }

    fn trajectories(prompt: &[i64], completion: &[i64]) -> Vec<u8> {
        let bytes = |ids: &[i64]| ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>();
        let (prompt_ids, completion_ids) = (bytes(prompt), bytes(completion));
        let (steps, zeros) = (bytes(&vec![0; completion.len()]), vec![0; 4 * completion.len()]);
        let view =
            |dtype, ids: &[i64], bytes| TensorView::new(dtype, vec![1, ids.len()], bytes).unwrap();
        let views = [
            ("prompt_ids", view(Dtype::I64, prompt, &prompt_ids)),
            ("completion_ids", view(Dtype::I64, completion, &completion_ids)),
            ("unmask_steps", view(Dtype::I64, completion, &steps)),
            ("token_logps", view(Dtype::F32, completion, &zeros)),
            ("token_entropies", view(Dtype::F32, completion, &zeros)),
        ];
        safetensors::serialize(views, None).unwrap()
    }

    #[test]
    fn people_read_text_and_not_the_letters_that_bytes_borrow() {
        let file = trajectories(&[4, 4, 0, 1], &[2, 3, 1, 5, 9, 4, 4]);
        for decoder in [json!("ByteLevel"), json!(null)] {
            let all = Trajectories::parse(&tokenizer(&decoder), &file).unwrap();
            let (prompt, completion) = all.texts(0).unwrap();
            assert_eq!(prompt, "Sort the", "{decoder}");
            assert_eq!(completion, "\u{e9} the<|mdm_mask|><9>", "{decoder}");
            assert_eq!(all.trajectory(0).unwrap().prompt, "Sort the");
            assert_eq!(all.texts(1), None);
        }
    }

    #[test]
    fn letters_are_put_together_without_a_decoder() {
        let mut plain: Value = serde_json::from_slice(&tokenizer(&json!(null))).unwrap();
        plain["pre_tokenizer"] = json!(null);
        let plain = plain.to_string().into_bytes();
        let all = Trajectories::parse(&plain, &trajectories(&[0, 0], &[0])).unwrap();
        assert_eq!(all.texts(0).unwrap(), ("SortSort".into(), "Sort".into()));
    }
}
