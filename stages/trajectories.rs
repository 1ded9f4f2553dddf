//! Trajectories: what the sampler records and the learner needs, and nothing else.
//!
//! Per written token: id, unmask step, log-probability, entropy, and the kept set where a filter was
//! on. The state before step t is rebuilt from the unmask steps: positions written earlier hold their
//! token, the others the mask. On disk: one safetensors file, tensors named as the fields here.

use agrpo_spec::{ArtifactDigest, StageError, decode, encode};
use bytes::Bytes;
use tch::{Kind, Tensor};

use crate::error::{data, libtorch};
use crate::tensor_file::{self, NamedTensors, floats, integers, take};

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
    /// The policy that sampled them, where a rollout stage did.
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
    /// Rows of prompts with everything still masked.
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

    /// Effective horizon: one more than the last step that wrote anything but end-of-sequence; 0
    /// where nothing else was written. Later steps are never sampled.
    pub fn horizon(&self, row: usize, eos: i64) -> u32 {
        let written = self.steps(row).iter().zip(self.completion(row));
        let last = written.filter(|&(_, &token)| token != eos).map(|(&step, _)| step).max();
        last.map_or(0, |step| u32::try_from(step + 1).unwrap_or(0))
    }

    /// Steps of a row before it was finished, each of them one forward pass over it: one more than the
    /// last that wrote anything.
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

    /// As a safetensors file.
    pub fn to_bytes(&self) -> Result<Bytes, StageError> {
        let shape = |n: usize| i64::try_from(n).expect("lengths fit");
        let (r, p, c) = (shape(self.rows), shape(self.prompt_len), shape(self.completion_len));
        let mut named = NamedTensors::new();
        let mut put = |name: &str, tensor: Tensor| named.insert(name.to_owned(), tensor);
        put("prompt_ids", Tensor::from_slice(&self.prompt_ids).view([r, p]));
        put("completion_ids", Tensor::from_slice(&self.completion_ids).view([r, c]));
        put("unmask_steps", Tensor::from_slice(&self.unmask_steps).view([r, c]));
        put("token_logps", Tensor::from_slice(&self.token_logps).view([r, c]));
        put("token_entropies", Tensor::from_slice(&self.token_entropies).view([r, c]));
        if let Some(policy) = &self.policy {
            put("policy", Tensor::from_slice(&encode(policy)));
        }
        if let Some(kept) = &self.kept {
            put("kept_offsets", Tensor::from_slice(&kept.offsets));
            put("kept_ids", Tensor::from_slice(&kept.ids));
        }
        tensor_file::write(&named)
    }

    /// From a safetensors file; shapes and ranges are checked.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StageError> {
        let mut named = tensor_file::read(bytes, FILE)?;
        let size = |named: &NamedTensors, name: &str| match named.get(name).map(Tensor::size) {
            Some(size) if size.len() == 2 => Ok((size[0], size[1])),
            _ => Err(data(format!("{FILE} has no matrix {name}"))),
        };
        let (r, p) = size(&named, "prompt_ids")?;
        let (_, c) = size(&named, "completion_ids")?;
        // Rows without tokens would be as many as the header likes to say.
        if [r, p, c].contains(&0) {
            return Err(data(format!(
                "{FILE}: {r} rows of {p} + {c} tokens, expected some of each"
            )));
        }
        let mut get = |name: &str, columns: i64, kind: Kind| {
            take(&mut named, FILE, name, &[r, columns], kind)
        };
        let length = |n: i64| usize::try_from(n).expect("sizes are not negative");
        let mut trajectories = Self {
            policy: None,
            rows: length(r),
            prompt_len: length(p),
            completion_len: length(c),
            prompt_ids: integers(&get("prompt_ids", p, Kind::Int64)?)?,
            completion_ids: integers(&get("completion_ids", c, Kind::Int64)?)?,
            unmask_steps: integers(&get("unmask_steps", c, Kind::Int64)?)?,
            token_logps: floats(&get("token_logps", c, Kind::Float)?)?,
            token_entropies: floats(&get("token_entropies", c, Kind::Float)?)?,
            kept: None,
        };
        if let Some(policy) = named.remove("policy") {
            let bytes: Vec<u8> = Vec::try_from(policy.flatten(0, -1)).map_err(|e| libtorch(&e))?;
            let digest =
                decode(&bytes).ok_or_else(|| data(format!("{FILE}: policy is no digest")))?;
            trajectories.policy = Some(digest);
        }
        if let (Some(offsets), Some(ids)) = (named.remove("kept_offsets"), named.remove("kept_ids"))
        {
            trajectories.kept =
                Some(KeptSets { offsets: integers(&offsets)?, ids: integers(&ids)? });
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
