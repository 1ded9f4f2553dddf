//! From a hint to a claimed stage: what the store says of it, and its lease.
//!
//! A hint says where to look, never what is true. It is dropped where the stage has a result or failed, and where the
//! stage is another worker's.

use agrpo_spec::{StageDigest, StageSpec};
use agrpo_store::JobsError;
use tokio::time::{Instant, sleep};

use super::shared::Worker;
use crate::Result;
use crate::coordination::leases::stages::Acquired;
use crate::coordination::queue::Hint;
use crate::coordination::registry::workers;
use crate::coordinator::Attempt;
use crate::executor::with_retry;
use crate::stage::Pending;

impl Worker {
    /// The stage of a hint with its lease, if it is to be computed here. If another worker holds the lease and dies,
    /// the reconciler offers the stage again.
    pub(super) async fn claim(&self, hint: Hint) -> Result<Option<Attempt>> {
        let Hint { run, stage, .. } = hint;
        let Some(pending) = with_retry(self, || self.wanted(hint)).await? else { return Ok(None) };
        if self.is_better_elsewhere(stage).await? {
            return Ok(None);
        }
        let name = run.to_string();
        let mut waits = false;
        loop {
            match with_retry(self, || self.heartbeat.acquire(stage, &name)).await? {
                Ok(lease) => {
                    let environment = self.options.environment.clone();
                    return Ok(Some(Attempt::new(run, pending, lease, environment)));
                }
                Err(Acquired::Wait(pause)) => {
                    if !std::mem::replace(&mut waits, true) {
                        tracing::info!(
                            stage = stage.short(),
                            seconds = pause.as_secs_f64(),
                            "Redis is new, was restarted or stalled: waiting for the holders of leases to renew them"
                        );
                    }
                    sleep(pause).await;
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// The stage of a hint, if its run is readable, it did not fail for good, and it waits for a worker like this one.
    async fn wanted(&self, hint: Hint) -> Result<Option<Pending>> {
        let found = async {
            let Some(pending) = self.found(hint).await? else { return Ok(None) };
            let has_failed = self.scheduler.runs.has_failed(hint.run, [hint.stage]).await?;
            Ok((!has_failed).then_some(pending))
        };
        Ok(self.scheduler.readable(hint.run, found.await).await?.flatten())
    }

    /// What a hint stands for: its spec from the store, its place from the run. `None` where this worker
    /// leaves it: to others, or to what the store says of the whole run.
    async fn found(&self, Hint { run, key, stage }: Hint) -> Result<Option<Pending>> {
        let scheduler = &self.scheduler;
        if !scheduler.is_ours(run).await? {
            return Ok(None);
        }
        let spec = match scheduler.store.records.spec(stage).await {
            Ok(spec) => spec,
            // It is lost: planning the run gives it again.
            Err(error @ JobsError::Data(_)) => {
                tracing::warn!(run = run.short(), %error, "planning the run again");
                scheduler.store.records.invalidate_spec(stage);
                self.queue.forget(stage).await?;
                let view = scheduler.runs.view(run).await?;
                return scheduler.offer(run, &view).await.map(|()| None);
            }
            Err(error) => return Err(error),
        };
        if let Some(why) = self.mismatch(&spec) {
            scheduler.leave(run, why).await;
            return Ok(None);
        }
        if let Some(key) = scheduler.runs.place(run, &spec, Some(key)).await? {
            return Ok(Some(Pending { key, stage, spec }));
        }
        let view = scheduler.runs.view(run).await?;
        let pending = view.pending.iter().find(|pending| pending.stage == stage).cloned();
        if pending.is_none() {
            scheduler.offer(run, &view).await?;
        }
        Ok(pending)
    }

    /// Why a stage is for other workers, if it is.
    fn mismatch(&self, spec: &StageSpec) -> Option<String> {
        let (kind, numerics, own) = (spec.kind(), spec.numerics(), self.options.numerics);
        let (version, current) = (spec.version(), kind.version());
        if version != current {
            return Some(format!(
                "it asks for version {version} of {kind} stages, this program has version {current}"
            ));
        }
        (numerics != own)
            .then(|| format!("it asks for the numerics class {numerics}, this worker serves {own}"))
    }

    /// Whether the stage failed here a while ago and another worker of this class is there to try it.
    async fn is_better_elsewhere(&self, stage: StageDigest) -> Result<bool> {
        let mut backed_off = self.backed_off.lock().await;
        backed_off.retain(|_, until| *until > Instant::now());
        if !backed_off.contains_key(&stage) {
            return Ok(false);
        }
        drop(backed_off);
        let all = with_retry(self, || workers(&self.scheduler.fleet)).await?;
        let (class, name) = (self.options.numerics, &self.options.name);
        Ok(all.iter().any(|worker| worker.class == class && worker.name != *name))
    }
}
