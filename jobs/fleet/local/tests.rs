//! Same run, same bytes: whatever the number of workers, and however often it was stopped or killed.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use agrpo_spec::{Plan, Purpose, Seed, StageError, StageKind, StageSpec};

use super::*;
use crate::maintenance::replay::replay_run;
use crate::testing::{
    TestStore, fake, fake_outputs, finish, finished, local, repairs, run, run_named, throttled,
};

/// The fake that every so often takes a moment, so that workers finish in any order.
fn dawdling() -> ExecuteFn {
    Arc::new(|spec, inputs| {
        let nap = u64::from_str_radix(&spec.digest().to_string()[..2], 16).unwrap() % 4;
        std::thread::sleep(Duration::from_millis(nap));
        fake_outputs(spec, inputs)
    })
}

/// The fake that fails the stages that `fails` picks.
fn failing(fails: impl Fn(&StageSpec) -> Option<StageError> + Send + Sync + 'static) -> ExecuteFn {
    Arc::new(move |spec, inputs| match fails(spec) {
        Some(error) => Err(error),
        None => fake_outputs(spec, inputs),
    })
}

/// Every stage's outputs, which say all about a run's result.
async fn results(store: &Store, run: &Run) -> BTreeMap<String, Vec<ArtifactDigest>> {
    let mut results = BTreeMap::new();
    for (key, stage) in store.records.recorded_stages(run.id()).await.unwrap() {
        let manifest = store.records.complete_manifest(stage).await.unwrap().unwrap();
        let outputs = manifest.outputs.values().map(|record| record.digest).collect();
        results.insert(format!("{key} {stage}"), outputs);
    }
    results
}

