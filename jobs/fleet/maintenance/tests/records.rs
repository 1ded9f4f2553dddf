//! A record is sound, of another version, or damaged; only the last is ever moved, and only on two reads.

use std::sync::atomic::Ordering;

use agrpo_spec::record::{FORMAT, seal, seal_as};
use agrpo_spec::{Run, StageKey};

use agrpo_store::{Hold, JobsError};

use crate::gc::{GcOptions, gc};
use crate::status::{RunState, status};
use crate::testing::{TestStore, fake, finish, finished, flaky, hold, repaired, run, run_named};
use crate::{replay::replay_run, verify::verify};

/// The final policy of an undisturbed run.
async fn right(run: Run) -> agrpo_spec::ArtifactDigest {
    finished(&TestStore::memory().await.store, run, 1).await.policy.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_read_in_ten_costs_nothing_but_reads() {
    let (objects, reads) = flaky();
    let test = TestStore::over(objects);
    let store = &test.store;
    let outcome = finished(store, run(), 2).await;
    assert_eq!(outcome.policy, Some(right(run()).await));
    let again = finished(&store.fresh(), run(), 2).await;
    assert_eq!((again.computed, again.policy), (0, outcome.policy));
    for look in 0..5 {
        let rows = status(&store.fresh(), None).await.unwrap();
        assert_eq!((rows[0].state, rows[0].policy), (RunState::Done, outcome.policy), "{look}");
        let report = verify(&store.fresh(), None).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        let replayed = replay_run(store, run().id(), &fake()).await.unwrap();
        assert!(replayed.iter().all(|(_, report)| report.identical));
    }
    let options = GcOptions { grace: std::time::Duration::ZERO, dry_run: false };
    assert!(gc(store, options).await.unwrap().swept.is_empty());
    let (all, bad) = (reads.all.load(Ordering::Relaxed), reads.bad.load(Ordering::Relaxed));
    assert!(bad * 20 > all && bad > 50, "{bad} of {all}: the test tests nothing");
    assert_eq!(test.objects.names("aside").await, [""; 0]);
    assert_eq!(store.records.repair_count(run().id()).await.unwrap(), 0);
}

/// A finished run, and the name and text of the record of one of its updates.
async fn with_update() -> (TestStore, String, serde_json::Value) {
    let test = TestStore::memory().await;
    finished(&test.store, run(), 1).await;
    let key: StageKey = "update-000002".parse().unwrap();
    let stage = test.store.records.recorded_stages(run().id()).await.unwrap()[&key];
    let manifest = test.store.records.manifest(stage).await.unwrap().unwrap();
    (test, format!("stages/{stage}"), serde_json::to_value(&manifest).unwrap())
}

#[tokio::test]
async fn a_record_of_another_version_is_left_alone_and_named() {
    let (test, name, value) = with_update().await;
    let mut more = value.clone();
    more["priority"] = 7.into();
    let flipped = |mut bytes: Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    let newer = [
        seal(&more),
        seal_as(FORMAT + 1, &value),
        serde_json::to_vec(&more).unwrap(),
        // Only a program that knows the format can judge them.
        flipped(seal_as(FORMAT + 1, &value)),
        flipped(seal_as(FORMAT + 1, &more)),
        seal_as(FORMAT + 1, &more)[..200].to_vec(),
    ];
    for bytes in newer {
        test.objects.put(&name, bytes.clone()).await;
        // A run that shares the stages: it needs the record, and says what it cannot read.
        test.objects.drop_index(run().id()).await;
        let store = test.reopened();
        let error = finish(&store, run(), fake(), 2).await.0.unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, JobsError::Incompatible(_)), "{message}");
        assert!(
            message.contains(&name) && message.contains("another version of agrpo"),
            "{message}"
        );
        assert_eq!(store.records.failures(run().id()).await.unwrap(), []);
        let manifest = serde_json::from_value(value.clone()).unwrap();
        let error = store.records.publish(&manifest).await.unwrap_err();
        assert!(matches!(error, JobsError::Incompatible(_)), "{error}");
        // A gc does not know what it reaches.
        let options = GcOptions { grace: std::time::Duration::ZERO, dry_run: false };
        let before = test.objects.names("cas").await;
        let error = gc(&store, options).await.unwrap_err();
        assert!(matches!(error, JobsError::Incompatible(_)), "{error}");
        assert!(error.to_string().ends_with("; nothing was swept"), "{error}");
        assert_eq!(test.objects.names("cas").await, before);
        let report = verify(&store, Some(run().id())).await.unwrap();
        assert!(report.corrupt.is_empty() && !report.is_clean(), "{report:?}");
        assert!(report.incompatible.iter().any(|finding| finding.object == name), "{report:?}");
        // Nor does a repair touch it.
        let error = repaired(&store, run()).await.unwrap_err();
        assert!(matches!(error, JobsError::Incompatible(_)), "{error}");
        // Others go on.
        finished(&store, run_named("other", 1), 1).await;
        assert_eq!(test.objects.get(&name).await.unwrap(), bytes);
        assert_eq!(test.objects.names("aside").await, [""; 0]);
    }
}

