//! From a run's records to hints in the queue: what follows from a result, what can be computed, what cannot be read.
//!
//! Offers stages and decides nothing about them. Records that are damaged, or another version's, end no worker: the run
//! is reported and left. An error of a service is the caller's.

use std::sync::Arc;

use agrpo_spec::{Manifest, Numerics, RunId, StageKey};
use agrpo_store::{JobsError, Store, Versions};
use tokio::sync::mpsc;

use super::enqueue::offer;
use super::runs::{Runs, View};
use crate::Result;
use crate::coordination::queue::Queue;
use crate::coordination::redis::Fleet;
use crate::coordination::runs::set_active;
use crate::events::Event;

/// What a worker's executor and its reconciler share.
pub(super) struct Scheduler {
    pub(super) store: Store,
    pub(super) fleet: Fleet,
    pub(super) runs: Runs,
    events: mpsc::UnboundedSender<Event>,
}

impl Scheduler {
    pub(super) fn new(
        store: Store,
        fleet: Fleet,
        versions: Versions,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let runs = Runs::new(store.clone(), versions);
        Self { store, fleet, runs, events }
    }

    /// Logs, counts and sends an event; an owner that no longer listens is no reason to stop.
    pub(super) fn emit(&self, event: Event) {
        event.count();
        event.log();
        self.events.send(event).ok();
    }

    /// The queue of a class, for workers of this one's versions.
    pub(super) fn queue_of(&self, numerics: Numerics) -> Queue {
        Queue::new(&self.fleet, numerics, &self.runs.own)
    }

    /// Leaves a run to other workers, and reports it once. A hint of it came from before its versions were
    /// changed, or by mistake: it is dropped, since the worker that put it back might be the only one to take
    /// it, and the reconciler of the right workers offers the stage again.
    pub(super) async fn leave(&self, run: RunId, why: String) {
        if self.runs.is_first_report(run).await {
            self.emit(Event::Incompatible { run, why });
        }
    }

    /// `None` where records of the run are damaged or another version's, which is reported; a survey looks at the run
    /// again.
    pub(super) async fn readable<T>(&self, run: RunId, found: Result<T>) -> Result<Option<T>> {
        match found {
            Ok(found) => return Ok(Some(found)),
            Err(error) if error.is_of_services() => return Err(error),
            Err(JobsError::Incompatible(why)) => {
                self.runs.forget(run).await;
                self.leave(run, why.to_string()).await;
            }
            Err(error) => {
                self.runs.forget(run).await;
                set_active(&self.fleet, run, false).await?;
                self.emit(Event::Unreadable { run, error: error.to_string() });
            }
        }
        Ok(None)
    }

    /// Whether this program computes a run; another one is left, and one that cannot be read is reported.
    pub(super) async fn is_ours(&self, run: RunId) -> Result<bool> {
        let incompatible = self.runs.incompatible(run).await;
        match self.readable(run, incompatible).await? {
            Some(None) => return Ok(true),
            Some(Some(why)) => self.leave(run, why).await,
            None => {}
        }
        Ok(false)
    }

    /// Where a run stands, if it is readable.
    pub(super) async fn view(&self, run: RunId) -> Result<Option<View>> {
        let view = self.runs.view(run).await;
        self.readable(run, view).await
    }

    /// Offers what can be computed now, or notes that nothing is left.
    pub(super) async fn offer(&self, run: RunId, view: &View) -> Result<()> {
        let queue = self.queue_of(view.numerics);
        if !view.is_done {
            return offer(&self.store, &queue, run, view).await;
        }
        self.runs.forget(run).await;
        queue.withdraw(run).await?;
        set_active(&self.fleet, run, false).await.map(drop)
    }

    /// What became ready through a published result; notes it in the run's index. Nothing, at no cost, where it was
    /// reused and is noted there: its writer offered what follows, or left it to the reconciler.
    ///
    /// The shards of an update are counted, so that only the worker of the last one looks at all of
    /// them, and no two workers that publish at once both miss it. Where the count is lost, or its
    /// worker dies before it offers the update, the reconciler does.
    pub(super) async fn follow(
        &self,
        run: RunId,
        key: StageKey,
        manifest: &Arc<Manifest>,
        is_reused: bool,
    ) -> Result<View> {
        if is_reused && self.store.records.is_recorded(run, key, manifest.stage).await? {
            let numerics = manifest.spec.numerics();
            return Ok(View { pending: vec![], numerics, base: None, is_done: false });
        }
        let view = self.runs.finished(run, key, manifest).await?;
        let queue = self.queue_of(view.numerics);
        if key.is_update() {
            queue.joined(run, key).await?;
        }
        if !view.pending.is_empty() || view.is_done {
            return Ok(view);
        }
        match self.runs.join_of(run, key).await? {
            Some((update, shards))
                if queue.join(run, update, key.shard_number()).await? >= shards =>
            {
                self.runs.joined(run, update).await
            }
            _ => Ok(view),
        }
    }
}
