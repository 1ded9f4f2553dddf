//! The one walk over a plan: reads the records of pending stages, whose results the caller takes over.
//!
//! Decides neither which records count nor where a walk ends: progress, frontier, reachability and producers do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use agrpo_spec::{Manifest, Plan, PlanError, StageDigest, StageKey};
use agrpo_store::{JobsError, Store, paths, readable};
use futures::{StreamExt, TryStreamExt, stream};

use crate::Result;

/// Objects read, or deleted, at a time.
pub(crate) const AT_ONCE: usize = 32;

/// A stage, and its key in a run.
pub(crate) type Entry = (StageKey, StageDigest);
/// Stages by their keys in a run.
pub(crate) type Stages = BTreeMap<StageKey, StageDigest>;
/// A stage's record if there is one, or why it cannot be read.
pub(crate) type Record = Result<Option<Arc<Manifest>>>;

/// Where a walk over a plan stands.
#[derive(Debug)]
pub(crate) struct Steps<T> {
    /// Keys of the stages that were read.
    read: BTreeSet<StageKey>,
    /// Records that were read before the plan led to them.
    pub(crate) ahead: BTreeMap<StageDigest, T>,
    /// Read together, and not returned yet.
    step: VecDeque<(Entry, T)>,
}

impl<T> Default for Steps<T> {
    fn default() -> Self {
        Self { read: BTreeSet::new(), ahead: BTreeMap::new(), step: VecDeque::new() }
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
        Ok(Self { ahead: ahead.await?.into_iter().collect(), ..Self::default() })
    }

    /// The record of the next stage, in the order of the plan, that is pending, wanted and not read before; `None`
    /// where no record leads any further. Reads all of these together, and asks the plan again after the last of them.
    pub(crate) async fn next<F>(
        &mut self,
        plan: &Plan,
        wanted: impl Fn(&StageKey) -> bool,
        read: impl Fn(StageDigest) -> F,
    ) -> Result<Option<(Entry, T)>>
    where
        F: Future<Output = Result<T>>,
    {
        if self.is_step_over() {
            let pending = plan.pending().iter();
            let new = pending.filter(|(key, _)| wanted(key) && self.read.insert(**key));
            let new: Vec<Entry> = new.map(|(key, spec)| (*key, spec.digest())).collect();
            let (ahead, read) = (&self.ahead, &read);
            let found = each(new, |entry| async move {
                match ahead.get(&entry.1) {
                    Some(found) => Ok((entry, found.clone())),
                    None => Ok((entry, read(entry.1).await?)),
                }
            });
            self.step = found.await?.into();
        }
        Ok(self.step.pop_front())
    }

    /// Whether all that was read together is returned.
    pub(crate) fn is_step_over(&self) -> bool {
        self.step.is_empty()
    }
}

pub(crate) async fn record(store: &Store, stage: StageDigest) -> Result<Record> {
    Ok(readable(store.records.manifest(stage).await)?.map(|found| found.map(Arc::new)))
}

/// Calls `act` with each item, some at a time; returns the answers in their order.
pub(crate) fn each<I, T, F>(
    items: impl IntoIterator<Item = I>,
    act: impl Fn(I) -> F,
) -> impl Future<Output = Result<Vec<T>>>
where
    F: Future<Output = Result<T>>,
{
    // Collected here, so that the future is `Send` where its items are.
    let items: Vec<I> = items.into_iter().collect();
    stream::iter(items).map(act).buffered(AT_ONCE).try_collect()
}

/// Takes over a stage's result; returns the stages that became ready. Internal error if the stage is not pending,
/// data error if the result lacks an output.
pub(crate) fn take(plan: &mut Plan, key: StageKey, manifest: &Manifest) -> Result<Vec<StageKey>> {
    plan.finished(key, |name| manifest.output(name)).map_err(|error| match error {
        PlanError::MissingOutput { .. } => JobsError::data(format!(
            "{} is corrupt: {error}; delete it, and agrpo run FILE --repair computes the stage again",
            paths::manifest(manifest.stage)
        )),
        PlanError::NotPending(_) => JobsError::internal(error.to_string()),
    })
}
