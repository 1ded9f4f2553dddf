//! The sweep: offers again what the queue has lost, whatever the reason.
//!
//! One worker at a time sweeps, under a lease of its own. It goes through the runs that Redis calls
//! active, and now and then through all runs of the store, which is what makes Redis disposable.
//! Errors are noted and the next sweep tries again: whether the worker lives is decided elsewhere.

use std::collections::BTreeSet;
use std::convert::Infallible;

use agrpo_spec::RunId;
use tokio::time::{Instant, interval};

use super::enqueue::set_active;
use super::{ACTIVE, Worker};
use crate::error::JobsError;
use crate::lease::Lease;

const SWEEPER: &str = "agrpo:sweeper";
/// The lease lasts this many sweeps.
const SWEEPS: u32 = 3;

impl Worker {
    /// Sweeps for ever.
    pub(super) async fn sweep(&self) -> Infallible {
        let mut ticks = interval(self.options.sweep);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut lease = None;
        // Runs that are done or failed: the store is not searched for them again.
        let mut settled = BTreeSet::new();
        let mut surveyed = None;
        loop {
            ticks.tick().await;
            if let Err(error) = self.sweep_once(&mut lease, &mut settled, &mut surveyed).await {
                tracing::warn!(%error, "sweep broken off");
            }
        }
    }

    async fn sweep_once(
        &self,
        lease: &mut Option<Lease>,
        settled: &mut BTreeSet<RunId>,
        surveyed: &mut Option<Instant>,
    ) -> Result<(), JobsError> {
        if !self.is_sweeper(lease).await? {
            return Ok(());
        }
        self.queue.tidy().await?;
        let active = self.active().await?;
        for &run in &active {
            settled.remove(&run);
            self.sweep_run(run, settled).await?;
        }
        if surveyed.is_none_or(|last| last.elapsed() >= self.options.survey) {
            for run in self.store.runs().await? {
                if !active.contains(&run) && !settled.contains(&run) {
                    self.sweep_run(run, settled).await?;
                }
            }
            *surveyed = Some(Instant::now());
        }
        Ok(())
    }

    async fn is_sweeper(&self, lease: &mut Option<Lease>) -> Result<bool, JobsError> {
        if let Some(held) = lease
            && held.renew().await?
        {
            return Ok(true);
        }
        let (key, ttl) = (SWEEPER.to_owned(), self.options.sweep * SWEEPS);
        *lease = Lease::acquire(&self.fleet, key, &self.options.name, ttl).await?;
        Ok(lease.is_some())
    }

    async fn active(&self) -> Result<BTreeSet<RunId>, JobsError> {
        let names: Vec<String> = redis::cmd("SMEMBERS")
            .arg(ACTIVE)
            .query_async(&mut self.fleet.connection())
            .await
            .map_err(|error| self.fleet.failure(&error))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    async fn sweep_run(&self, run: RunId, settled: &mut BTreeSet<RunId>) -> Result<(), JobsError> {
        let Some(view) = self.look(run).await? else { return Ok(()) };
        if view.is_done() || self.runs.has_failed(run, view.stages()).await? {
            settled.insert(run);
            self.runs.forget(run).await;
            return set_active(&self.fleet, run, false).await;
        }
        set_active(&self.fleet, run, true).await?;
        self.offer(run, &view).await
    }
}
