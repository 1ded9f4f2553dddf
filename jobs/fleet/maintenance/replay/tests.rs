//! Replays that agree, that differ, and that meet damage; none of them writes anything.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::*;
use crate::testing::{TestStore, fake, fake_outputs, finished, run};

async fn computed() -> (TestStore, BTreeMap<StageKey, StageDigest>) {
    let test = TestStore::file().await;
    finished(&test.store, run(), 2).await;
    let stages = test.store.records.recorded_stages(run().id()).await.unwrap();
    (test, stages)
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.insert(path.display().to_string(), std::fs::read(&path).unwrap());
        }
    }
    all
}

#[tokio::test]
async fn a_run_replays_to_the_same_bytes_and_nothing_is_written() {
    let (test, stages) = computed().await;
    let before = contents(test.root());
    let reports = replay_run(&test.store, run().id(), &fake()).await.unwrap();
    assert_eq!(reports.len(), stages.len());
    assert!(reports.iter().all(|(_, report)| report.identical));
    let update = &reports.iter().find(|(key, _)| key.kind == StageKind::Update).unwrap().1;
    let names: Vec<_> = update.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["optimizer", "policy", "policy/config.json", "policy/model.safetensors"]);
    assert_eq!(contents(test.root()), before);
}

#[tokio::test]
async fn a_result_that_comes_out_differently_is_reported_by_name() {
    let (test, stages) = computed().await;
    let stage = stages[&"reward-000001-00".parse().unwrap()];
    let other: ExecuteFn = Arc::new(|spec, inputs| {
        let mut outputs = fake_outputs(spec, inputs)?;
        outputs.artifacts.insert("extra", agrpo_spec::Artifact::Blob(bytes::Bytes::new().into()));
        Ok(outputs)
    });
    let report = replay(&test.store, stage, &other).await.unwrap();
    assert!(!report.identical);
    assert_eq!((report.outputs[0].name.as_str(), report.outputs[0].recorded), ("extra", None));
    assert!(report.outputs[1].identical);
}

#[tokio::test]
async fn an_altered_record_shows_which_output_was_altered() {
    let (test, stages) = computed().await;
    let stage = stages[&"reward-000001-00".parse().unwrap()];
    let path = test.path(&format!("stages/{stage}"));
    let manifest = test.store.records.manifest(stage).await.unwrap().unwrap();
    let lie = ArtifactDigest::of(b"lie");
    let rewards = manifest.output("rewards").unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(&rewards.to_string(), &lie.to_string())).unwrap();
    let error = replay(&test.store, stage, &fake()).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("stages/{stage}")), "{error}");
    // A record whose checksum is right all the same.
    let mut altered = manifest.clone();
    altered.outputs.get_mut("rewards").unwrap().digest = lie;
    std::fs::write(&path, altered.to_bytes()).unwrap();
    let report = replay(&test.store, stage, &fake()).await.unwrap();
    assert!(!report.identical);
    let expected = Comparison {
        name: "rewards".into(),
        recorded: Some(lie),
        recomputed: Some(rewards),
        identical: false,
    };
    assert_eq!(report.outputs, [expected]);

    let mut manifest = manifest;
    *manifest.metrics.get_mut("accuracy").unwrap() += 1e-9;
    std::fs::write(&path, manifest.to_bytes()).unwrap();
    let report = replay(&test.store, stage, &fake()).await.unwrap();
    assert!(!report.identical && report.outputs[0].identical && !report.metrics[0].identical);

    *manifest.metrics.get_mut("accuracy").unwrap() -= 1e-9;
    manifest.outputs.get_mut("rewards").unwrap().size += 1;
    std::fs::write(&path, manifest.to_bytes()).unwrap();
    let error = replay(&test.store, stage, &fake()).await.unwrap_err();
    assert!(matches!(error, JobsError::Data(_)));
    assert!(error.to_string().starts_with(&format!("stages/{stage}")), "{error}");
}

#[tokio::test]
async fn damage_is_a_data_error_that_names_what_is_damaged() {
    let (test, stages) = computed().await;
    let stage = stages[&"gradient-000002-01".parse().unwrap()];
    let manifest = test.store.records.manifest(stage).await.unwrap().unwrap();
    let blobs = manifest.spec.inputs().into_iter().map(|(_, digest)| digest);
    // The store that computed the run has all of these in memory, and is not fooled by that.
    for blob in blobs.chain(manifest.output("gradient")) {
        let name = format!("cas/{blob}");
        test.flip(&name);
        let error = replay(&test.store, stage, &fake()).await.unwrap_err();
        assert!(matches!(error, JobsError::Lost { .. }));
        assert!(error.to_string().starts_with(&name), "{error}");
        test.flip(&name);
        assert!(replay(&test.store, stage, &fake()).await.unwrap().identical);
    }
    test.remove(&format!("stages/{stage}"));
    let error = replay(&test.store, stage, &fake()).await.unwrap_err();
    assert!(matches!(error, JobsError::Data(_)) && error.to_string().contains("is missing"));
}
