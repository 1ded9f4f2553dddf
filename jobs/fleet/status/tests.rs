//! The status of runs as other programs read it.

use std::sync::Arc;

use agrpo_spec::{ExecuteFn, StageError};

use super::*;
use crate::testing::{TestStore, counting, fake_outputs, finish, finished, run, run_named};

/// The JSON with what follows from digests put aside, as those move with the stages' versions.
fn json(status: &RunStatus) -> String {
    let mut text = serde_json::to_string_pretty(status).unwrap();
    text = text.replace(&status.run.to_string(), "RUN");
    if let Some(policy) = status.policy {
        text = text.replace(&policy.to_string(), "POLICY");
    }
    let AccuracyStatus { base, latest, .. } = status.accuracy;
    for (value, name) in [(base, "BASE"), (latest, "LATEST")] {
        if let Some(value) = value {
            text = text.replace(&value.to_string(), name);
        }
    }
    text
}

#[tokio::test]
async fn a_run_is_running_failed_and_done_in_json() {
    let test = TestStore::memory().await;
    let store = &test.store;
    assert_eq!(status(store, None).await.unwrap(), []);
    store.records.put_run(&run()).await.unwrap();
    insta::assert_snapshot!(json(&status(store, None).await.unwrap()[0]), @r#"
    {
      "run": "RUN",
      "name": "small",
      "state": "running",
      "iteration": 0,
      "iterations": 3,
      "policy": null,
      "accuracy": {
        "base": null,
        "latest": null
      },
      "stages": {
        "done": 0,
        "failed": 0,
        "computed_twice": 0,
        "rewound": 0
      }
    }
    "#);

    let broken: ExecuteFn = Arc::new(|spec, inputs| match spec.kind() {
        StageKind::Update => Err(StageError::Internal("broken".into())),
        _ => fake_outputs(spec, inputs),
    });
    finish(store, run(), broken, 1).await.0.unwrap_err();
    let failed = status(store, Some(run().id())).await.unwrap();
    assert_eq!(failed[0].state, RunState::Failed);
    assert_eq!((failed[0].stages.failed, failed[0].iteration), (1, 0));
    assert!(failed[0].policy.is_some(), "the base");

    let outcome = finished(store, run(), 2).await;
    let done = status(store, Some(run().id())).await.unwrap();
    assert_eq!(done[0].policy, outcome.policy);
    insta::assert_snapshot!(json(&done[0]), @r#"
    {
      "run": "RUN",
      "name": "small",
      "state": "done",
      "iteration": 3,
      "iterations": 3,
      "policy": "POLICY",
      "accuracy": {
        "base": BASE,
        "latest": LATEST
      },
      "stages": {
        "done": 27,
        "failed": 0,
        "computed_twice": 0,
        "rewound": 0
      }
    }
    "#);

    for _ in 0..2 {
        let recorded = store.records.recorded_stages(run().id()).await.unwrap();
        let stage = *recorded.values().next().unwrap();
        store.records.record_twice(run().id(), stage).await.unwrap();
    }
    let again = status(store, Some(run().id())).await.unwrap();
    assert_eq!(again[0].stages.computed_twice, 1, "stages are counted, not their repetitions");

    store.records.put_run(&run_named("other", 1)).await.unwrap();
    assert_eq!(status(store, None).await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_unknown_run_is_a_data_error() {
    let test = TestStore::memory().await;
    let error = status(&test.store, Some(run().id())).await.unwrap_err();
    assert!(matches!(error, JobsError::Data(_)), "{error}");
}

#[tokio::test]
async fn a_run_of_another_program_says_so_until_it_is_done() {
    let test = TestStore::memory().await;
    let (store, id) = (&test.store, run().id());
    let incompatible = async || status(store, Some(id)).await.unwrap().remove(0).incompatible;
    store.records.put_run(&run()).await.unwrap();
    assert_eq!(incompatible().await, None, "no worker has begun it");
    test.objects.pin_other_versions(id).await;
    let why = incompatible().await.unwrap();
    assert!(why.starts_with("it is computed with version 99 of rollout stages"), "{why}");
    finished(store, run(), 1).await;
    test.objects.pin_other_versions(id).await;
    assert_eq!(incompatible().await, None);
}

#[tokio::test]
async fn one_run_that_cannot_be_read_is_a_row_among_the_others() {
    let test = TestStore::file().await;
    finished(&test.store, run(), 1).await;
    let folder = |run: &agrpo_spec::Run| test.path(&format!("runs/{}", run.id()));
    let (empty, garbage, newer, book) = (
        run_named("empty", 1),
        run_named("garbage", 1),
        run_named("newer", 1),
        run_named("book", 1),
    );
    for other in [&empty, &garbage, &newer, &book] {
        test.store.records.put_run(other).await.unwrap();
    }
    std::fs::remove_file(folder(&empty).join("run.json")).unwrap();
    std::fs::write(folder(&garbage).join("run.json"), b"\x00\xffgarbage").unwrap();
    let more = agrpo_spec::record::seal_as(2, newer.config());
    std::fs::write(folder(&newer).join("run.json"), more).unwrap();
    std::fs::write(folder(&book).join("control.json"), b"garbage").unwrap();
    std::fs::create_dir(test.path("runs/no-run")).unwrap();
    std::fs::write(test.path("runs/a-file"), b"garbage").unwrap();
    let rows = status(&test.reopened(), None).await.unwrap();
    assert_eq!(rows.len(), 5);
    for (other, part) in [
        (&empty, "run.json is missing"),
        (&garbage, "is corrupt: it is no JSON object"),
        (&newer, "was written by another version of agrpo: it has format 2"),
        (&book, "control.json"),
    ] {
        let row = rows.iter().find(|row| row.run == other.id()).unwrap();
        assert_eq!(row.state, RunState::Unreadable);
        assert!(row.unreadable.as_ref().unwrap().contains(part), "{row:?}");
        assert_eq!(row.name, if part == "control.json" { "book" } else { "" });
        let error = status(&test.reopened(), Some(other.id())).await.unwrap_err();
        assert!(matches!(error, JobsError::Data(_) | JobsError::Incompatible(_)), "{error}");
    }
    let row = rows.iter().find(|row| row.run == run().id()).unwrap();
    assert_eq!((row.state, &row.unreadable), (RunState::Done, &None));
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_named_beside_what_the_others_say() {
    let test = TestStore::file().await;
    let outcome = finished(&test.store, run(), 1).await;
    let row = async || status(&test.reopened(), None).await.unwrap().remove(0);
    let sound = row().await;
    for (key, stage) in test.store.records.recorded_stages(run().id()).await.unwrap() {
        let object = format!("stages/{stage}");
        test.flip(&object);
        let damaged = row().await;
        assert_eq!((damaged.state, damaged.iteration), (RunState::Done, 3), "{key}");
        assert_eq!(damaged.stages.done, 26, "{key}");
        let [record] = &*damaged.unreadable_records else { panic!("{key}: {damaged:?}") };
        assert_eq!((&record.object, record.key), (&object, Some(key)));
        assert!(record.why.contains("is corrupt: its bytes give"), "{record:?}");
        // No other record names the policy.
        let is_newest = key.kind == StageKind::Update && key.iteration == 3;
        assert_eq!(damaged.policy, outcome.policy.filter(|_| !is_newest), "{key}");
        let is_base = key.kind == StageKind::Evaluation && key.iteration == 0;
        assert_eq!(damaged.accuracy.base, sound.accuracy.base.filter(|_| !is_base), "{key}");
        assert!(damaged.accuracy.latest.is_some());
        assert_eq!(status(&test.reopened(), Some(run().id())).await.unwrap(), [damaged]);
        test.flip(&object);
    }
    for name in ["control.json".to_owned(), format!("failures/{}", "5".repeat(64))] {
        let object = format!("runs/{}/{name}", run().id());
        std::fs::create_dir_all(test.path(&object).parent().unwrap()).unwrap();
        std::fs::write(test.path(&object), b"garbage").unwrap();
        let damaged = row().await;
        assert_eq!((damaged.state, damaged.policy), (RunState::Done, outcome.policy));
        let named: Vec<_> = damaged.unreadable_records.iter().map(|lost| &lost.object).collect();
        assert_eq!(named, [&object]);
        test.remove(&object);
    }
    assert_eq!(row().await, sound);
}

#[tokio::test]
async fn a_failure_that_cannot_be_read_is_one() {
    let test = TestStore::file().await;
    let broken: ExecuteFn = Arc::new(|spec, inputs| match spec.kind() {
        StageKind::Update => Err(StageError::Internal("broken".into())),
        _ => fake_outputs(spec, inputs),
    });
    finish(&test.store, run(), broken, 1).await.0.unwrap_err();
    let failed = status(&test.store, Some(run().id())).await.unwrap()[0].failed_at.clone();
    let object = format!("runs/{}/failures/{}", run().id(), failed.unwrap().stage);
    test.flip(&object);
    let row = status(&test.reopened(), Some(run().id())).await.unwrap().remove(0);
    assert_eq!((row.state, row.stages.failed, row.failed_at), (RunState::Failed, 1, None));
    assert_eq!(row.unreadable_records[0].object, object);
}

#[tokio::test]
async fn a_second_look_reads_what_is_new() {
    let (objects, counts) = counting();
    let store = Store::over(objects);
    finished(&store, run(), 1).await;
    let mut looks = Looks::default();
    let mut reads = async || {
        counts.lock().unwrap().clear();
        let rows = looks.all(&store).await.unwrap();
        let count = counts.lock().unwrap().get("GET stages").copied().unwrap_or(0);
        (count, rows)
    };
    let (first, then) = (reads().await, reads().await);
    assert_eq!((first.0, then.0), (27, 0));
    assert_eq!(first.1, then.1);
}