#[tokio::test]
async fn a_gc_leaves_what_an_unreached_record_of_another_version_may_name() {
    let (test, name, value) = with_update().await;
    let mut more = value;
    more["priority"] = 7.into();
    test.objects.put(&name, seal(&more)).await;
    test.store.records.forget_run(run().id()).await.unwrap();
    let options = GcOptions { grace: std::time::Duration::ZERO, dry_run: false };
    let before = test.objects.names("cas").await;
    let error = gc(&test.store, options).await.unwrap_err();
    assert!(matches!(error, JobsError::Incompatible(_)), "{error}");
    assert_eq!(test.objects.names("cas").await, before);
}

#[tokio::test]
async fn run_metadata_of_another_version_is_neither_overwritten_nor_removed() {
    let test = TestStore::memory().await;
    let (store, id) = (&test.store, run().id());
    finished(store, run(), 1).await;
    hold(store, id, Hold::Paused).await;
    for name in ["control.json", "retention.json", "versions.json", "run.json"] {
        let name = format!("runs/{id}/{name}");
        let old = test.objects.get(&name).await;
        let newer = seal_as(FORMAT + 1, &serde_json::json!({"state": "paused"}));
        test.objects.put(&name, newer.clone()).await;
        let error = finish(&test.reopened(), run(), fake(), 1).await.0.unwrap_err();
        assert!(matches!(error, JobsError::Incompatible(_)), "{name}: {error}");
        assert!(error.to_string().starts_with(&name), "{error}");
        if name.ends_with("control.json") {
            store.records.clear_control(id).await.unwrap_err();
        }
        assert_eq!(test.objects.get(&name).await.unwrap(), newer);
        match old {
            Some(old) => test.objects.put(&name, old).await,
            None => store.objects.delete(&name).await.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_of_a_metric_is_found_and_the_stage_computed_anew() {
    let test = TestStore::file().await;
    let policy = finished(&test.store, run(), 1).await.policy;
    let key: StageKey = "evaluation-000003".parse().unwrap();
    let stage = test.store.records.recorded_stages(run().id()).await.unwrap()[&key];
    let name = format!("stages/{stage}");
    let text = std::fs::read_to_string(test.path(&name)).unwrap();
    // 0.07 and 0.87 are one bit apart.
    let at = text.find("\"accuracy\": 0.").unwrap() + "\"accuracy\": 0.".len();
    let mut bytes = text.into_bytes();
    bytes[at] ^= 8;
    std::fs::write(test.path(&name), &bytes).unwrap();
    let row = status(&test.reopened(), Some(run().id())).await.unwrap().remove(0);
    let [record] = &*row.unreadable_records else { panic!("{row:?}") };
    assert!(record.object == name && record.why.starts_with(&name), "{record:?}");
    let before =
        crate::planning::policy_notes::evaluations_at(&test.store, &run(), 2).await.unwrap();
    let [(_, before)] = &*before else { panic!("{before:?}") };
    assert_eq!(row.accuracy.latest, before.metrics.get("accuracy").copied());
    let report = verify(&test.reopened(), None).await.unwrap();
    assert_eq!(report.corrupt.len(), 1, "{report:?}");
    let outcome = finished(&test.reopened(), run(), 1).await;
    assert_eq!((outcome.computed, outcome.policy), (1, policy));
    assert!(test.path(&format!("aside/stages-{stage}")).exists());
    assert!(verify(&test.reopened(), None).await.unwrap().is_clean());
}

#[tokio::test]
async fn records_from_before_they_were_sealed_are_read_and_counted() {
    let test = TestStore::memory().await;
    let policy = finished(&test.store, run(), 1).await.policy;
    let mut count = 0;
    for folder in ["stages", "runs"] {
        for name in test.objects.names(folder).await {
            let text = test.objects.get(&name).await.unwrap();
            let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(&text) else {
                continue;
            };
            let Some(fields) = value.as_object_mut() else { continue };
            fields.remove("format");
            fields.remove("sha256");
            let old = match name.contains("/policies/") {
                // Notes were a digest alone.
                true => format!("{}\n", fields["stage"].as_str().unwrap()).into_bytes(),
                false => serde_json::to_vec_pretty(&value).unwrap(),
            };
            count += u64::from(!name.contains("/policies/"));
            test.objects.put(&name, old).await;
        }
    }
    let report = verify(&test.reopened(), None).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.without_checksum, count);
    let rows = status(&test.reopened(), None).await.unwrap();
    assert_eq!((rows[0].state, rows[0].policy), (RunState::Done, policy));
    let again = finished(&test.reopened(), run(), 1).await;
    assert_eq!((again.computed, again.policy), (0, policy));
    // Resuming noted the policies anew.
    let newest = "update-000003".parse().unwrap();
    assert!(test.store.records.recorded_policy(run().id(), newest).await.unwrap().is_some());
}
