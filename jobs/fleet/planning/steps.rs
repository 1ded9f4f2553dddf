//! How every walk over a plan goes on: reads the pending stages, so that the caller takes over what they made.
//!
//! Decides neither which records count nor where a walk ends: progress, frontier, reachability and producers do.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_spec::{Manifest, Plan, PlanError, StageDigest, StageKey};
use agrpo_store::JobsError;
use futures::{StreamExt, TryStreamExt, stream};

use crate::Result;

/// Objects read, or deleted, at a time.
pub(crate) const AT_ONCE: usize = 32;

/// A place in a run, and a stage that is named there.
pub(crate) type Entry = (StageKey, StageDigest);

/// The places that a walk has read, and what was read ahead of it.
#[derive(Debug)]
pub(crate) struct Steps<T> {
    places: BTreeSet<StageKey>,
    pub(crate) ahead: BTreeMap<StageDigest, T>,
}

impl<T> Default for Steps<T> {
    fn default() -> Self {
        Self { places: BTreeSet::new(), ahead: BTreeMap::new() }
    }
}

impl<T: Clone> Steps<T> {
    /// Reads these stages ahead, whether or not the plan leads to them: many at a time.
    pub(crate) async fn ahead<F>(
        stages: impl IntoIterator<Item = StageDigest>,
        read: impl Fn(StageDigest) -> F,
    ) -> Result<Self>
    where
        F: Future<Output = Result<T>>,
    {
        let read = &read;
        let ahead = each(stages, |stage| async move { Ok((stage, read(stage).await?)) });
        Ok(Self { places: BTreeSet::new(), ahead: ahead.await?.into_iter().collect() })
    }

    /// Reads every pending stage that is wanted and was not read before, in the order of the plan. `None` where
    /// there is none: no record leads any further.
    pub(crate) async fn next<F>(
        &mut self,
        plan: &Plan,
        wanted: impl Fn(&StageKey) -> bool,
        read: impl Fn(StageDigest) -> F,
    ) -> Result<Option<Vec<(Entry, T)>>>
    where
        F: Future<Output = Result<T>>,
    {
        let pending = plan.pending().iter();
        let new = pending.filter(|(key, _)| wanted(key) && self.places.insert(**key));
        let new: Vec<Entry> = new.map(|(key, spec)| (*key, spec.digest())).collect();
        let (ahead, read) = (&self.ahead, &read);
        let found = each(new, |entry| async move {
            match ahead.get(&entry.1) {
                Some(found) => Ok((entry, found.clone())),
                None => Ok((entry, read(entry.1).await?)),
            }
        });
        let found = found.await?;
        Ok((!found.is_empty()).then_some(found))
    }
}

/// Does the same with each of these, some at a time; returns the answers in their order.
pub(crate) fn each<I, T, F>(
    items: impl IntoIterator<Item = I>,
    act: impl Fn(I) -> F,
) -> impl Future<Output = Result<Vec<T>>>
where
    F: Future<Output = Result<T>>,
{
    // Collected here, so that the future is as good as its items: it can move between threads.
    let items: Vec<I> = items.into_iter().collect();
    stream::iter(items).map(act).buffered(AT_ONCE).try_collect()
}

/// What was found, or why this record cannot be read: it is damaged, or another version's. An error where the
/// store cannot be asked.
pub(crate) fn readable<T>(found: Result<T>) -> Result<Result<T>> {
    match found {
        Err(error) if !matches!(error, JobsError::Data(_) | JobsError::Incompatible(_)) => {
            Err(error)
        }
        found => Ok(found),
    }
}

/// Takes over a stage's result; returns the stages that became ready. Internal error if the stage is not pending,
/// data error if the result lacks an output.
pub(crate) fn take(plan: &mut Plan, key: StageKey, manifest: &Manifest) -> Result<Vec<StageKey>> {
    plan.finished(key, |name| manifest.output(name)).map_err(|error| match error {
        PlanError::MissingOutput { .. } => JobsError::Data(format!(
            "stages/{} is corrupt: {error}; delete it, and agrpo run FILE --repair computes the stage again",
            manifest.stage
        )),
        PlanError::NotPending(_) => JobsError::Internal(error.to_string()),
    })
}
