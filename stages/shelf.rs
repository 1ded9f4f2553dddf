//! The last policy that was read, kept between the stages of a process.
//!
//! ```text
//! rollout -> (reward) -> gradient -> ... one policy, read once
//! ```
//! One policy is kept, by the digest of its folder and by where and in which kind it was read. Whoever takes
//! it gets handles of their own on the same memory: gradients and adapters belong to the handles, and nobody
//! writes to the memory, so a stage gives the same bytes whoever read its policy. Stages of one policy at
//! the same time share it.
//!
//! It adds no policy to what stages hold at their peak: before another one is read the kept one goes, and so
//! it does before a stage that takes memory without it (`sft`, `update`) and where memory was refused.
//! Between stages a process holds it. Beside it the problems of the last dataset are kept, whose rows would
//! be read and rendered anew by every stage; they follow from the task alone. Nothing else of a stage is kept. A policy of the size of `countdown`'s
//! is read in 0.1 ms, so that nothing is saved; one of 97.5 million weights in seconds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agrpo_spec::{ArtifactDigest, Inputs, Language, StageError, StageKind, Task};
use tch::{Device, Kind};

use crate::model::{Placement, Policy};
use crate::problems::Problems;

/// What makes a policy in memory this one and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    folder: ArtifactDigest,
    device: Device,
    kind: Kind,
    /// Whether its adapter is merged into it.
    is_merged: bool,
}

/// From which problems follow.
type Asking = (Task, Option<Language>);

/// Room for one policy, and for the problems of one dataset.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    policy: Mutex<Option<(Key, Policy)>>,
    problems: Mutex<Option<(Asking, Arc<Problems>)>>,
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, Option<(Key, Policy)>> {
        // A stage that broke off while it read left nothing there, or what was whole before.
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The problems of a task, read from the inputs unless they are those of the dataset that was asked last.
    pub(crate) fn problems(
        &self,
        task: &Task,
        language: Option<Language>,
        inputs: &Inputs,
    ) -> Result<Arc<Problems>, StageError> {
        let read = || Problems::open(task, language, inputs).map(Arc::new);
        if !matches!(task, Task::Dataset(_)) {
            return read();
        }
        // Whoever reads them lets the others wait: they want the same.
        let mut kept = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        let asking = (task.clone(), language);
        if let Some((_, problems)) = kept.as_ref().filter(|(of, _)| *of == asking) {
            return Ok(Arc::clone(problems));
        }
        let problems = read()?;
        *kept = Some((asking, Arc::clone(&problems)));
        Ok(problems)
    }

    /// The policy of a folder, read by `read` unless it is here. Others wait meanwhile: most of them want
    /// the same one.
    pub(crate) fn policy(
        &self,
        folder: ArtifactDigest,
        is_merged: bool,
        at: Placement,
        read: impl FnOnce() -> Result<Policy, StageError>,
    ) -> Result<Policy, StageError> {
        let key = Key { folder, device: at.device, kind: at.kind, is_merged };
        let mut kept = self.lock();
        if let Some((_, policy)) = kept.as_ref().filter(|(found, _)| *found == key) {
            return Ok(policy.handles());
        }
        // Two are never here at once.
        *kept = None;
        let policy = read()?;
        let handles = policy.handles();
        *kept = Some((key, policy));
        Ok(handles)
    }

    /// Makes room for a stage that takes memory and does not use the kept policy.
    pub(crate) fn before(&self, kind: StageKind) {
        match kind {
            StageKind::Sft | StageKind::Update => self.clear(),
            // A reward has no model; the others ask for their policy.
            StageKind::Reward
            | StageKind::Rollout
            | StageKind::Gradient
            | StageKind::Evaluation => {}
        }
    }

    /// Keeps nothing any more.
    pub(crate) fn clear(&self) {
        *self.lock() = None;
    }
}

#[cfg(test)]
mod tests;
