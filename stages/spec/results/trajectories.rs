//! Trajectories: what a rollout records and a gradient needs, and nothing else. One safetensors file.
//!
//! ```text
//! prompt_ids        I64 [R, P]
//! completion_ids    I64 [R, C]
//! unmask_steps      I64 [R, C]     -1: never written
//! token_logps       F32 [R, C]
//! token_entropies   F32 [R, C]
//! policy            U8 [32]        absent where no rollout stage sampled
//! kept_offsets      I64 [R C + 1]  absent, with kept_ids, where no filter was on
//! kept_ids          I64 [n]
//! ```
//! The state before step t is rebuilt from the unmask steps: positions written earlier hold their token, the
//! others the mask. Equal trajectories give equal bytes. Numbers are plain vectors here: nothing is computed.

use std::borrow::Cow;

use bytes::Bytes;
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::artifact::StageError;
use crate::digest::{ArtifactDigest, decode, encode};
use crate::message::Message;

/// The unmask step of a position that no action wrote: the rest of a row that stopped early.
pub const NEVER: i64 = -1;

/// The tokens that a filter kept at each written position, as ids. Row-major over R x C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSets {
    /// R * C + 1 offsets into `ids`; a position's set is `ids[offsets[n]..offsets[n + 1]]`.
    pub offsets: Vec<i64>,
    /// Token ids.
    pub ids: Vec<i64>,
}

/// R completions of C tokens after prompts of P tokens; all vectors row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Trajectories {
    /// The policy that sampled them, if a rollout stage did.
    pub policy: Option<ArtifactDigest>,
    /// Rows, R: the completions of a prompt follow one another.
    pub rows: usize,
    /// Prompt tokens, P.
    pub prompt_len: usize,
    /// Completion tokens, C.
    pub completion_len: usize,
    /// R x P.
    pub prompt_ids: Vec<i64>,
    /// R x C.
    pub completion_ids: Vec<i64>,
    /// R x C: the step that wrote each token, or [`NEVER`].
    pub unmask_steps: Vec<i64>,
    /// R x C: log-probability under the sampling distribution, tempered and filtered.
    pub token_logps: Vec<f32>,
    /// R x C: entropy of that distribution, in nats.
    pub token_entropies: Vec<f32>,
    /// Present where top-k or top-p was on; otherwise every token but the mask was kept.
    pub kept: Option<KeptSets>,
}

const FILE: &str = "trajectories";

impl Trajectories {
    /// Trajectories of prompts, with every completion token still masked.
    pub fn masked(prompt_ids: Vec<i64>, rows: usize, completion_len: usize, mask: i64) -> Self {
        let cells = rows * completion_len;
        Self {
            policy: None,
            rows,
            prompt_len: prompt_ids.len() / rows.max(1),
            completion_len,
            prompt_ids,
            completion_ids: vec![mask; cells],
            unmask_steps: vec![NEVER; cells],
            token_logps: vec![0.0; cells],
            token_entropies: vec![0.0; cells],
            kept: None,
        }
    }

    /// A row's prompt.
    pub fn prompt(&self, row: usize) -> &[i64] {
        &self.prompt_ids[row * self.prompt_len..(row + 1) * self.prompt_len]
    }

    /// A row's completion.
    pub fn completion(&self, row: usize) -> &[i64] {
        &self.completion_ids[row * self.completion_len..(row + 1) * self.completion_len]
    }

    /// A row's unmask steps.
    pub fn steps(&self, row: usize) -> &[i64] {
        &self.unmask_steps[row * self.completion_len..(row + 1) * self.completion_len]
    }

    /// Effective horizon: one more than the last step that wrote anything but end-of-sequence; 0 without one.
    pub fn horizon(&self, row: usize, eos: i64) -> u32 {
        let written = self.steps(row).iter().zip(self.completion(row));
        let last = written.filter(|&(_, &token)| token != eos).map(|(&step, _)| step).max();
        last.map_or(0, |step| u32::try_from(step + 1).unwrap_or(0))
    }

    /// Forward passes over a row before it was finished: one more than the last step that wrote anything.
    pub fn sampled_steps(&self, row: usize) -> u32 {
        let last = self.steps(row).iter().max();
        last.map_or(0, |step| u32::try_from(step + 1).unwrap_or(0))
    }

