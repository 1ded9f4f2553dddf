//! Stages that need nothing of each other, computed through the store, several at once.
//!
//! For questions beside a run, such as an evaluation on a grid. What is stored is not computed again,
//! so the same call goes on where it was stopped; an input that is lost is recomputed first. Notes
//! nothing in the run's index and no failure, retries nothing.

use std::future::ready;
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use agrpo_spec::{Manifest, RunId, StageDigest, StageSpec};
use agrpo_store::JobsError;
use futures::{StreamExt, stream};
use tokio::sync::{mpsc, watch};

use crate::{Result, local::Local, maintenance::replay::recorded};

/// A stage with its result.
#[derive(Clone, Debug)]
pub struct Settled {
    /// Its place among those asked for.
    pub index: usize,
    /// Its record.
    pub manifest: Arc<Manifest>,
    /// Whether the result was in the store.
    pub reused: bool,
}

impl Local {
    /// Makes a stage's lost inputs again and stores them; a run remembers what was done.
    pub async fn mend(&self, run: Option<RunId>, stage: StageDigest) -> Result<()> {
        let manifest = recorded(&self.store, stage).await?;
        self.recompute(run).mend_inputs(&manifest.spec).await
    }

    /// Gives every stage's record, in the order asked for; `None` for those that were not begun when
    /// `stop` became true. The run is the one beside which they stand: it knows which stages made what they read.
    /// `settled` receives each as it comes. Failed or data error where a stage gives up, after the others
    /// in hand.
    pub async fn batch(
        &self,
        run: RunId,
        specs: Vec<StageSpec>,
        settled: mpsc::UnboundedSender<Settled>,
        stop: watch::Receiver<bool>,
    ) -> Result<Vec<Option<Settled>>> {
        let (recompute, mut found) = (&self.recompute(run), vec![None; specs.len()]);
        let failed = OnceLock::<JobsError>::new();
        let goes_on = |_: &_| ready(failed.get().is_none() && !*stop.borrow());
        let compute = |(index, spec): (usize, StageSpec)| async move {
            let (manifest, reused) = recompute.compute(&spec).await?;
            Ok(Settled { index, manifest: Arc::new(manifest), reused })
        };
        let specs = stream::iter(specs.into_iter().enumerate()).take_while(goes_on);
        let mut computing = pin!(specs.map(compute).buffer_unordered(self.workers.max(1)));
        while let Some(ended) = computing.next().await {
            match ended {
                Ok(one) => {
                    found[one.index] = Some(one.clone());
                    // A display that has gone away must not end the work.
                    drop(settled.send(one));
                }
                // The first counts.
                Err(error) => drop(failed.set(error)),
            }
        }
        failed.get().cloned().map_or(Ok(found), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use agrpo_spec::{ExecuteFn, Plan, StageError, StageKind};

    use super::*;
    use crate::testing::{TestStore, fake_outputs, finished, local, repairs, run};
    use agrpo_store::Store;

    /// Different first chunks: stages without inputs.
    fn stages(count: usize) -> Vec<StageSpec> {
        let first = |n| {
            let plan = Plan::new(run());
            let spec = plan.pending().values().next().unwrap().clone();
            let StageSpec::Sft(mut sft) = spec else { panic!("{spec:?}") };
            sft.batch = 4 * u32::try_from(n + 1).unwrap();
            StageSpec::Sft(sft)
        };
        (0..count).map(first).collect()
    }

    async fn compute_with(
        store: &Store,
        specs: &[StageSpec],
        execute: ExecuteFn,
        stop: &watch::Sender<bool>,
    ) -> Result<Vec<Option<Settled>>, JobsError> {
        let (settled, _) = mpsc::unbounded_channel();
        let local = local(store, execute, 2);
        local.batch(run().id(), specs.to_vec(), settled, stop.subscribe()).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everything_is_computed_once_and_in_the_order_asked_for() {
        let test = TestStore::memory().await;
        let (specs, (stop, _)) = (stages(5), watch::channel(false));
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let execute: ExecuteFn = Arc::new(move |spec, inputs| {
            counted.fetch_add(1, Ordering::Relaxed);
            fake_outputs(spec, inputs)
        });
        for reused in [false, true] {
            let found = compute_with(&test.store, &specs, Arc::clone(&execute), &stop).await;
            for (one, spec) in found.unwrap().into_iter().zip(&specs) {
                let one = one.unwrap();
                assert_eq!((one.manifest.stage, one.reused), (spec.digest(), reused));
            }
        }
        assert_eq!(calls.load(Ordering::Relaxed), 5);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stop_lets_the_stages_in_hand_end_and_a_failure_is_reported() {
        let test = TestStore::memory().await;
        let (specs, (stop, _)) = (stages(6), watch::channel(false));
        let signal = stop.clone();
        let execute: ExecuteFn = Arc::new(move |spec, inputs| {
            signal.send_replace(true);
            fake_outputs(spec, inputs)
        });
        let found = compute_with(&test.store, &specs, execute, &stop).await.unwrap();
        let done = found.iter().flatten().count();
        assert!((1..=2).contains(&done), "{done}");

        stop.send_replace(false);
        let last = specs[5].digest();
        let execute: ExecuteFn = Arc::new(move |spec, inputs| {
            if spec.digest() == last {
                return Err(StageError::Invalid("no".into()));
            }
            fake_outputs(spec, inputs)
        });
        let error = compute_with(&test.store, &specs, execute, &stop).await.unwrap_err();
        assert!(matches!(error, JobsError::Refused(_)), "{error}");
        for spec in &specs[..5] {
            assert!(test.store.records.complete_manifest(spec.digest()).await.unwrap().is_some());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_lost_input_is_made_again_by_the_run_that_made_it() {
        let test = TestStore::file().await;
        finished(&test.store, run(), 1).await;
        let recorded = test.store.records.recorded_stages(run().id()).await.unwrap();
        let (_, last) =
            recorded.iter().rfind(|(key, _)| key.kind == StageKind::Evaluation).unwrap();
        let last = test.store.records.manifest(*last).await.unwrap().unwrap().spec;
        let StageSpec::Evaluation(mut spec) = last else { panic!("{last:?}") };
        spec.problems -= 1;
        test.remove(&format!("cas/{}", spec.policy));
        let (store, stop) = (test.reopened(), watch::channel(false).0);
        let specs = [StageSpec::Evaluation(spec.clone())];
        let found = compute_with(&store, &specs, Arc::new(fake_outputs), &stop).await.unwrap();
        assert_eq!(found.len(), 1);
        assert!(store.cas.has(spec.policy).await.unwrap());
        assert_eq!(repairs(&store, run().id()).await.len(), 1);
    }
}
