//! A run whose inner updates are one stage: it resumes, repairs and replays like any other.

use std::num::NonZeroU32;

use agrpo_spec::{Keep, Retention, RunConfig};

use super::*;
use crate::planning::progress::Progress;
use crate::testing::run_fused;

fn fused() -> Run {
    run_fused("fused", 3, 2)
}

async fn left(store: &Store) -> Vec<String> {
    let mut progress = Progress::open(store, fused()).await.unwrap();
    progress.catch_up(store).await.unwrap();
    progress.plan.pending().keys().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_after_any_stage_it_goes_on_to_the_same_end_on_any_number_of_workers() {
    let test = TestStore::memory().await;
    let whole = finished(&test.store, fused(), 1).await;
    let expected = results(&test.store, &fused()).await;
    assert_eq!(whole.computed, Plan::total_stages(&fused()));
    for stop_after in 1..whole.computed {
        let test = TestStore::memory().await;
        let begun = AtomicU64::new(0);
        let stop = move |_: &StageSpec| {
            (begun.fetch_add(1, SeqCst) >= stop_after)
                .then(|| StageError::Internal("stop here".into()))
        };
        finish(&test.store, fused(), failing(stop), 2).await.0.unwrap_err();
        let outcome = finished(&test.reopened(), fused(), 3).await;
        assert_eq!((outcome.done, outcome.policy), (true, whole.policy), "{stop_after}");
        assert_eq!(results(&test.store, &fused()).await, expected);
    }
}

#[tokio::test]
async fn it_is_opened_at_its_last_updates_and_lost_results_are_made_again() {
    let test = TestStore::file().await;
    let whole = finished(&test.store, fused(), 1).await;
    let expected = results(&test.store, &fused()).await;
    let stages = test.store.records.recorded_stages(fused().id()).await.unwrap();
    let manifest = async |key: &str| {
        let stage = stages[&key.parse().unwrap()];
        test.store.records.manifest(stage).await.unwrap().unwrap()
    };
    let reports = replay_run(&test.store, fused().id(), &fake()).await.unwrap();
    assert!(reports.iter().all(|(_, report)| report.identical));
    // Nothing before the last updates is looked at, but for evaluations.
    let first = manifest("rollout-000001-00").await;
    test.remove(&format!("stages/{}", first.stage));
    assert_eq!(left(&test.reopened()).await, Vec::<String>::new());
    // What is lost of the last updates is asked for again, and lost inputs are made again.
    let last = manifest("updates-000003").await;
    test.remove(&format!("cas/{}", last.output("policy/model.safetensors").unwrap()));
    assert_eq!(left(&test.reopened()).await, ["updates-000003"]);
    let rewards = manifest("reward-000003-01").await;
    test.remove(&format!("cas/{}", rewards.output("rewards").unwrap()));
    let before = manifest("updates-000002").await;
    test.truncate(&format!("cas/{}", before.output("optimizer").unwrap()));
    assert_eq!(left(&test.reopened()).await, ["updates-000002"]);
    let outcome = finished(&test.reopened(), fused(), 2).await;
    assert_eq!((outcome.done, outcome.policy), (true, whole.policy));
    // Without its index it is walked from the start.
    std::fs::remove_dir_all(test.path(&format!("runs/{}/stages", fused().id()))).unwrap();
    finished(&test.reopened(), fused(), 2).await;
    assert_eq!(results(&test.store, &fused()).await, expected);
}

#[tokio::test]
async fn retention_deletes_policies_between_and_all_that_is_left_is_sound() {
    let retention = Retention {
        keep_policies: NonZeroU32::new(9),
        gradients: Keep::DropAfterUpdate,
        trajectories: Keep::DropAfterUpdate,
    };
    let run = run_fused("lean", 5, 2);
    let lean = Run::resolve(RunConfig { retention, ..run.config().clone() }).unwrap();
    let whole = finished(&TestStore::memory().await.store, run, 2).await;
    let test = TestStore::file().await;
    assert_eq!(finished(&test.store, lean.clone(), 2).await, whole);
    let mut kept = vec![];
    for (key, stage) in test.store.records.recorded_stages(lean.id()).await.unwrap() {
        let manifest = test.store.records.manifest(stage).await.unwrap().unwrap();
        if key.kind == StageKind::Updates
            && test.store.cas.has(manifest.output("policy").unwrap()).await.unwrap()
        {
            kept.push(key.iteration);
        }
    }
    assert_eq!(kept, [4, 5]);
    assert_eq!(finished(&test.reopened(), lean, 2).await.computed, 0);
}