    /// The whole state of a row before step `t`: prompt, then written tokens or masks.
    pub fn state(&self, row: usize, t: i64, mask: i64) -> Vec<i64> {
        let cells = self.completion(row).iter().zip(self.steps(row));
        let written =
            cells.map(|(&token, &step)| if step != NEVER && step < t { token } else { mask });
        self.prompt(row).iter().copied().chain(written).collect()
    }

    /// As a safetensors file. Error if a vector's length does not follow from rows and lengths.
    pub fn to_bytes(&self) -> Result<Bytes, StageError> {
        let (r, p, c) = (self.rows, self.prompt_len, self.completion_len);
        let integers = |numbers: &[i64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let floats = |numbers: &[f32]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let mut parts = vec![
            ("prompt_ids", Dtype::I64, vec![r, p], integers(&self.prompt_ids)),
            ("completion_ids", Dtype::I64, vec![r, c], integers(&self.completion_ids)),
            ("unmask_steps", Dtype::I64, vec![r, c], integers(&self.unmask_steps)),
            ("token_logps", Dtype::F32, vec![r, c], floats(&self.token_logps)),
            ("token_entropies", Dtype::F32, vec![r, c], floats(&self.token_entropies)),
        ];
        if let Some(policy) = &self.policy {
            let digest = encode(policy);
            parts.push(("policy", Dtype::U8, vec![digest.len()], Cow::Owned(digest)));
        }
        if let Some(KeptSets { offsets, ids }) = &self.kept {
            parts.push(("kept_offsets", Dtype::I64, vec![offsets.len()], integers(offsets)));
            parts.push(("kept_ids", Dtype::I64, vec![ids.len()], integers(ids)));
        }
        write_tensors(&parts)
    }

    /// From a safetensors file; checks shapes and ranges. The error names the tensor that is missing or has
    /// another form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StageError> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| {
            data(Message::caused_by(format!("{FILE} is not a safetensors file: {error}"), error))
        })?;
        let (rows, prompt_len) = size(&file, "prompt_ids")?;
        let (_, completion_len) = size(&file, "completion_ids")?;
        // Without tokens, a header of a few bytes could claim any number of rows.
        if [rows, prompt_len, completion_len].contains(&0) {
            return Err(data(format!(
                "{FILE}: {rows} rows of {prompt_len} + {completion_len} tokens, expected some of each"
            )));
        }
        let integers = |name: &str, columns: usize| {
            numbers(&take(&file, name, Dtype::I64, &[rows, columns])?, i64::from_le_bytes)
        };
        let floats = |name: &str| {
            let tensor = take(&file, name, Dtype::F32, &[rows, completion_len])?;
            numbers(&tensor, f32::from_le_bytes)
        };
        let mut trajectories = Self {
            policy: None,
            rows,
            prompt_len,
            completion_len,
            prompt_ids: integers("prompt_ids", prompt_len)?,
            completion_ids: integers("completion_ids", completion_len)?,
            unmask_steps: integers("unmask_steps", completion_len)?,
            token_logps: floats("token_logps")?,
            token_entropies: floats("token_entropies")?,
            kept: None,
        };
        if let Ok(policy) = file.tensor("policy") {
            let digest = decode(policy.data()).filter(|_| policy.dtype() == Dtype::U8);
            let digest = digest.ok_or_else(|| data(format!("{FILE}: policy is no digest")))?;
            trajectories.policy = Some(digest);
        }
        if let (Ok(offsets), Ok(ids)) = (file.tensor("kept_offsets"), file.tensor("kept_ids")) {
            let list = |name: &str, tensor: &TensorView<'_>| {
                let tensor = take(&file, name, Dtype::I64, tensor.shape())?;
                numbers(&tensor, i64::from_le_bytes)
            };
            let (offsets, ids) = (list("kept_offsets", &offsets)?, list("kept_ids", &ids)?);
            trajectories.kept = Some(KeptSets { offsets, ids });
        }
        trajectories.check()?;
        Ok(trajectories)
    }

    fn check(&self) -> Result<(), StageError> {
        let c = i64::try_from(self.completion_len).expect("lengths fit");
        if self.unmask_steps.iter().any(|step| !(NEVER..c).contains(step)) {
            return Err(data(format!("{FILE}: an unmask step lies outside -1..{c}")));
        }
        let Some(kept) = &self.kept else { return Ok(()) };
        let ends = (kept.offsets.first(), kept.offsets.last());
        let whole = ends == (Some(&0), Some(&i64::try_from(kept.ids.len()).expect("lengths fit")))
            && kept.offsets.len() == self.rows * self.completion_len + 1
            && kept.offsets.is_sorted();
        if whole { Ok(()) } else { Err(data(format!("{FILE}: kept_offsets do not fit kept_ids"))) }
    }

    /// The tokens kept at a cell (row-major index), where a filter was on.
    pub fn kept_at(&self, cell: usize) -> Option<&[i64]> {
        let kept = self.kept.as_ref()?;
        let at = |n: usize| usize::try_from(kept.offsets[n]).unwrap_or(0);
        Some(&kept.ids[at(cell)..at(cell + 1)])
    }
}