async fn reference() -> (Outcome, BTreeMap<String, Vec<ArtifactDigest>>) {
    let test = TestStore::memory().await;
    let outcome = finished(&test.store, run(), 1).await;
    (outcome, results(&test.store, &run()).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_workers_changes_nothing() {
    let (whole, expected) = reference().await;
    assert!(whole.done && whole.policy.is_some());
    assert_eq!((whole.computed, whole.reused), (Plan::total_stages(&run()), 0));
    for workers in [2, 5] {
        for test in TestStore::each().await {
            let (outcome, events) = finish(&test.store, run(), dawdling(), workers).await;
            assert_eq!(outcome.unwrap(), whole);
            assert_eq!(results(&test.store, &run()).await, expected);
            let finished = events
                .iter()
                .filter(|e| matches!(e, Event::Settled { is_reused: false, .. }))
                .count();
            assert_eq!(finished as u64, whole.computed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_worker_stores_a_result_while_it_computes_the_next_stage() {
    let (store, slow) = throttled();
    // Every write takes longer than a stage.
    slow.config_mut(|config| config.wait_put_per_call = Duration::from_millis(20));
    let (outcome, events) = finish(&store, run_named("overlap", 1), fake(), 1).await;
    assert!(outcome.unwrap().done);
    let [first, second] = [0, 1].map(|shard| StageKey::new(StageKind::Rollout, 1, shard));
    let place = |is_sought: &dyn Fn(&Event) -> bool| events.iter().position(is_sought).unwrap();
    let begun = place(&|event| matches!(event, Event::Started { key, .. } if *key == second));
    let stored = place(&|event| matches!(event, Event::Settled { key, .. } if *key == first));
    assert!(begun < stored, "{events:?}");
}

#[tokio::test]
async fn a_finished_run_is_opened_and_left_alone() {
    let test = TestStore::file().await;
    let whole = finished(&test.store, run(), 2).await;
    let refuse = failing(|_| Some(StageError::Internal("computed twice".into())));
    let (again, events) = finish(&test.reopened(), run(), refuse, 2).await;
    let expected = Outcome { computed: 0, reused: whole.computed, ..whole };
    assert_eq!(again.unwrap(), expected);
    assert!(matches!(events[0], Event::Opened { total: 27, .. }), "{:?}", events[0]);
    assert!(!events.iter().any(|event| matches!(event, Event::Started { .. })));
}

#[tokio::test]
async fn a_stopped_run_keeps_what_was_in_hand_and_goes_on_to_the_same_end() {
    let (whole, expected) = reference().await;
    for test in TestStore::each().await {
        for stop_after in [1, 5, 9] {
            let (stop, stopped) = watch::channel(false);
            let begun = AtomicU64::new(0);
            let execute: ExecuteFn = Arc::new(move |spec, inputs| {
                if begun.fetch_add(1, Ordering::SeqCst) + 1 == stop_after {
                    stop.send_replace(true);
                }
                fake_outputs(spec, inputs)
            });
            let (events, _heard) = mpsc::unbounded_channel();
            let local = local(&test.reopened(), execute, 2);
            let outcome = local.run(run(), false, events, stopped).await.unwrap();
            assert!(!outcome.done && outcome.computed >= stop_after, "{outcome:?}");
        }
        let outcome = finished(&test.reopened(), run(), 2).await;
        assert_eq!((outcome.done, outcome.policy), (true, whole.policy));
        assert_eq!(outcome.computed + outcome.reused, whole.computed);
        assert_eq!(results(&test.store, &run()).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_killed_anywhere_goes_on_to_the_same_end() {
    let (whole, expected) = reference().await;
    for test in TestStore::each().await {
        let mut killed = 0;
        for attempt in 0..60 {
            let life = Seed::new(7).child(Purpose::Token, attempt).below(40, 0, 0);
            let store = test.reopened();
            let life = Duration::from_millis(life);
            // Dropping the future at the deadline is as sudden as the process's death for all that
            // happens between two awaits.
            match tokio::time::timeout(life, finish(&store, run(), dawdling(), 3)).await {
                Ok((outcome, _)) => assert!(outcome.unwrap().done),
                Err(_) => killed += 1,
            }
        }
        assert!(killed > 0);
        let outcome = finished(&test.reopened(), run(), 2).await;
        assert_eq!((outcome.done, outcome.policy), (true, whole.policy));
        assert_eq!(results(&test.store, &run()).await, expected);
    }
}

#[tokio::test]
async fn a_stage_that_fails_ends_the_run_with_a_record_that_the_next_try_clears() {
    for test in TestStore::each().await {
        let broken = |spec: &StageSpec| {
            (spec.kind() == StageKind::Reward).then(|| StageError::Invalid("no reward".into()))
        };
        let (outcome, _) = finish(&test.store, run(), failing(broken), 2).await;
        let error = outcome.unwrap_err();
        assert!(matches!(error, JobsError::Refused(_)), "{error}");
        let failures = test.store.records.failures(run().id()).await.unwrap();
        assert!(!failures.is_empty());
        assert_eq!(failures[0].key.kind, StageKind::Reward);
        assert!(failures[0].error.contains("no reward") && failures[0].worker == "test");
        assert!(failures[0].log[0].starts_with("logged since "), "{:?}", failures[0].log);
        // Stages in hand beside it were finished and stored.
        let recorded = test.store.records.recorded_stages(run().id()).await.unwrap();
        assert!(recorded.contains_key(&"rollout-000001-01".parse().unwrap()));
        let outcome = finished(&test.store, run(), 2).await;
        assert!(outcome.done && outcome.reused > 0);
        assert_eq!(test.store.records.failures(run().id()).await.unwrap(), []);
    }
}

#[tokio::test]
async fn data_errors_panics_and_infinite_metrics_are_distinguished() {
    let test = TestStore::memory().await;
    let data = failing(|_| Some(StageError::Data("bad input".into())));
    let error = finish(&test.store, run(), data, 1).await.0.unwrap_err();
    assert!(matches!(error, JobsError::Data(_)) && error.to_string().contains("bad input"));
    let panic: ExecuteFn = Arc::new(|_, _| panic!("out of cheese"));
    let error = finish(&test.store, run(), panic, 1).await.0.unwrap_err();
    assert!(matches!(error, JobsError::Failed(_)) && error.to_string().contains("out of cheese"));
    let infinite: ExecuteFn = Arc::new(|spec, inputs| {
        let mut outputs = fake_outputs(spec, inputs)?;
        outputs.metrics.insert("loss".into(), f64::NAN);
        Ok(outputs)
    });
    let error = finish(&test.store, run(), infinite, 1).await.0.unwrap_err();
    assert!(matches!(error, JobsError::Refused(_)) && error.to_string().contains("loss is NaN"));
}

#[tokio::test]
async fn lost_and_damaged_blobs_are_computed_again_to_the_same_bytes() {
    let (whole, expected) = reference().await;
    let test = TestStore::file().await;
    finished(&test.store, run(), 1).await;
    let stages = test.store.records.recorded_stages(run().id()).await.unwrap();
    for key in ["gradient-000001-01", "update-000002", "rollout-000003-00", "update-000003"] {
        let manifest =
            test.store.records.manifest(stages[&key.parse().unwrap()]).await.unwrap().unwrap();
        let record = manifest.outputs.values().next_back().unwrap();
        test.remove(&format!("cas/{}", record.digest));
    }
    // What lies before the newest complete update is looked at only when the index is gone.
    std::fs::remove_dir_all(test.path(&format!("runs/{}/stages", run().id()))).unwrap();
    let outcome = finished(&test.reopened(), run(), 2).await;
    assert_eq!((outcome.computed, outcome.policy), (4, whole.policy));
    assert_eq!(results(&test.store, &run()).await, expected);

    let update = test.store.records.manifest(stages[&"update-000003".parse().unwrap()]).await;
    let optimizer = update.unwrap().unwrap().output("optimizer").unwrap();
    test.truncate(&format!("cas/{optimizer}"));
    let outcome = finished(&test.reopened(), run(), 2).await;
    assert_eq!((outcome.computed, outcome.policy), (1, whole.policy));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_damaged_in_the_middle_of_a_run_are_made_again_and_the_end_is_the_same() {
    let (whole, expected) = reference().await;
    for kind in [StageKind::Reward, StageKind::Gradient, StageKind::Update, StageKind::Evaluation] {
        let test = TestStore::file().await;
        let stop_here = move |spec: &StageSpec| {
            (spec.kind() == kind).then(|| StageError::Internal("stop here".into()))
        };
        finish(&test.store, run(), failing(stop_here), 1).await.0.unwrap_err();
        let stages = test.store.records.recorded_stages(run().id()).await.unwrap();
        let mut flipped = 0;
        for stage in stages.values() {
            let manifest = test.store.records.manifest(*stage).await.unwrap().unwrap();
            // Whatever file it is: found only when it is read.
            for record in manifest.outputs.values().filter(|record| record.size > 200) {
                test.flip(&format!("cas/{}", record.digest));
                flipped += 1;
            }
        }
        assert!(flipped > 3);
        let outcome = finished(&test.reopened(), run(), 2).await;
        assert_eq!((outcome.done, outcome.policy), (true, whole.policy), "{kind}");
        assert_eq!(results(&test.store, &run()).await, expected);
        let repairs = repairs(&test.store, run().id()).await;
        assert!(!repairs.is_empty(), "{kind}");
        assert!(repairs.iter().all(|r| r.why == agrpo_store::Why::Corrupt && r.worker == "test"));
        let manifests = std::fs::read_dir(test.path("stages")).unwrap().count();
        assert_eq!(manifests as u64, Plan::total_stages(&run()), "one record a stage");
    }
}

#[tokio::test]
async fn damaged_records_are_put_aside_and_computed_anew() {
    let (whole, expected) = reference().await;
    let stages = {
        let test = TestStore::file().await;
        finished(&test.store, run(), 1).await;
        test.store.records.recorded_stages(run().id()).await.unwrap()
    };
    for (key, stage) in stages.iter().rev().take(9) {
        let test = TestStore::file().await;
        finished(&test.store, run(), 1).await;
        let manifest = test.store.records.manifest(*stage).await.unwrap().unwrap();
        std::fs::write(test.path(&format!("stages/{stage}")), b"{\"stage\": 1").unwrap();
        let outcome = finished(&test.reopened(), run(), 2).await;
        assert_eq!((outcome.done, outcome.policy), (true, whole.policy), "{key}");
        let repairs = repairs(&test.store, run().id()).await;
        let is_looked_at = matches!(key.kind, StageKind::Evaluation)
            || key.iteration == 3 && key.kind == StageKind::Update;
        if is_looked_at {
            assert_eq!(repairs.len(), 1, "{key}");
            assert_eq!(
                (repairs[0].stage, repairs[0].why),
                (*stage, agrpo_store::Why::CorruptManifest)
            );
            assert!(test.path(&format!("aside/stages-{stage}")).exists());
            let again = test.store.records.manifest(*stage).await.unwrap().unwrap();
            assert_eq!(again.outputs, manifest.outputs);
        }
        if is_looked_at {
            assert_eq!(results(&test.store, &run()).await, expected);
        }
    }
}

#[tokio::test]
async fn runs_share_what_they_have_in_common() {
    let test = TestStore::memory().await;
    finished(&test.store, run_named("one", 1), 1).await;
    let outcome = finished(&test.store, run_named("two", 1), 1).await;
    assert_eq!(outcome.computed, 0, "only the name differs, which no stage names");
    let reports = replay_run(&test.store, outcome.run, &fake()).await.unwrap();
    assert!(reports.iter().all(|(_, report)| report.identical));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_computed_by_one_process_of_a_local_store_at_a_time() {
    let test = TestStore::file().await;
    let begin = |store| {
        let local = local(store, dawdling(), 1);
        async move {
            local.run(run(), false, mpsc::unbounded_channel().0, watch::channel(false).1).await
        }
    };
    let (first, second) = tokio::join!(begin(&test.store), begin(&test.store));
    let (done, refused) = if first.is_ok() { (first, second) } else { (second, first) };
    assert!(done.unwrap().done);
    let error = refused.unwrap_err();
    assert!(matches!(error, JobsError::Invalid(_)), "{error}");
    assert!(error.to_string().contains("being computed by another process in file://"), "{error}");
    assert_eq!(crate::status::status(&test.store, None).await.unwrap()[0].stages.computed_twice, 0);
    assert!(begin(&test.store).await.unwrap().done, "it is free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_run_waits_and_a_cancelled_one_ends_and_both_go_on_to_the_same_end() {
    let (_, expected) = reference().await;
    for state in [Hold::Paused, Hold::Cancelled] {
        let test = TestStore::file().await;
        let control = |state| Control { state, unix_ms: 1, by: "anna".to_owned() };
        let (events, mut heard) = mpsc::unbounded_channel();
        let (_stop, stopped) = watch::channel(false);
        let slow: ExecuteFn = Arc::new(|spec, inputs| {
            std::thread::sleep(Duration::from_millis(150));
            fake_outputs(spec, inputs)
        });
        let local = local(&test.store, slow, 1);
        let going = local.run(run(), false, events, stopped);
        let meddling = async {
            sleep(Duration::from_millis(500)).await;
            test.store.records.put_control(run().id(), &control(state)).await.unwrap();
            sleep(Duration::from_secs(2)).await;
            let begun = test.store.records.recorded_stages(run().id()).await.unwrap().len();
            assert!((1..20).contains(&begun), "{begun}");
            sleep(Duration::from_secs(2)).await;
            let later = test.store.records.recorded_stages(run().id()).await.unwrap().len();
            assert_eq!(begun, later, "no stage is begun two seconds after the word");
            if state == Hold::Paused {
                test.store.records.clear_control(run().id()).await.unwrap();
            }
        };
        let (outcome, ()) = tokio::join!(going, meddling);
        let outcome = outcome.unwrap();
        assert_eq!(
            (outcome.done, outcome.cancelled),
            match state {
                Hold::Paused => (true, false),
                Hold::Cancelled => (false, true),
            }
        );
        let events: Vec<Event> = std::iter::from_fn(|| heard.try_recv().ok()).collect();
        assert!(events.iter().any(|event| matches!(event, Event::Held { by, .. } if by == "anna")));
        // Asking for a cancelled run is asking for it to go on.
        assert!(finished(&test.store, run(), 2).await.done);
        assert_eq!(results(&test.store, &run()).await, expected);
        assert_eq!(test.store.records.control(run().id()).await.unwrap(), None);
    }
}

/// The idle worker looks at the run while it is cancelled, and another one has a stage in hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_resumed_before_it_ended_keeps_all_its_workers() {
    let test = TestStore::memory().await;
    let (is_held, is_open) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let execute: ExecuteFn = {
        let (is_held, is_open, most) = (is_held.clone(), is_open.clone(), most.clone());
        Arc::new(move |spec, inputs| {
            let is_first = spec.kind() == StageKind::Rollout && !is_held.swap(true, SeqCst);
            while is_first && !is_open.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let now = at_once.fetch_add(1, SeqCst) + 1;
            if is_open.load(SeqCst) {
                most.fetch_max(now, SeqCst);
            }
            std::thread::sleep(Duration::from_millis(50));
            at_once.fetch_sub(1, SeqCst);
            fake_outputs(spec, inputs)
        })
    };
    let (events, _heard) = mpsc::unbounded_channel();
    let (_stop, stopped) = watch::channel(false);
    let local = local(&test.store, execute, 2);
    let going = local.run(run(), false, events, stopped);
    let meddling = async {
        while !is_held.load(SeqCst) {
            sleep(Duration::from_millis(10)).await;
        }
        let control = Control { state: Hold::Cancelled, unix_ms: 1, by: "anna".to_owned() };
        test.store.records.put_control(run().id(), &control).await.unwrap();
        sleep(2 * LOOK).await;
        test.store.records.clear_control(run().id()).await.unwrap();
        sleep(2 * LOOK).await;
        is_open.store(true, SeqCst);
    };
    let (outcome, ()) = tokio::join!(going, meddling);
    assert!(outcome.unwrap().done);
    assert_eq!(most.load(SeqCst), 2);
}

mod fused;
