//! Evaluations in shards: on any workers, stopped at any stage, each shard is computed once, nothing waits for
//! it but the end of the run, and an accuracy is shown once all of its shards are there.

use agrpo_spec::{EvaluationShards, EvaluationSpec, Partial, StageError, StageSpec};

use super::house::{House, expected_of};
use super::*;
use crate::maintenance::replay::replay;
use crate::planning::progress::Progress;
use crate::status::{RunState, RunStatus, status};
use crate::testing::{self, TestStore, fake, fake_outputs, finished, local, run, run_in_shards};

fn key(text: &str) -> StageKey {
    text.parse().unwrap()
}

fn begins_at(spec: &EvaluationSpec, problem: u32) -> bool {
    spec.shard.0.is_some_and(|shard| shard.first_problem == problem)
}

async fn row(store: &Store) -> RunStatus {
    status(store, Some(run_in_shards().id())).await.unwrap().remove(0)
}

/// The accuracy of an evaluation from its shards' records.
async fn accuracy(store: &Store, iteration: u32) -> Option<f64> {
    let mut shards = EvaluationShards::of(&run_in_shards());
    let found = crate::planning::policy_notes::evaluations_at(store, &run_in_shards(), iteration)
        .await
        .unwrap();
    let metrics = found.into_iter().filter_map(|(key, record)| shards.add(key, record.metrics));
    metrics.last()?.get("accuracy").copied()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_share_the_shards_and_end_where_one_process_ends() {
    let house = House::slow(Duration::from_millis(10)).await;
    let run = run_in_shards();
    let workers = ["a", "b"].map(|name| house.worker(name));
    house.enqueue_run(run.clone()).await;
    house.until_done_with(&run).await;
    for worker in workers {
        worker.stop.send_replace(true);
        worker.end().await.unwrap();
    }
    let results = house.result_of(&run).await;
    assert_eq!(results, expected_of(&run).await);
    assert_eq!(results.len(), 33, "24 stages of training, three evaluations in three shards");
    assert_eq!(house.calls().values().sum::<u64>(), 33);
    let row = row(&house.store).await;
    assert_eq!((row.state, row.stages.done), (RunState::Done, 33));
    assert_eq!(row.partial_evaluations, []);
    let ends = [row.accuracy.base, row.accuracy.latest];
    assert_eq!(ends, [accuracy(&house.store, 0).await, accuracy(&house.store, 3).await]);
    assert!(ends.iter().all(Option::is_some));
}

/// Only evaluations differ: all other stages are shared with the run without shards.
#[tokio::test]
async fn shards_change_no_stage_of_the_training() {
    let test = TestStore::memory().await;
    let whole = finished(&test.store, run(), 1).await;
    let shards = finished(&test.store, run_in_shards(), 1).await;
    assert_ne!(shards.run, whole.run);
    assert_eq!((shards.policy, shards.computed, shards.reused), (whole.policy, 9, 24));
}

#[tokio::test]
async fn a_run_that_was_stopped_between_shards_goes_on_with_the_rest() {
    let test = TestStore::file().await;
    let (stop, stopped) = watch::channel(false);
    let execute: ExecuteFn = Arc::new(move |spec, inputs| {
        let is_first = matches!(spec, StageSpec::Evaluation(spec) if begins_at(spec, 0));
        if is_first {
            stop.send_replace(true);
        }
        fake_outputs(spec, inputs)
    });
    let (events, _) = mpsc::unbounded_channel();
    let outcome = local(&test.store, execute, 1).run(run_in_shards(), false, events, stopped).await;
    assert!(!outcome.unwrap().done);
    let partial = row(&test.store).await;
    let base = Partial { iteration: 0, done: 1, shards: 3 };
    assert_eq!((partial.accuracy.base, &*partial.partial_evaluations), (None, &[base][..]));

    let outcome = finished(&test.reopened(), run_in_shards(), 1).await;
    assert_eq!((outcome.done, outcome.computed, outcome.reused), (true, 29, 4));
    let done = row(&test.reopened()).await;
    assert!(done.accuracy.base.is_some() && done.partial_evaluations.is_empty());
}

/// A shard that fails keeps no other stage waiting.
#[tokio::test]
async fn nothing_but_the_end_of_the_run_waits_for_a_shard() {
    let house = House::with(|spec, _| match spec {
        StageSpec::Evaluation(spec) if begins_at(spec, 2) => Err(StageError::Invalid("no".into())),
        _ => Ok(()),
    })
    .await;
    let run = run_in_shards();
    house.enqueue_run(run.clone()).await;
    let worker = house.worker("one");
    house.until("all but three shards", async || house.result_of(&run).await.len() == 30).await;
    worker.stop.send_replace(true);
    worker.end().await.unwrap();
    let row = row(&house.store).await;
    assert_eq!((row.state, row.iteration), (RunState::Failed, 3));
    assert_eq!(row.failed_at.unwrap().key.to_string(), "evaluation-000000-01");
    let partial = |iteration| Partial { iteration, done: 2, shards: 3 };
    assert_eq!(row.partial_evaluations, [0, 2, 3].map(partial));
    assert_eq!(row.accuracy.latest, None);
}

#[tokio::test]
async fn a_lost_shard_is_asked_for_again_and_a_replayed_one_is_identical() {
    let test = TestStore::file().await;
    finished(&test.store, run_in_shards(), 1).await;
    let index = test.store.records.recorded_stages(run_in_shards().id()).await.unwrap();
    let stage = index[&key("evaluation-000002-01")];
    assert!(replay(&test.store, stage, &fake()).await.unwrap().identical);
    test.remove(&format!("stages/{stage}"));
    let store = test.reopened();
    let mut progress = Progress::open(&store, run_in_shards()).await.unwrap();
    progress.catch_up(&store).await.unwrap();
    let pending: Vec<_> = progress.plan.pending().keys().map(ToString::to_string).collect();
    assert_eq!(pending, ["evaluation-000002-01"]);
    assert_eq!(progress.done, progress.total() - 1);
}

#[tokio::test]
async fn a_shard_is_placed_by_its_hint_only_if_the_hint_is_true() {
    let house = House::new().await;
    testing::finished(&house.store, run_in_shards(), 2).await;
    let id = run_in_shards().id();
    let index = house.store.records.recorded_stages(id).await.unwrap();
    let runs = Runs::new(house.store.clone(), agrpo_store::Versions::own());
    let own = key("evaluation-000002-01");
    let spec = house.store.records.manifest(index[&own]).await.unwrap().unwrap().spec;
    assert_eq!(runs.place(id, &spec, Some(own)).await.unwrap(), Some(own));
    for wrong in [
        "evaluation-000002",
        "evaluation-000002-02",
        "evaluation-000002-03",
        "evaluation-000003-01",
    ] {
        assert_eq!(runs.place(id, &spec, Some(key(wrong))).await.unwrap(), None, "{wrong}");
    }
}

/// A damaged update hides what follows; its own evaluation is still known by the policy's note.
#[tokio::test]
async fn shards_count_where_a_record_before_them_cannot_be_read() {
    let test = TestStore::file().await;
    finished(&test.store, run_in_shards(), 1).await;
    let sound = row(&test.reopened()).await;
    let index = test.store.records.recorded_stages(run_in_shards().id()).await.unwrap();
    test.flip(&format!("stages/{}", index[&key("gradient-000001-00")]));
    let damaged = row(&test.reopened()).await;
    assert_eq!((damaged.accuracy, damaged.state), (sound.accuracy, RunState::Done));
    assert_eq!(damaged.stages.done, 32);
}

/// An evaluation of another policy, or of another number of shards, is no part of the run.
#[tokio::test]
async fn an_entry_of_the_index_that_the_run_has_no_shard_for_does_not_count() {
    let test = TestStore::file().await;
    finished(&test.store, run(), 1).await;
    finished(&test.store, run_in_shards(), 1).await;
    let whole = test.store.records.recorded_stages(run().id()).await.unwrap();
    let stray = key("evaluation-000002");
    let id = run_in_shards().id();
    test.store.records.record_stage(id, stray, whole[&stray]).await.unwrap();
    let own = crate::own_stages(&test.reopened(), &run_in_shards()).await.unwrap();
    assert!(own.len() == 33 && !own.contains_key(&stray));
    assert_eq!(row(&test.reopened()).await.state, RunState::Done);
}