/// Name, type, shape and bytes of a tensor.
pub type TensorParts<'a> = (&'a str, Dtype, Vec<usize>, Cow<'a, [u8]>);

/// A safetensors file with the metadata `format: pt`, as Hugging Face's loaders ask for. Error if a tensor's bytes do
/// not fit its shape.
pub fn write_tensors(parts: &[TensorParts<'_>]) -> Result<Bytes, StageError> {
    let failed = |error| {
        StageError::Internal(Message::caused_by(format!("writing safetensors: {error}"), error))
    };
    let views = parts.iter().map(|(name, dtype, shape, raw)| {
        TensorView::new(*dtype, shape.clone(), raw).map(|view| (*name, view))
    });
    let views = views.collect::<Result<Vec<_>, SafeTensorError>>().map_err(failed)?;
    let metadata = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    safetensors::serialize(views, Some(metadata)).map(Bytes::from).map_err(failed)
}

fn data(reason: impl Into<Message>) -> StageError {
    StageError::Data(reason.into())
}

/// Rows and columns of a matrix.
fn size(file: &SafeTensors<'_>, name: &str) -> Result<(usize, usize), StageError> {
    match file.tensor(name).map(|tensor| tensor.shape().to_vec()).as_deref() {
        Ok(&[rows, columns]) => Ok((rows, columns)),
        _ => Err(data(format!("{FILE} has no matrix {name}"))),
    }
}

/// A tensor of this form.
fn take<'a>(
    file: &SafeTensors<'a>,
    name: &str,
    dtype: Dtype,
    shape: &[usize],
) -> Result<TensorView<'a>, StageError> {
    let tensor = file.tensor(name).map_err(|_| data(format!("{FILE} has no tensor {name}")))?;
    let (found, found_shape) = (tensor.dtype(), tensor.shape());
    if found == dtype && found_shape == shape {
        return Ok(tensor);
    }
    Err(data(format!("{FILE}: {name} is {found:?} {found_shape:?}, expected {dtype:?} {shape:?}")))
}

/// The numbers of a tensor, row-major.
fn numbers<T, const N: usize>(
    tensor: &TensorView<'_>,
    number: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, StageError> {
    let (numbers, rest) = tensor.data().as_chunks::<N>();
    if !rest.is_empty() {
        return Err(data(format!("{FILE}: a tensor ends within a number")));
    }
    Ok(numbers.iter().map(|&bytes| number(bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results are named by their bytes.
    #[test]
    fn the_file_is_frozen_and_is_read_back() {
        let mut all = Trajectories::masked(vec![3, 4, 5, 6], 2, 3, 9);
        all.unmask_steps = vec![0, 1, NEVER, 2, NEVER, NEVER];
        all.token_logps[1] = -0.5;
        let plain = ArtifactDigest::of(&all.to_bytes().unwrap()).to_string();
        all.policy = Some(ArtifactDigest::of(b"policy"));
        all.kept = Some(KeptSets { offsets: vec![0, 2, 3, 3, 4, 4, 4], ids: vec![1, 2, 3, 4] });
        let bytes = all.to_bytes().unwrap();
        assert_eq!(Trajectories::from_bytes(&bytes).unwrap(), all);
        insta::assert_snapshot!(format!("{plain}\n{}", ArtifactDigest::of(&bytes)), @"
        0f3dbe571f18b61af6fb72fe584f18bc9b471d395dbeaadfcbe07c07b5e78411
        a1ac844bb64be91522d4a3e6666bc77abb70a5649ff4fc523860b8bb532aaba1
        ");
    }
}
