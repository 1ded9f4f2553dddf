//! Resuming a run: it gives the same plan whatever was lost, and does not trust an index.

use agrpo_spec::StageDigest;
use agrpo_store::JobsError;

use super::*;
use crate::testing::{TestStore, counting, finished, repairs, run, run_named};

/// The stages that opening and catching up leave to be computed.
async fn left(test: &TestStore, run: &Run) -> Vec<String> {
    let store = test.reopened();
    let mut progress = Progress::open(&store, run.clone()).await.unwrap();
    progress.catch_up(&store).await.unwrap();
    let pending = progress.plan.pending();
    if progress.plan.is_done() {
        assert_eq!(progress.done, progress.total());
    }
    pending.keys().map(ToString::to_string).collect()
}

async fn stage_of(test: &TestStore, run: &Run, key: &str) -> StageDigest {
    test.store.records.recorded_stages(run.id()).await.unwrap()[&key.parse().unwrap()]
}

#[tokio::test]
async fn an_unknown_run_begins_at_its_start() {
    for test in TestStore::each().await {
        assert_eq!(left(&test, &run()).await, ["sft-000000"]);
    }
}

#[tokio::test]
async fn a_finished_run_is_opened_at_its_last_update_with_few_reads() {
    let test = TestStore::file().await;
    finished(&test.store, run(), 1).await;
    // Nothing before the last update is looked at, but for evaluations.
    for key in ["sft-000001", "rollout-000001-00", "gradient-000002-01"] {
        test.remove(&format!("stages/{}", stage_of(&test, &run(), key).await));
    }
    assert_eq!(left(&test, &run()).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_lost_update_is_asked_for_again_from_the_one_before() {
    let test = TestStore::file().await;
    finished(&test.store, run(), 1).await;
    let update = stage_of(&test, &run(), "update-000003").await;
    let manifest = test.store.records.manifest(update).await.unwrap().unwrap();
    test.remove(&format!("cas/{}", manifest.output("policy/model.safetensors").unwrap()));
    assert_eq!(left(&test, &run()).await, ["update-000003"]);
}

#[tokio::test]
async fn lost_evaluations_are_asked_for_again() {
    let test = TestStore::file().await;
    finished(&test.store, run(), 1).await;
    for key in ["evaluation-000000", "evaluation-000002", "evaluation-000003"] {
        test.remove(&format!("stages/{}", stage_of(&test, &run(), key).await));
    }
    let pending = ["evaluation-000000", "evaluation-000002", "evaluation-000003"];
    assert_eq!(left(&test, &run()).await, pending);
}

#[tokio::test]
async fn without_its_index_a_run_is_walked_from_the_start_and_indexed_again() {
    let test = TestStore::file().await;
    finished(&test.store, run(), 1).await;
    let before = test.store.records.recorded_stages(run().id()).await.unwrap();
    std::fs::remove_dir_all(test.path(&format!("runs/{}/stages", run().id()))).unwrap();
    assert_eq!(left(&test, &run()).await, Vec::<String>::new());
    assert_eq!(test.store.records.recorded_stages(run().id()).await.unwrap(), before);
}

#[tokio::test]
async fn the_index_of_a_finished_run_is_completed_at_its_end() {
    let test = TestStore::file().await;
    finished(&test.store, run(), 1).await;
    let before = test.store.records.recorded_stages(run().id()).await.unwrap();
    let stage = stage_of(&test, &run(), "gradient-000001-01").await;
    test.remove(&format!("runs/{}/stages/gradient-000001-01.{stage}", run().id()));
    assert_eq!(left(&test, &run()).await, Vec::<String>::new(), "the update after it is enough");
    assert_ne!(test.store.records.recorded_stages(run().id()).await.unwrap(), before);
    let store = test.reopened();
    let progress = Progress::open(&store, run()).await.unwrap();
    progress.complete_index(&store).await.unwrap();
    assert_eq!(test.store.records.recorded_stages(run().id()).await.unwrap(), before);
}

/// The run is done, so no worker would compute a quarantined record again.
#[tokio::test]
async fn the_end_of_a_run_moves_no_damaged_record() {
    let test = TestStore::file().await;
    finished(&test.store, run(), 1).await;
    let stage = stage_of(&test, &run(), "gradient-000001-01").await;
    let entry = format!("runs/{}/stages/rollout-000001-00", run().id());
    let lost = stage_of(&test, &run(), "rollout-000001-00").await;
    std::fs::remove_file(test.path(&format!("{entry}.{lost}"))).unwrap();
    test.truncate(&format!("stages/{stage}"));
    let store = test.reopened();
    let mut progress = Progress::open(&store, run()).await.unwrap();
    progress.catch_up(&store).await.unwrap();
    assert!(progress.plan.is_done());
    progress.complete_index(&store).await.unwrap();
    assert!(test.path(&format!("stages/{stage}")).exists());
    assert!(test.path(&format!("{entry}.{lost}")).exists(), "what comes before it is noted");
    assert!(repairs(&store, run().id()).await.is_empty());
}

#[tokio::test]
async fn a_wrong_index_is_not_followed() {
    let test = TestStore::file().await;
    finished(&test.store, run(), 1).await;
    let (key, other) = ("update-000003".parse().unwrap(), run_named("long", 9));
    let stage = stage_of(&test, &run(), "update-000003").await;
    test.store.records.record_stage(other.id(), key, stage).await.unwrap();
    test.store
        .records
        .record_stage(other.id(), "update-000004".parse().unwrap(), stage)
        .await
        .unwrap();
    // The other run shares its sft with the first one, but none of its updates.
    let pending = left(&test, &other).await;
    assert!(pending.contains(&"update-000001".to_owned()), "{pending:?}");
}

#[tokio::test]
async fn a_corrupt_manifest_is_quarantined_and_its_stage_pending_again() {
    let test = TestStore::file().await;
    finished(&test.store, run(), 1).await;
    let stage = stage_of(&test, &run(), "sft-000001").await;
    std::fs::remove_dir_all(test.path(&format!("runs/{}/stages", run().id()))).unwrap();
    test.truncate(&format!("stages/{stage}"));
    assert_eq!(left(&test, &run()).await, ["sft-000001"]);
    assert!(!test.path(&format!("stages/{stage}")).exists());
    assert!(test.path(&format!("aside/stages-{stage}")).exists());
    let remembered = repairs(&test.store, run().id()).await;
    assert_eq!((remembered.len(), remembered[0].stage), (1, stage));
}

#[tokio::test]
async fn a_result_that_lacks_an_output_is_a_data_error() {
    let test = TestStore::memory().await;
    finished(&test.store, run(), 1).await;
    let stage = stage_of(&test, &run(), "sft-000000").await;
    let mut manifest = test.store.records.manifest(stage).await.unwrap().unwrap();
    manifest.outputs.remove("policy");
    let mut progress = Progress::open(&test.store, run_named("new", 1)).await.unwrap();
    let key = "sft-000000".parse().unwrap();
    let error = progress.finished(key, &manifest).unwrap_err();
    assert!(matches!(error, JobsError::Data(_)) && error.to_string().contains("policy"), "{error}");
    let absent = "update-000001".parse().unwrap();
    let error = progress.finished(absent, &manifest).unwrap_err();
    assert!(matches!(error, JobsError::Internal(_)), "{error}");
}

#[tokio::test]
async fn a_long_run_is_opened_with_few_reads() {
    let (objects, counts) = counting();
    let (store, run) = (Store::over(objects), run_named("long", 200));
    finished(&store, run.clone(), 2).await;
    counts.lock().unwrap().clear();
    let mut progress = Progress::open(&store, run.clone()).await.unwrap();
    progress.catch_up(&store).await.unwrap();
    assert!(progress.plan.is_done());
    let counts = counts.lock().unwrap().clone();
    let asked = |what: &str| counts.get(what).copied().unwrap_or(0);
    // Those of updates and of evaluations: not of rollouts, rewards and gradients.
    assert!(asked("GET stages") < progress.total() / 4, "{counts:?}");
    assert_eq!(asked("LIST runs/stages"), 1, "{counts:?}");
}
