//! Every blob of every stage lost in every way, one by one and all at once; and blobs that cannot be made again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use agrpo_spec::{FolderListing, StageKind};

use super::*;
use crate::testing::{TestStore, clock, environment, fake, fake_outputs, finished, repairs, run};

fn recompute(store: &Store, execute: ExecuteFn) -> Recompute {
    Recompute {
        store: store.fresh(),
        run: Some(run().id()),
        execute,
        environment: environment(),
        clock: clock(),
        turn: Arc::default(),
    }
}

async fn computed() -> (TestStore, Vec<Manifest>) {
    let test = TestStore::file().await;
    finished(&test.store, run(), 2).await;
    let mut manifests = vec![];
    for stage in test.store.records.recorded_stages(run().id()).await.unwrap().into_values() {
        manifests.push(test.store.records.manifest(stage).await.unwrap().unwrap());
    }
    (test, manifests)
}

/// Every blob that a stage reads, files of folders included.
async fn blobs_of(store: &Store, spec: &StageSpec) -> BTreeSet<ArtifactDigest> {
    let mut blobs = BTreeSet::new();
    for (_, digest) in spec.inputs() {
        blobs.insert(digest);
        let bytes = store.cas.get(digest).await.unwrap();
        let listing = FolderListing::from_bytes(&bytes);
        blobs.extend(listing.into_iter().flat_map(|l| l.files.into_values()).map(|f| f.digest));
    }
    blobs
}

fn objects(test: &TestStore, folder: &str) -> BTreeSet<String> {
    let files = std::fs::read_dir(test.path(folder)).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

/// A way to lose a blob, and the reason in the record of its repair.
type Way<'a> = (&'a dyn Fn(&str), Why);

#[tokio::test]
async fn every_blob_that_a_stage_reads_can_be_lost_in_every_way() {
    let (test, manifests) = computed().await;
    let (cas, stages) = (objects(&test, "cas"), objects(&test, "stages"));
    let ways: [Way<'_>; 3] = [
        (&|name| test.remove(name), Why::Missing),
        (&|name| test.flip(name), Why::Corrupt),
        (&|name| test.truncate(name), Why::Corrupt),
    ];
    let mut roles = BTreeSet::new();
    for manifest in manifests.iter().rev().take(14) {
        roles.extend(manifest.spec.inputs().into_iter().map(|(role, _)| role));
        for blob in blobs_of(&test.store, &manifest.spec).await {
            for (damage, why) in ways {
                damage(&format!("cas/{blob}"));
                let again =
                    recompute(&test.store, fake()).compute_anew(&manifest.spec).await.unwrap();
                assert_eq!(again, *manifest);
                let remembered = repairs(&test.store, run().id()).await;
                assert_eq!(remembered.len(), 1, "{remembered:?}");
                let repair = &remembered[0];
                assert_eq!((repair.lost, repair.why), (Some(blob), why));
                assert_eq!(repair.needed_by, Some(manifest.stage));
                let producer = test.store.records.manifest(repair.stage).await.unwrap().unwrap();
                assert!(producer.outputs.values().any(|output| output.digest == blob));
                std::fs::remove_dir_all(test.path(&format!("runs/{}/rewound", run().id())))
                    .unwrap();
                assert_eq!(objects(&test, "cas"), cas);
                assert_eq!(objects(&test, "stages"), stages);
            }
        }
    }
    let expected = ["behaviour", "gradient", "optimizer", "policy", "rewards", "trajectories"];
    assert_eq!(roles.into_iter().collect::<Vec<_>>(), expected, "every kind of blob was lost");
}

