//! A trajectory as text: each token with the step that wrote it and its probability.
//!
//! The files that it reads, the rollout's and the tokenizer's, are untrusted. Escapes nothing: pages do.

use agrpo_spec::{FolderListing, Manifest, RolloutSpec, trajectories};
use agrpo_store::{JobsError, Result, Store};
use serde::Serialize;
use tokenizers::{Tokenizer, decoders::byte_level::ByteLevel, decoders::fuse::Fuse};

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
}

impl Trajectories {
    /// The trajectories that a rollout left. Data error where they or the policy's tokenizer are lost or corrupt.
    pub async fn read(store: &Store, spec: &RolloutSpec, manifest: &Manifest) -> Result<Self> {
        let lacks = |what: &str| JobsError::data(format!("stage {} has no {what}", manifest.stage));
        let listing = FolderListing::from_bytes(&store.cas.get(spec.policy).await?);
        let listing = listing.ok_or_else(|| lacks("policy that is a folder"))?;
        let entry = listing.files.get("tokenizer.json");
        let tokenizer = entry.ok_or_else(|| lacks("policy with a tokenizer.json"))?.digest;
        let tokenizer = store.cas.get(tokenizer).await?;
        let digest = manifest.output("trajectories").ok_or_else(|| lacks("trajectories"))?;
        Self::parse(&tokenizer, &store.cas.get(digest).await?)
    }

    fn parse(tokenizer: &[u8], file: &[u8]) -> Result<Self> {
        let mut tokenizer = Tokenizer::from_bytes(tokenizer)
            .map_err(|error| JobsError::data(format!("tokenizer.json cannot be read: {error}")))?;
        // Without a decoder the crate puts a space between tokens, and bytes stay the letters they borrow.
        if tokenizer.get_decoder().is_none() {
            let cut = serde_json::to_string(&tokenizer.get_pre_tokenizer()).unwrap_or_default();
            match cut.contains("\"ByteLevel\"") {
                true => tokenizer.with_decoder(Some(ByteLevel::default())),
                false => tokenizer.with_decoder(Some(Fuse::new())),
            };
        }
        let all = trajectories::Trajectories::from_bytes(file).map_err(|error| {
            JobsError::data(format!("the trajectories cannot be read: {error}"))
        })?;
        Ok(Self { tokenizer, all })
    }

    /// One of them; `None` beyond the last.
    pub fn trajectory(&self, row: usize) -> Option<Trajectory> {
        if row >= self.all.rows {
            return None;
        }
        let token = |cell: usize| Token {
            text: self.piece(self.all.completion_ids[cell]),
            step: u32::try_from(self.all.unmask_steps[cell]).ok(),
            probability: f64::from(self.all.token_logps[cell]).exp().clamp(0.0, 1.0),
            entropy: f64::from(self.all.token_entropies[cell]),
        };
        let len = self.all.completion_len;
        let tokens: Vec<Token> = (row * len..(row + 1) * len).map(token).collect();
        let last = tokens.iter().filter_map(|token| token.step).max();
        Some(Trajectory {
            row,
            prompt: self.all.prompt(row).iter().map(|&id| self.piece(id)).collect(),
            steps: last.map_or(0, |last| last + 1),
            tokens,
        })
    }

    /// Prompt and completion of a row as text, without padding; `None` beyond the last. A character may be several
    /// tokens, so a text is more than its tokens' texts.
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
            let ids = tokens.into_iter().filter(|(_, token)| token != END).map(|(id, _)| id);
            let ids: Vec<u32> = ids.collect();
            text.push_str(&self.tokenizer.decode(&ids, false).unwrap_or_default());
        }
        text.trim_start().to_owned()
    }

    /// What a token writes by itself: nothing for padding and end, replacement characters for parts of characters.
    fn piece(&self, id: i64) -> String {
        let text = u32::try_from(id).ok().and_then(|id| self.tokenizer.decode(&[id], true).ok());
        text.unwrap_or_else(|| format!("<{id}>"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::trajectories;

    /// Byte-level tokens: G with a dot is a space, A with a tilde and the copyright sign are one letter's bytes.
    fn tokenizer(has_decoder: bool) -> Value {
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
        });
        let special = |id: u32, text: &str| {
            json!({
                "id": id, "content": text, "special": true, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false,
            })
        };
        json!({
            "version": "1.0", "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null,
            "added_tokens": [special(4, "<|endoftext|>"), special(5, "<|mdm_mask|>")],
            "decoder": has_decoder.then_some(&byte_level),
            "model": {
                "type": "BPE", "merges": [],
                "vocab": { "Sort": 0, "\u{120}the": 1, "\u{c3}": 2, "\u{a9}": 3 },
            },
        })
    }

    #[test]
    fn people_read_text_and_not_the_letters_that_bytes_borrow() {
        let file = trajectories(1, &[4, 4, 0, 1], &[2, 3, 1, 5, 9, 4, 4]);
        for has_decoder in [true, false] {
            let tokenizer = tokenizer(has_decoder).to_string();
            let all = Trajectories::parse(tokenizer.as_bytes(), &file).unwrap();
            let (prompt, completion) = all.texts(0).unwrap();
            assert_eq!(prompt, "Sort the", "{has_decoder}");
            assert_eq!(completion, "\u{e9} the<|mdm_mask|><9>", "{has_decoder}");
            assert_eq!(all.trajectory(0).unwrap().prompt, "Sort the");
            assert_eq!(all.texts(1), None);
        }
    }

    #[test]
    fn letters_are_put_together_without_a_decoder() {
        let mut plain = tokenizer(false);
        plain["pre_tokenizer"] = json!(null);
        let all =
            Trajectories::parse(plain.to_string().as_bytes(), &trajectories(1, &[0, 0], &[0]))
                .unwrap();
        assert_eq!(all.texts(0).unwrap(), ("SortSort".into(), "Sort".into()));
    }
}
