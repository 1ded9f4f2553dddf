//! Verification tells every kind of damage apart.

use agrpo_spec::StageKey;

use super::*;
use crate::testing::{TestStore, finished, repaired, run, run_named, run_seeded};

async fn computed() -> (TestStore, BTreeMap<StageKey, StageDigest>) {
    let test = TestStore::file().await;
    finished(&test.store, run(), 2).await;
    let stages = test.store.records.recorded_stages(run().id()).await.unwrap();
    (test, stages)
}

async fn output(test: &TestStore, stage: StageDigest, name: &str) -> ArtifactDigest {
    test.store.records.manifest(stage).await.unwrap().unwrap().output(name).unwrap()
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
        assert_eq!((report.dropped, report.orphaned), (Totals::default(), Totals::default()));
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
    assert_eq!(blob.detail, "update-000002 policy/model.safetensors");
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

/// Does what each finding says mends it, until nothing is found; answers with how often that took.
async fn follow_advice(test: &TestStore) -> usize {
    for round in 0.. {
        let report = verify(&test.reopened(), None).await.unwrap();
        if report.is_clean() {
            return round;
        }
        assert!(round < 2, "the advice mends nothing: {report:#?}");
        for finding in report.findings() {
            match finding.cure {
                Cure::Repair => {}
                Cure::Import => panic!("nothing was imported: {finding:?}"),
                Cure::MoveAway => std::fs::rename(
                    test.path(&finding.object),
                    test.path(&format!("moved-{}", finding.object.replace('/', "-"))),
                )
                .unwrap(),
            }
        }
        let outcome = repaired(&test.reopened(), run()).await.unwrap();
        assert!(outcome.done);
    }
    unreachable!("the store is clean, or the test has failed")
}

/// What is done to a store, given the run's stages.
type Damage = (&'static str, fn(&TestStore, &BTreeMap<StageKey, StageDigest>));

fn object(stages: &BTreeMap<StageKey, StageDigest>, key: &str) -> String {
    format!("stages/{}", stages[&key.parse().unwrap()])
}

fn of_run(rest: &str) -> String {
    format!("runs/{}/{rest}", run().id())
}

/// A file of the run that holds what no program wrote.
fn garbage(test: &TestStore, rest: &str) {
    let path = test.path(&of_run(rest));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, b"garbage").unwrap();
}

/// The blob that a stage's record lists first.
fn blob(test: &TestStore, stage: &str) -> String {
    let text = std::fs::read_to_string(test.path(stage)).unwrap();
    let (_, outputs) = text.split_once("\"outputs\"").unwrap();
    let (_, digest) = outputs.split_once("\"digest\": \"").unwrap();
    format!("cas/{}", &digest[..64])
}

const DAMAGES: [Damage; 14] = [
    ("flipped final policy", |test, stages| {
        test.flip(&blob(test, &object(stages, "update-000003")));
    }),
    ("lost evaluation", |test, stages| {
        test.remove(&blob(test, &object(stages, "evaluation-000002")));
    }),
    ("flipped blob of old", |test, stages| {
        test.flip(&blob(test, &object(stages, "reward-000001-00")));
    }),
    ("cut record of old", |test, stages| test.truncate(&object(stages, "rollout-000001-01"))),
    ("lost record of old", |test, stages| test.remove(&object(stages, "gradient-000002-00"))),
    ("flipped record of the last", |test, stages| test.flip(&object(stages, "update-000003"))),
    ("damaged run", |test, _| test.truncate(&of_run("run.json"))),
    ("lost run", |test, _| test.remove(&of_run("run.json"))),
    ("books", |test, stages| {
        let stage = stages.values().next().unwrap();
        for file in ["versions.json", "control.json", "retention.json"] {
            garbage(test, file);
        }
        garbage(test, &format!("failures/{stage}"));
        garbage(test, &format!("dropped/{stage}"));
        garbage(test, &format!("rewound/{stage}.17"));
    }),
    ("note", |test, _| garbage(test, "policies/update-000001")),
    ("no key", |test, _| garbage(test, "policies/garbage")),
    ("spec", |test, stages| {
        std::fs::create_dir_all(test.path("specs")).unwrap();
        let name = object(stages, "update-000001").replace("stages", "specs");
        std::fs::write(test.path(&name), b"garbage").unwrap();
    }),
    ("entries of another run", |test, stages| {
        let other = stages[&"update-000001".parse().unwrap()];
        for key in ["update-000002", "rollout-000002-00", "update-000009"] {
            std::fs::write(test.path(&of_run(&format!("stages/{key}.{other}"))), b"").unwrap();
        }
        std::fs::remove_file(test.path(&of_run(&format!(
            "stages/update-000002.{}",
            stages[&"update-000002".parse().unwrap()]
        ))))
        .unwrap();
    }),
    ("a folder", |test, _| {
        test.remove(&of_run("run.json"));
        std::fs::create_dir(test.path(&of_run("run.json"))).unwrap();
    }),
];

#[tokio::test]
async fn what_verify_advises_mends_what_it_found() {
    let (test, _) = computed().await;
    assert_eq!(follow_advice(&test).await, 0);
    let policy = finished(&test.store, run(), 1).await.policy;
    for (name, damage) in DAMAGES {
        let (test, stages) = computed().await;
        damage(&test, &stages);
        assert!(follow_advice(&test).await > 0, "{name} was not found");
        let again = finished(&test.reopened(), run(), 1).await;
        assert_eq!((again.computed, again.policy), (0, policy), "{name}");
        assert_eq!(test.store.records.recorded_stages(run().id()).await.unwrap(), stages, "{name}");
    }
    // All of it at once, the other two ways to lose a run's record left out.
    let (test, stages) = computed().await;
    for (name, damage) in DAMAGES {
        if !["lost run", "a folder"].contains(&name) {
            damage(&test, &stages);
        }
    }
    follow_advice(&test).await;
    assert_eq!(finished(&test.reopened(), run(), 1).await.policy, policy);
}

#[tokio::test]
async fn entries_of_the_index_that_are_not_the_runs_count_as_no_stages() {
    let (test, stages) = computed().await;
    let other = run_seeded("other", 3, 2, 4);
    finished(&test.store, other.clone(), 1).await;
    for (key, stage) in test.store.records.recorded_stages(other.id()).await.unwrap() {
        test.store.records.record_stage(run().id(), key, stage).await.unwrap();
    }
    let report = verify(&test.reopened(), Some(run().id())).await.unwrap();
    assert_eq!(report.stages, stages.len() as u64);
    assert_eq!(report.corrupt.len(), stages.len());
    // Nor do they keep what only they name.
    test.store.records.forget_run(other.id()).await.unwrap();
    let options =
        crate::maintenance::gc::GcOptions { grace: std::time::Duration::ZERO, dry_run: false };
    let swept = crate::maintenance::gc::gc(&test.store, options).await.unwrap().swept;
    assert!(swept[&crate::maintenance::gc::ObjectKind::Manifests].objects > 20, "{swept:?}");
    let left = test.store.records.all_stages().await.unwrap();
    assert_eq!(left.len(), stages.len());
}

#[tokio::test]
async fn a_run_without_its_record_is_missing_and_not_corrupt() {
    let (test, _) = computed().await;
    test.remove(&of_run("run.json"));
    let report = verify(&test.store, None).await.unwrap();
    assert_eq!((report.runs, report.missing.len(), report.corrupt.len()), (0, 1, 0));
    assert_eq!(report.missing[0].object, of_run("run.json"));
}

#[tokio::test]
async fn orphans_are_counted_and_no_fault() {
    let (test, _) = computed().await;
    test.store.cas.put(bytes::Bytes::from_static(b"orphaned")).await.unwrap();
    let report = verify(&test.store, None).await.unwrap();
    assert!(report.is_clean());
    assert_eq!((report.orphaned.objects, report.orphaned.bytes), (1, 8));
}
