//! Every way in which a store can be wrong is told apart.

use agrpo_spec::StageKey;

use super::*;
use crate::testing::{TestStore, finished, run, run_named};

async fn computed() -> (TestStore, BTreeMap<StageKey, StageDigest>) {
    let test = TestStore::file().await;
    finished(&test.store, run(), 2).await;
    let stages = test.store.recorded_stages(run().id()).await.unwrap();
    (test, stages)
}

async fn output(test: &TestStore, stage: StageDigest, name: &str) -> ArtifactDigest {
    test.store.manifest(stage).await.unwrap().unwrap().output(name).unwrap()
}

#[tokio::test]
async fn a_whole_store_is_clean_and_every_byte_was_read() {
    let (test, stages) = computed().await;
    for run in [None, Some(run().id())] {
        let report = verify(&test.reopened(), run).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.runs, report.stages), (1, stages.len() as u64));
        let files = std::fs::read_dir(test.path("cas")).unwrap();
        let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert_eq!(report.sound.bytes, bytes);
        assert_eq!((report.dropped, report.orphaned), (Tally::default(), Tally::default()));
    }
}

#[tokio::test]
async fn damage_of_each_kind_is_found_by_name() {
    let (test, stages) = computed().await;
    let stage = |key: &str| stages[&key.parse().unwrap()];
    let gone = output(&test, stage("gradient-000002-01"), "gradient").await;
    let flipped = output(&test, stage("update-000002"), "policy/model.safetensors").await;
    test.remove(&format!("cas/{gone}"));
    test.flip(&format!("cas/{flipped}"));
    test.truncate(&format!("stages/{}", stage("reward-000001-00")));
    test.remove(&format!("stages/{}", stage("evaluation-000002")));
    std::fs::create_dir_all(test.path("specs")).unwrap();
    let spec = format!("specs/{}", stage("update-000001"));
    std::fs::write(test.path(&spec), b"{}").unwrap();
    // The store that computed the run has much of it in memory, and is not fooled by that.
    let report = verify(&test.store, Some(run().id())).await.unwrap();
    assert!(!report.is_clean());
    let names = |findings: &[Finding]| {
        findings.iter().map(|found| found.object.clone()).collect::<BTreeSet<_>>()
    };
    let missing = [format!("cas/{gone}"), format!("stages/{}", stage("evaluation-000002"))];
    assert_eq!(names(&report.missing), missing.into());
    let corrupt = [format!("cas/{flipped}"), format!("stages/{}", stage("reward-000001-00")), spec];
    assert_eq!(names(&report.corrupt), corrupt.into());
    let blob = report.corrupt.iter().find(|found| found.object.starts_with("cas/")).unwrap();
    assert_eq!(blob.told, "update-000002 policy/model.safetensors");
    assert_eq!(blob.run, Some(run().id()));
}

#[tokio::test]
async fn a_damaged_run_does_not_hide_the_others() {
    let (test, _) = computed().await;
    finished(&test.store, run_named("other", 1), 1).await;
    let record = format!("runs/{}/run.json", run_named("other", 1).id());
    test.truncate(&record);
    let report = verify(&test.store, None).await.unwrap();
    assert_eq!((report.runs, report.corrupt.len()), (1, 1));
    assert_eq!(report.corrupt[0].object, record);
}

#[tokio::test]
async fn orphans_are_counted_and_no_fault() {
    let (test, _) = computed().await;
    test.store.put_blob(bytes::Bytes::from_static(b"nobody's")).await.unwrap();
    let report = verify(&test.store, None).await.unwrap();
    assert!(report.is_clean());
    assert_eq!((report.orphaned.objects, report.orphaned.bytes), (1, 8));
}
