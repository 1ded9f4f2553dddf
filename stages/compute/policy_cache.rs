//! The policy cache: the last policy that was read, kept between the stages of a process.
//!
//! A stage gets handles of its own on the same memory: gradients and adapters belong to the handles, and no stage
//! writes to the memory, so a stage gives the same bytes with and without the cache. Concurrent stages of one
//! policy share it.
//!
//! The cache adds no policy to the peak of a stage: the kept policy is dropped before another one is read,
//! before a stage that takes memory without it (`sft`, `update`), and when memory was refused. The problems of the
//! last dataset are kept too, since every stage would read and render their rows again. Keeps nothing else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agrpo_spec::{ArtifactDigest, Inputs, Language, StageKind, Task};

use crate::error::Result;
use crate::model::{Placement, Policy};
use crate::problems::Problems;

/// The identity of a policy in memory: its folder, where it is, and whether its adapter is merged.
type Key = (ArtifactDigest, Placement, bool);

/// The settings that determine a task's problems.
type Asking = (Task, Option<Language>);

#[derive(Debug, Default)]
pub(crate) struct PolicyCache {
    policy: Mutex<Option<(Key, Policy)>>,
    problems: Mutex<Option<(Asking, Arc<Problems>)>>,
}

impl PolicyCache {
    fn lock(&self) -> MutexGuard<'_, Option<(Key, Policy)>> {
        // A stage that panicked while it read left `None`, or the entry from before.
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The problems of a task, read from the inputs unless they are those of the last dataset.
    pub(crate) fn problems(
        &self,
        task: &Task,
        language: Option<Language>,
        inputs: &Inputs,
    ) -> Result<Arc<Problems>> {
        let read = || Problems::open(task, language, inputs).map(Arc::new);
        if !matches!(task, Task::Dataset(_)) {
            return read();
        }
        // Held while reading; concurrent callers want the same dataset.
        let mut kept = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        let asking = (task.clone(), language);
        if let Some((_, problems)) = kept.as_ref().filter(|(of, _)| *of == asking) {
            return Ok(Arc::clone(problems));
        }
        let problems = read()?;
        *kept = Some((asking, Arc::clone(&problems)));
        Ok(problems)
    }

    /// The policy of a folder, read by `read` unless it is cached. Concurrent callers wait: most of them want
    /// the same policy.
    pub(crate) fn policy(
        &self,
        folder: ArtifactDigest,
        is_merged: bool,
        at: Placement,
        read: impl FnOnce() -> Result<Policy>,
    ) -> Result<Policy> {
        let key = (folder, at, is_merged);
        let mut kept = self.lock();
        if let Some((_, policy)) = kept.as_ref().filter(|(found, _)| *found == key) {
            return Ok(policy.handles());
        }
        // Dropped first, so that two policies are never in memory at once.
        *kept = None;
        let policy = read()?;
        let handles = policy.handles();
        *kept = Some((key, policy));
        Ok(handles)
    }

    /// Drops the policy before a stage that takes memory without it.
    pub(crate) fn before(&self, kind: StageKind) {
        // The reward stage has no model; the other stages ask for their policy.
        if matches!(kind, StageKind::Sft | StageKind::Update) {
            self.clear();
        }
    }

    pub(crate) fn clear(&self) {
        *self.lock() = None;
    }
}

#[cfg(test)]
mod tests;