#[tokio::test]
async fn all_generations_lost_at_once_are_made_again_from_the_first() {
    let (test, manifests) = computed().await;
    let cas = objects(&test, "cas");
    for index_is_lost in [false, true] {
        for blob in objects(&test, "cas") {
            test.remove(&format!("cas/{blob}"));
        }
        if index_is_lost {
            std::fs::remove_dir_all(test.path(&format!("runs/{}/stages", run().id()))).unwrap();
        }
        let last = manifests.iter().rfind(|m| m.spec.kind() == StageKind::Update).unwrap();
        let begun = Arc::new(AtomicU32::new(0));
        let counting = {
            let begun = Arc::clone(&begun);
            Arc::new(move |spec: &StageSpec, inputs: &agrpo_spec::Inputs| {
                begun.fetch_add(1, Ordering::SeqCst);
                fake_outputs(spec, inputs)
            })
        };
        let again = recompute(&test.store, counting).compute_anew(&last.spec).await.unwrap();
        assert_eq!(again.outputs, last.outputs);
        // Nothing but what leads to it: 3 chunks, 3 iterations of 7 stages.
        assert_eq!(begun.load(Ordering::SeqCst), 3 + 3 * 7);
        let evaluations = cas.len() - objects(&test, "cas").len();
        assert_eq!(evaluations, 3, "only what no stage needed is still lost");
    }
}

#[tokio::test]
async fn a_record_lost_with_its_blob_is_found_by_the_plan() {
    let (test, manifests) = computed().await;
    let gradient = manifests.iter().rfind(|m| m.spec.kind() == StageKind::Gradient).unwrap();
    let update = manifests.iter().rfind(|m| m.spec.kind() == StageKind::Update).unwrap();
    test.remove(&format!("stages/{}", gradient.stage));
    test.remove(&format!("cas/{}", gradient.output("gradient").unwrap()));
    let again = recompute(&test.store, fake()).compute_anew(&update.spec).await.unwrap();
    assert_eq!(again.outputs, update.outputs);
    let repairs = repairs(&test.store, run().id()).await;
    assert_eq!((repairs.len(), repairs[0].why), (1, Why::MissingManifest));
    let standing = test.store.records.manifest(gradient.stage).await.unwrap().unwrap();
    assert_eq!(standing.outputs, gradient.outputs);
}

#[tokio::test]
async fn another_result_is_an_error_and_overwrites_nothing() {
    let (test, manifests) = computed().await;
    let update = manifests.iter().rfind(|m| m.spec.kind() == StageKind::Update).unwrap();
    let StageSpec::Update(spec) = &update.spec else { unreachable!() };
    let lost = spec.gradients[1];
    test.flip(&format!("cas/{lost}"));
    let damaged = std::fs::read(test.path(&format!("cas/{lost}"))).unwrap();
    let other: ExecuteFn = Arc::new(|spec, inputs| {
        let mut outputs = fake_outputs(spec, inputs)?;
        let blob = agrpo_spec::Artifact::Blob(bytes::Bytes::from_static(b"something else").into());
        outputs.artifacts.insert("gradient", blob);
        Ok(outputs)
    });
    let error = recompute(&test.store, other).compute_anew(&update.spec).await.unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, JobsError::Data(_)) && message.contains("another result"), "{message}");
    assert!(
        message.contains(&lost.to_string()) && message.contains("output `gradient`"),
        "{message}"
    );
    assert_eq!(std::fs::read(test.path(&format!("cas/{lost}"))).unwrap(), damaged);
    assert_eq!(repairs(&test.store, run().id()).await, []);
}

#[tokio::test]
async fn what_no_stage_made_has_to_be_imported_again() {
    let (test, manifests) = computed().await;
    let update = manifests.iter().rfind(|m| m.spec.kind() == StageKind::Update).unwrap();
    let StageSpec::Update(spec) = &update.spec else { unreachable!() };
    let from_outside = ArtifactDigest::of(b"a checkpoint");
    let spec = StageSpec::Update(agrpo_spec::UpdateSpec { policy: from_outside, ..spec.clone() });
    let error = recompute(&test.store, fake()).compute_anew(&spec).await.unwrap_err();
    assert!(matches!(&error, JobsError::Lost { digest, .. } if *digest == from_outside));
    assert!(error.to_string().contains("import that again"), "{error}");
}

