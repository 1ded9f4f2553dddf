//! Which objects a gc deletes, beside lost, begun and forgotten runs.

use std::collections::BTreeSet;

use agrpo_spec::StageSpec;
use agrpo_store::Condition;
use bytes::Bytes;

use super::*;
use crate::maintenance::verify::verify;
use crate::testing::{
    S3Server, TestStore, fake, fake_outputs, finish, finished, local, repairs, run, run_named,
    with_large,
};

const AT_ONCE: GcOptions = GcOptions { grace: Duration::ZERO, dry_run: false };
const PATIENT: GcOptions = GcOptions { grace: Duration::from_secs(3600), dry_run: false };

fn objects(test: &TestStore, folder: &str) -> BTreeSet<String> {
    let Ok(files) = std::fs::read_dir(test.path(folder)) else { return BTreeSet::new() };
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

fn swept(report: &GcReport) -> u64 {
    report.swept.values().map(|totals| totals.objects).sum()
}

#[tokio::test]
async fn what_runs_reach_stays_even_where_their_index_is_lost() {
    for test in TestStore::each().await {
        finished(&test.store, run(), 2).await;
        let report = gc(&test.store, AT_ONCE).await.unwrap();
        assert_eq!((swept(&report), report.runs), (0, 1), "{report:?}");
        assert!(report.retained.objects > 50);
    }
    let test = TestStore::file().await;
    finished(&test.store, run(), 2).await;
    std::fs::remove_dir_all(test.path(&format!("runs/{}/stages", run().id()))).unwrap();
    assert_eq!(swept(&gc(&test.store, AT_ONCE).await.unwrap()), 0);
    assert!(verify(&test.store, None).await.unwrap().is_clean());
}

#[tokio::test]
async fn a_run_half_way_keeps_what_it_has_and_goes_on_to_the_same_end() {
    let whole = finished(&TestStore::memory().await.store, run(), 1).await;
    for kind in ["reward", "gradient", "update"] {
        let test = TestStore::file().await;
        let stop: agrpo_spec::ExecuteFn =
            std::sync::Arc::new(move |spec: &StageSpec, inputs| match spec.kind().name() == kind {
                true => Err(agrpo_spec::StageError::Internal("stop here".into())),
                false => fake_outputs(spec, inputs),
            });
        finish(&test.store, run(), stop, 1).await.0.unwrap_err();
        assert_eq!(swept(&gc(&test.store, AT_ONCE).await.unwrap()), 0);
        let outcome = finished(&test.reopened(), run(), 1).await;
        assert_eq!((outcome.policy, outcome.done), (whole.policy, true));
        assert!(repairs(&test.store, run().id()).await.is_empty());
    }
}

#[tokio::test]
async fn what_no_run_reaches_goes_when_it_is_old_enough_and_dry_runs_only_count() {
    let test = TestStore::file().await;
    finished(&test.store, run(), 2).await;
    let (cas, stages) = (objects(&test, "cas"), objects(&test, "stages"));
    let orphan = test.store.cas.put(Bytes::from_static(b"orphaned")).await.unwrap();
    let forgotten = run_named("forgotten", 1);
    let other = {
        let mut config = forgotten.config().clone();
        config.seed = 99;
        agrpo_spec::Run::resolve(config).unwrap()
    };
    finished(&test.store, other.clone(), 1).await;
    std::fs::write(test.path("cas/.new-abc"), b"half a blob").unwrap();
    std::fs::create_dir_all(test.path("specs")).unwrap();
    std::fs::write(test.path(&format!("specs/{}", "0".repeat(64))), b"{}").unwrap();
    let freed = only_of(&test.store, other.id()).await.unwrap();
    assert!(freed.objects > 15 && freed.bytes > 0);
    test.store.records.forget_run(other.id()).await.unwrap();
    assert_eq!(test.store.records.runs().await.unwrap(), [run().id()]);

    let young = gc(&test.store, PATIENT).await.unwrap();
    assert_eq!(swept(&young), 0);
    assert_eq!(young.young.objects, freed.objects + 3);
    let before = (objects(&test, "cas"), objects(&test, "stages"));
    let dry = gc(&test.store, GcOptions { dry_run: true, ..AT_ONCE }).await.unwrap();
    assert_eq!((objects(&test, "cas"), objects(&test, "stages")), before);
    let real = gc(&test.store, AT_ONCE).await.unwrap();
    assert_eq!((dry.swept.clone(), dry.dry_run), (real.swept.clone(), true));
    let kinds: Vec<_> = real.swept.keys().copied().collect();
    use ObjectKind::{Blobs, Leftovers, Manifests, Specs};
    assert_eq!(kinds, [Manifests, Specs, Blobs, Leftovers]);
    assert_eq!((objects(&test, "cas"), objects(&test, "stages")), (cas, stages));
    assert!(!test.store.cas.has(orphan.digest).await.unwrap());
    assert_eq!(verify(&test.store, None).await.unwrap().orphaned.objects, 0);
    assert_eq!(finished(&test.reopened(), run(), 1).await.computed, 0);
}

#[tokio::test]
async fn what_a_worker_stores_again_is_young_again() {
    let test = TestStore::file().await;
    let bytes = Bytes::from_static(b"made again");
    let blob = test.store.cas.put(bytes.clone()).await.unwrap();
    let name = format!("cas/{}", blob.digest);
    let age = |test: &TestStore, hours: u64| {
        let then = std::fs::metadata(test.path(&name)).unwrap().modified().unwrap()
            - Duration::from_secs(3600 * hours);
        std::fs::File::open(test.path(&name)).unwrap().set_modified(then).unwrap();
    };
    age(&test, 48);
    // In memory from before, or not: it is written either way.
    for store in [test.store.clone(), test.reopened()] {
        age(&test, 48);
        store.cas.put(bytes.clone()).await.unwrap();
        assert_eq!(swept(&gc(&test.store, PATIENT).await.unwrap()), 0);
        assert!(test.store.cas.has(blob.digest).await.unwrap());
    }
    age(&test, 48);
    assert_eq!(swept(&gc(&test.store, PATIENT).await.unwrap()), 1);
}

#[tokio::test]
async fn an_object_written_since_it_was_listed_stays() {
    let test = TestStore::file().await;
    let bytes = Bytes::from_static(b"in between");
    let blob = test.store.cas.put(bytes.clone()).await.unwrap();
    let listed = test.store.objects.entries("cas").await.unwrap().remove(0);
    let old = Entry { written_ms: listed.written_ms - 1, ..listed.clone() };
    assert!(!delete(&test.store, &old).await.unwrap());
    assert!(test.store.cas.has(blob.digest).await.unwrap());
    assert!(delete(&test.store, &listed).await.unwrap());
    assert!(delete(&test.store, &listed).await.unwrap(), "gone is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_run_that_goes_on_nothing_of_it_is_lost() {
    let whole = finished(&TestStore::memory().await.store, run_named("busy", 6), 1).await;
    let test = TestStore::file().await;
    let slow: agrpo_spec::ExecuteFn = std::sync::Arc::new(|spec: &StageSpec, inputs| {
        std::thread::sleep(Duration::from_millis(3));
        fake_outputs(spec, inputs)
    });
    let store = test.reopened();
    let running = finish(&store, run_named("busy", 6), slow, 2);
    let sweeping = async {
        let mut sweeps = 0;
        while test.store.records.recorded_stages(run_named("busy", 6).id()).await.unwrap().len()
            < 45
        {
            // Half a second of grace is long for stages of milliseconds.
            let grace = Duration::from_millis(500);
            if gc(&test.store, GcOptions { grace, dry_run: false }).await.is_ok() {
                sweeps += 1;
            }
        }
        sweeps
    };
    let ((outcome, _), sweeps) = tokio::join!(running, sweeping);
    assert_eq!(outcome.unwrap().policy, whole.policy);
    assert!(sweeps > 0);
    assert!(verify(&test.store, None).await.unwrap().is_clean());
    assert!(repairs(&test.store, run_named("busy", 6).id()).await.is_empty());
}

#[tokio::test]
async fn nothing_is_swept_while_a_run_cannot_be_followed() {
    let test = TestStore::file().await;
    finished(&test.store, run(), 2).await;
    test.store.cas.put(Bytes::from_static(b"orphaned")).await.unwrap();
    let before = objects(&test, "cas");
    let update = test.store.records.recorded_stages(run().id()).await.unwrap();
    let manifest = format!("stages/{}", update[&"update-000002".parse().unwrap()]);
    for damaged in [manifest, format!("runs/{}/run.json", run().id())] {
        let whole = std::fs::read(test.path(&damaged)).unwrap();
        test.truncate(&damaged);
        let error = gc(&test.store, AT_ONCE).await.unwrap_err();
        assert!(matches!(error, JobsError::Data(_)));
        let message = error.to_string();
        assert!(message.contains(&damaged) && message.contains("nothing was swept"), "{message}");
        assert_eq!(objects(&test, "cas"), before);
        std::fs::write(test.path(&damaged), whole).unwrap();
    }
    assert_eq!(swept(&gc(&test.store, AT_ONCE).await.unwrap()), 1);
}

/// As if another version of agrpo had evaluated the run: its index names stages that our plan does not have.
async fn evaluated_by_another_version(test: &TestStore) {
    let id = run().id();
    for (key, stage) in test.store.records.recorded_stages(id).await.unwrap() {
        let mut manifest = test.store.records.manifest(stage).await.unwrap().unwrap();
        let StageSpec::Evaluation(spec) = &mut manifest.spec else { continue };
        spec.version += 1;
        manifest.stage = manifest.spec.digest();
        let bytes = agrpo_spec::record::seal(&manifest);
        test.objects.put(&format!("stages/{}", manifest.stage), bytes).await;
        test.store.records.record_stage(id, key, manifest.stage).await.unwrap();
        std::fs::remove_file(test.path(&format!("stages/{stage}"))).unwrap();
        std::fs::remove_file(test.path(&format!("runs/{id}/stages/{key}.{stage}"))).unwrap();
    }
    test.objects.pin_other_versions(id).await;
}

#[tokio::test]
async fn nothing_of_a_run_that_another_version_computes_goes() {
    let test = TestStore::file().await;
    let mut config = run().config().clone();
    config.retention.gradients = agrpo_spec::Keep::DropAfterUpdate;
    finished(&test.store, run(), 2).await;
    test.store.records.put_run(&agrpo_spec::Run::resolve(config).unwrap()).await.unwrap();
    evaluated_by_another_version(&test).await;
    let before = (objects(&test, "stages"), objects(&test, "cas"));
    assert_eq!(swept(&gc(&test.store, AT_ONCE).await.unwrap()), 0);
    assert_eq!((objects(&test, "stages"), objects(&test, "cas")), before);
    let report = verify(&test.store, None).await.unwrap();
    assert!(report.is_clean() && report.orphaned.objects == 0, "{report:?}");
    let message = &report.not_followed[0].detail;
    assert!(message.starts_with("it is computed with version 99 of rollout stages"), "{message}");
    let error = test.store.records.require_own_versions(run().id()).await.unwrap_err();
    assert!(matches!(error, JobsError::Incompatible(_)), "{error}");
    // With our versions it goes on: what only the others computed then belongs to no run, and is no fault.
    let outcome = finished(&test.reopened(), run(), 2).await;
    assert!(outcome.computed > 0 && outcome.done);
    let report = verify(&test.store, None).await.unwrap();
    assert!(report.is_clean() && report.orphaned.objects > 0, "{report:?}");
}

#[tokio::test]
async fn nothing_is_swept_or_forgotten_beside_records_of_another_version() {
    let test = TestStore::file().await;
    finished(&test.store, run(), 2).await;
    test.store.cas.put(Bytes::from_static(b"orphaned")).await.unwrap();
    let id = run().id();
    let before = objects(&test, "cas");
    let newer =
        agrpo_spec::record::seal_as(agrpo_spec::record::FORMAT + 1, &BTreeMap::from([("a", 1)]));
    let note = "policies/update-000001";
    for file in ["versions.json", "control.json", "retention.json", "failures/0", note] {
        let name = format!("runs/{id}/{file}");
        let whole = test.objects.get(&name).await;
        test.objects.put(&name, newer.clone()).await;
        let error = gc(&test.store, AT_ONCE).await.unwrap_err();
        assert!(matches!(error, JobsError::Incompatible(_)), "{file}: {error}");
        assert!(error.to_string().ends_with("; nothing was swept"), "{error}");
        assert_eq!(objects(&test, "cas"), before);
        let error = only_of(&test.store, id).await.unwrap_err();
        assert!(matches!(error, JobsError::Incompatible(_)), "{file}: {error}");
        match whole {
            Some(whole) => test.objects.put(&name, whole).await,
            None => std::fs::remove_file(test.path(&name)).unwrap(),
        }
    }
    assert_eq!(swept(&gc(&test.store, AT_ONCE).await.unwrap()), 1);
}

#[tokio::test]
async fn what_retention_no_longer_keeps_goes_with_a_gc_too() {
    let test = TestStore::memory().await;
    finished(&test.store, run(), 1).await;
    let mut config = run().config().clone();
    config.retention.gradients = agrpo_spec::Keep::DropAfterUpdate;
    test.store.records.put_run(&agrpo_spec::Run::resolve(config).unwrap()).await.unwrap();
    let dry = gc(&test.store, GcOptions { dry_run: true, ..AT_ONCE }).await.unwrap();
    assert_eq!(dry.swept[&ObjectKind::Blobs].objects, 4);
    assert_eq!(gc(&test.store, AT_ONCE).await.unwrap().swept, dry.swept);
    let report = verify(&test.store, None).await.unwrap();
    assert!(report.is_clean());
    assert_eq!(report.dropped.objects, 4);
}

/// Any writer of a store can seal a note; what every run keeps stays all the same.
#[tokio::test]
async fn notes_delete_nothing_that_every_run_keeps() {
    let test = TestStore::file().await;
    finished(&test.store, run(), 2).await;
    for (key, stage) in test.store.records.recorded_stages(run().id()).await.unwrap() {
        let outputs = test.store.records.manifest(stage).await.unwrap().unwrap().outputs;
        let note = agrpo_store::DroppedOutputs { key, outputs };
        test.store.records.note_dropped(run().id(), stage, &note).await.unwrap();
    }
    let report = gc(&test.store, AT_ONCE).await.unwrap();
    let newest = run().config().training.iterations;
    let kept = format!("update-{newest:06}").parse().unwrap();
    assert!(agrpo_spec::Retention::LEAST.deletes(&run(), kept, newest).is_empty());
    assert!(swept(&report) > 0);
    for (key, stage) in test.store.records.recorded_stages(run().id()).await.unwrap() {
        for (name, output) in test.store.records.manifest(stage).await.unwrap().unwrap().outputs {
            let is_there = test.store.cas.has(output.digest).await.unwrap();
            let is_update = key.kind == agrpo_spec::StageKind::Update;
            let newest = if is_update { newest } else { u32::MAX };
            let names = agrpo_spec::Retention::LEAST.deletes(&run(), key, newest);
            let may_go = names.contains(&name.split('/').next().unwrap_or_default());
            assert!(is_there || may_go, "{key} {name}");
        }
    }
    let report = verify(&test.store, None).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test]
async fn files_of_other_programs_stay() {
    let test = TestStore::file().await;
    let names = ["cas/thesis.txt", "stages/mail.txt", "specs/notes", "runs/photo.jpg"];
    for name in names {
        test.objects.put(name, Bytes::from_static(b"not ours")).await;
    }
    assert_eq!(swept(&gc(&test.store, AT_ONCE).await.unwrap()), 0);
    for name in names {
        assert_eq!(test.objects.get(name).await.unwrap(), "not ours", "{name}");
    }
}

#[tokio::test]
async fn a_stage_that_belongs_to_no_run_goes() {
    let test = TestStore::memory().await;
    let spec = agrpo_spec::Plan::new(run()).pending().values().next().unwrap().clone();
    let recompute = local(&test.store, fake(), 1).recompute(run().id());
    recompute.compute_anew(&spec).await.unwrap();
    let report = gc(&test.store, AT_ONCE).await.unwrap();
    assert_eq!(report.swept[&ObjectKind::Manifests].objects, 1);
    assert_eq!(test.store.records.manifest(spec.digest()).await.unwrap(), None);
}

/// Stores a large blob in every way, each time when it is as old as a gc takes it: it has to be young again.
async fn stored_again(url: &str, options: &[(String, String)]) {
    // Longer than a second, in which some servers count.
    const LATER: Duration = Duration::from_millis(2600);
    let soon = GcOptions { grace: Duration::from_millis(2400), dry_run: false };
    let store = with_large(&Store::open(url, options).await.unwrap(), 1 << 20);
    let store = store.with_limits(|limits| limits.young = Duration::from_secs(1));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let bytes: Bytes = (0..5u32 << 20).flat_map(u32::to_le_bytes).chain([7]).collect();
    std::fs::write(&path, &bytes).unwrap();
    let record = store.cas.put(bytes.clone()).await.unwrap();
    let (digest, size) = (record.digest, record.size);
    for way in ["blob", "claimed", "folder"] {
        tokio::time::sleep(LATER).await;
        match way {
            "blob" => drop(store.cas.put(bytes.clone()).await.unwrap()),
            "claimed" => assert!(store.cas.claim(digest).await.unwrap()),
            _ => drop(store.cas.import_folder(folder.path(), |_| Ok(())).await.unwrap()),
        }
        gc(&store, soon).await.unwrap();
        assert!(store.cas.has(digest).await.unwrap(), "{url}: {way}");
        assert_eq!(store.cas.condition(digest).await.unwrap(), Condition::Sound(size));
    }
    assert!(!store.cas.claim(agrpo_spec::ArtifactDigest::of(b"nothing")).await.unwrap());
    // Nothing retains it for ever; a busy server may date it a little later than it answers.
    for _ in 0..5 {
        tokio::time::sleep(LATER).await;
        if swept(&gc(&store, soon).await.unwrap()) > 0 {
            break;
        }
    }
    assert!(!store.cas.has(digest).await.unwrap(), "{url}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_or_claimed_again_is_young_in_memory_and_in_files() {
    stored_again("memory://", &[]).await;
    let folder = tempfile::tempdir().unwrap();
    stored_again(folder.path().join("store").to_str().unwrap(), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_or_claimed_again_is_young_on_a_real_server() {
    let server = S3Server::start();
    let set = server.environment().map(|(name, value)| (name.to_owned(), value.to_owned()));
    stored_again("s3://agrpo/claims", &set).await;
}
