//! The policy cache: the frozen base that was read last, with the last adapter on it, kept between the stages of a
//! process.
//!
//! A base is named by its own files: the digest of its folder without an adapter's two. Updates move the adapter
//! alone, so every policy of a run has the same base, which is read and uploaded once; an adapter is read for each
//! policy. A stage gets handles of its own on the same memory: gradients and adapters belong to the handles, and no
//! stage writes to the memory, so a stage gives the same bytes with and without the cache. Concurrent stages of one
//! base share it.
//!
//! Memory is bounded: one base, one adapter. A policy whose adapter is merged into its weights is kept instead of
//! its base, from which it is made if that is in memory. What is kept is dropped before another base is read, before
//! a stage that takes memory without it (`sft`, and an `update` that moves all weights), and when memory was refused.
//! Keeps no problems.

use std::sync::{Mutex, MutexGuard, PoisonError};

use agrpo_spec::{Artifact, ArtifactDigest, Files, StageSpec};

use crate::error::{Result, data_from};
use crate::model::{Placement, Policy, base_files, has_adapter};

/// What is in memory.
#[derive(Debug)]
struct Resident {
    /// The folder of the base alone.
    base: ArtifactDigest,
    at: Placement,
    /// The folder whose adapter is merged into the weights, if one is.
    merged: Option<ArtifactDigest>,
    /// The base, or the merged policy.
    policy: Policy,
    /// The last policy with an adapter on this base, by its folder.
    adapted: Option<(ArtifactDigest, Policy)>,
}

impl Resident {
    fn is_base(&self, base: ArtifactDigest, at: Placement) -> bool {
        self.merged.is_none() && (self.base, self.at) == (base, at)
    }

    /// The policy of a folder, if it is in memory.
    fn find(&self, folder: ArtifactDigest, is_merged: bool, at: Placement) -> Option<&Policy> {
        if self.at != at {
            return None;
        }
        if let Some(merged) = self.merged {
            return (is_merged && merged == folder).then_some(&self.policy);
        }
        if self.base == folder {
            return Some(&self.policy);
        }
        let (of, policy) = self.adapted.as_ref()?;
        (!is_merged && *of == folder).then_some(policy)
    }
}

#[derive(Debug, Default)]
pub(crate) struct PolicyCache(Mutex<Option<Resident>>);

impl PolicyCache {
    fn lock(&self) -> MutexGuard<'_, Option<Resident>> {
        // A stage that panicked while it read left `None`, or a base without its adapter.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The policy of a folder, with its adapter if it has one, which `merge` adds to the weights. Of what is not in
    /// memory, reads no more than it takes. Concurrent callers wait: most of them want the same base.
    pub(crate) fn policy(
        &self,
        folder: ArtifactDigest,
        files: &Files,
        merge: bool,
        at: Placement,
    ) -> Result<Policy> {
        let mut kept = self.lock();
        if let Some(policy) = kept.as_ref().and_then(|kept| kept.find(folder, merge, at)) {
            return Ok(policy.handles());
        }
        let is_adapted = has_adapter(files);
        let own = base_files(files);
        let base = if is_adapted { name(&own)? } else { folder };
        // Dropped first, so that the cache never holds two.
        let standing = kept.take().filter(|kept| kept.is_base(base, at));
        let mut resident = match standing {
            Some(resident) => Resident { adapted: None, ..resident },
            None => {
                let policy = Policy::from_folder_at(&own, at)?;
                Resident { base, at, merged: None, policy, adapted: None }
            }
        };
        if is_adapted && merge {
            resident.policy = resident.policy.with_adapter(files)?.merged();
            resident.merged = Some(folder);
        } else if is_adapted {
            let base = resident.policy.handles();
            // The base stays, whatever its adapter is.
            let resident = kept.insert(resident);
            let policy = base.with_adapter(files)?;
            let handles = policy.handles();
            resident.adapted = Some((folder, policy));
            return Ok(handles);
        }
        Ok(kept.insert(resident).policy.handles())
    }

    /// Drops the policy before a stage that takes memory without it.
    pub(crate) fn before(&self, spec: &StageSpec) {
        match spec {
            StageSpec::Sft(_) => self.clear(),
            // An update of an adapter does not read the base, which the next stage needs again.
            StageSpec::Update(spec) if spec.lora.is_none() => self.clear(),
            // Grading has no model; the other stages ask for their policy.
            _ => {}
        }
    }

    pub(crate) fn clear(&self) {
        *self.lock() = None;
    }
}

/// The name of a folder of these files. Large ones are named by the store, and not read.
fn name(files: &Files) -> Result<ArtifactDigest> {
    Artifact::Folder(files.clone()).digest().map_err(|error| {
        data_from(format!("a file of the policy's base cannot be read: {error}"), error)
    })
}

#[cfg(test)]
mod tests;