#[tokio::test]
async fn a_stage_of_other_numerics_or_another_version_is_refused_in_words() {
    let (test, manifests) = computed().await;
    let update = manifests.iter().rfind(|m| m.spec.kind() == StageKind::Update).unwrap();
    let StageSpec::Update(spec) = &update.spec else { unreachable!() };
    test.remove(&format!("cas/{}", spec.policy));
    let numerics = "cuda:90".parse().unwrap();
    let other = StageSpec::Update(agrpo_spec::UpdateSpec { numerics, ..spec.clone() });
    let error = recompute(&test.store, fake()).compute_anew(&other).await.unwrap_err().to_string();
    assert!(error.contains("numerics cpu-portable") && error.contains("cuda:90"), "{error}");
}

/// Bytes flip while a stage reads its inputs, above the limit from which blobs are read in windows
/// and below it; neither the file's length nor its times change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_under_which_bytes_flip_gives_the_same_policy() {
    for (large, is_repaired) in [(1000, true), (1 << 20, false)] {
        let test = Arc::new(TestStore::file_with_large(large).await);
        let undisturbed = finished(&TestStore::memory().await.store, run(), 1).await;
        let struck = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
        let (folder, seen) = (Arc::clone(&test), Arc::clone(&struck));
        let execute: ExecuteFn = Arc::new(move |spec, inputs| {
            for (role, digest) in spec.inputs() {
                if !["policy", "behaviour", "reference"].contains(&role) {
                    continue;
                }
                let model = inputs.folder(digest)?["model.safetensors"].digest().unwrap();
                if seen.lock().unwrap().insert(model) {
                    folder.flip_silently(&format!("cas/{model}"));
                }
            }
            fake_outputs(spec, inputs)
        });
        let (outcome, _) = crate::testing::finish(&test.store, run(), execute, 1).await;
        let outcome = outcome.unwrap();
        assert!(outcome.done);
        assert_eq!(outcome.policy, undisturbed.policy);
        let struck = struck.lock().unwrap().len();
        assert!(struck > 4, "{struck} policies were damaged");
        // What was in memory did not have to be made again.
        let repairs = repairs(&test.store, run().id()).await;
        assert_eq!(repairs.is_empty(), !is_repaired, "{repairs:?}");
        assert!(repairs.iter().all(|one| one.why == Why::Corrupt));
        // A new process on the same files: nothing that was flipped counts.
        let again = finished(&test.reopened(), run(), 1).await;
        assert_eq!((again.policy, again.done), (undisturbed.policy, true));
    }
}

/// What no stage made cannot be made again: the run ends with the blob's name, and publishes nothing.
#[tokio::test]
async fn a_damaged_input_that_nothing_made_is_named() {
    let test = Arc::new(TestStore::file_with_large(1000).await);
    finished(&test.store, run(), 1).await;
    let manifests = test.store.records.recorded_stages(run().id()).await.unwrap().into_values();
    let mut rollout = None;
    for stage in manifests {
        let spec = test.store.records.manifest(stage).await.unwrap().unwrap().spec;
        rollout = if spec.kind() == StageKind::Rollout { Some(spec) } else { rollout };
    }
    let rollout = rollout.unwrap();
    let [(_, policy)] = rollout.inputs()[..] else { panic!("{rollout:?}") };
    let listing = FolderListing::from_bytes(&test.store.cas.get(policy).await.unwrap()).unwrap();
    let model = listing.files["model.safetensors"].digest;
    let folder = Arc::clone(&test);
    let execute: ExecuteFn = Arc::new(move |spec, inputs| {
        folder.flip_silently(&format!("cas/{model}"));
        fake_outputs(spec, inputs)
    });
    let recompute = Recompute { run: None, ..recompute(&test.store, execute) };
    for stage in objects(&test, "stages") {
        test.remove(&format!("stages/{stage}"));
    }
    let error = recompute.compute_anew(&rollout).await.unwrap_err();
    assert!(matches!(error, JobsError::Lost { digest, .. } if digest == model), "{error}");
    assert!(error.to_string().contains("import that again"), "{error}");
    assert!(objects(&test, "stages").is_empty());
}
