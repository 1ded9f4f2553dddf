//! A trajectory as text: which token was written in which step, and how sure the policy was of it.
//!
//! Read from the files of a rollout and of the policy's tokenizer, and believed in nothing: both come from
//! outside. Text is text here; whoever shows it escapes it.

use std::collections::BTreeMap;

use agrpo_jobs::Store;
use agrpo_spec::{FolderListing, Manifest, RolloutSpec};
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;
use tokenizers::Tokenizer;

use crate::ViewError;

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
    rows: usize,
    prompts: Matrix<i64>,
    completions: Matrix<i64>,
    steps: Matrix<i64>,
    log_probabilities: Matrix<f32>,
    entropies: Matrix<f32>,
    pieces: BTreeMap<u32, String>,
}

/// Numbers, row-major.
#[derive(Debug)]
struct Matrix<T> {
    columns: usize,
    numbers: Vec<T>,
}

impl<T> Matrix<T> {
    fn row(&self, row: usize) -> &[T] {
        &self.numbers[row * self.columns..(row + 1) * self.columns]
    }
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
        let tokenizer =
            Tokenizer::from_bytes(tokenizer).map_err(|error| refuse("tokenizer.json", &error))?;
        let file =
            SafeTensors::deserialize(file).map_err(|error| refuse("the trajectories", &error))?;
        let prompts = matrix(&file, "prompt_ids", Dtype::I64, i64::from_le_bytes)?;
        let completions = matrix(&file, "completion_ids", Dtype::I64, i64::from_le_bytes)?;
        let steps = matrix(&file, "unmask_steps", Dtype::I64, i64::from_le_bytes)?;
        let log_probabilities = matrix(&file, "token_logps", Dtype::F32, f32::from_le_bytes)?;
        let entropies = matrix(&file, "token_entropies", Dtype::F32, f32::from_le_bytes)?;
        let cells = completions.numbers.len();
        let rows = cells / completions.columns.max(1);
        let fits = [steps.numbers.len(), log_probabilities.numbers.len(), entropies.numbers.len()]
            .into_iter()
            .all(|count| count == cells);
        if !fits || prompts.numbers.len() != rows * prompts.columns {
            return Err(refuse("the trajectories", &"their tensors differ in shape"));
        }
        let pieces = BTreeMap::new();
        let mut all = Self {
            tokenizer,
            rows,
            prompts,
            completions,
            steps,
            log_probabilities,
            entropies,
            pieces,
        };
        all.pieces = all.all_pieces();
        Ok(all)
    }

    /// How many there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// One of them; `None` beyond the last.
    pub fn trajectory(&self, row: usize) -> Option<Trajectory> {
        if row >= self.rows {
            return None;
        }
        let cells = self.completions.row(row).iter().zip(self.steps.row(row));
        let sure = self.log_probabilities.row(row).iter().zip(self.entropies.row(row));
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
            prompt: self.prompts.row(row).iter().map(|&id| self.piece(id)).collect(),
            steps: last.map_or(0, |last| last + 1),
            tokens,
        })
    }

    /// What a token writes; the marks of padding and of the end write nothing.
    fn piece(&self, id: i64) -> String {
        let known = u32::try_from(id).ok().and_then(|id| self.pieces.get(&id));
        known.cloned().unwrap_or_else(|| format!("<{id}>"))
    }

    /// Every token of the file by itself. A token of bytes that are no text alone shows as replacement
    /// characters.
    fn all_pieces(&self) -> BTreeMap<u32, String> {
        let ids = self.prompts.numbers.iter().chain(&self.completions.numbers);
        let ids: std::collections::BTreeSet<u32> =
            ids.filter_map(|&id| u32::try_from(id).ok()).collect();
        let piece = |id: u32| {
            let text = self.tokenizer.decode(&[id], true).ok()?;
            Some((id, text))
        };
        ids.into_iter().filter_map(piece).collect()
    }
}

/// A matrix of a file.
fn matrix<T, const N: usize>(
    file: &SafeTensors<'_>,
    name: &str,
    dtype: Dtype,
    number: impl Fn([u8; N]) -> T,
) -> Result<Matrix<T>, ViewError> {
    let refuse = |why: String| ViewError::Data(format!("the trajectories' tensor {name} {why}"));
    let tensor = file.tensor(name).map_err(|_| refuse("is missing".into()))?;
    let (found, shape) = (tensor.dtype(), tensor.shape());
    let &[_, columns] = shape else {
        return Err(refuse(format!("has the shape {shape:?}, expected a matrix")));
    };
    if found != dtype {
        return Err(refuse(format!("is {found:?}, expected {dtype:?}")));
    }
    let (numbers, rest) = tensor.data().as_chunks::<N>();
    if !rest.is_empty() {
        return Err(refuse("breaks off".into()));
    }
    Ok(Matrix { columns, numbers: numbers.iter().map(|&bytes| number(bytes)).collect() })
}
