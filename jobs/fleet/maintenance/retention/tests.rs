//! Which outputs retention deletes while a run goes on, and that no reader misses them.

use std::collections::BTreeSet;

use agrpo_spec::{Keep, Plan, Run};

use super::*;
use crate::maintenance::{replay, verify::verify};
use crate::testing::{
    TestStore, counting, fake, finished, local, repairs, run_in_shards, run_named,
};
use agrpo_store::{JobsError, Repair, Why};

fn lean(run: &Run) -> Run {
    let retention = Retention {
        keep_policies: std::num::NonZeroU32::new(3),
        gradients: Keep::DropAfterUpdate,
        trajectories: Keep::DropAfterUpdate,
    };
    Run::resolve(agrpo_spec::RunConfig { retention, ..run.config().clone() }).unwrap()
}

fn long() -> Run {
    run_named("long", 7)
}

/// Which outputs of the run's stages are there.
async fn present(test: &TestStore, run: &Run) -> BTreeSet<String> {
    let mut there = BTreeSet::new();
    for (key, stage) in test.store.records.recorded_stages(run.id()).await.unwrap() {
        let manifest = test.store.records.manifest(stage).await.unwrap().unwrap();
        for (name, record) in manifest.outputs {
            if test.store.cas.has(record.digest).await.unwrap() {
                there.insert(format!("{key} {name}"));
            }
        }
    }
    there
}

fn of<'a>(there: &'a BTreeSet<String>, kind: &str, name: &str) -> Vec<&'a str> {
    let fits = |text: &&String| text.starts_with(kind) && text.ends_with(&format!(" {name}"));
    there.iter().filter(fits).map(|text| text.split(' ').next().unwrap()).collect()
}

#[tokio::test]
async fn a_lean_run_ends_in_the_same_bytes_and_keeps_what_it_says() {
    let whole = finished(&TestStore::memory().await.store, long(), 2).await;
    for test in TestStore::each().await {
        let outcome = finished(&test.store, lean(&long()), 2).await;
        assert_eq!(outcome, whole);
        let there = present(&test, &long()).await;
        let model = "policy/model.safetensors";
        let kept = ["update-000003", "update-000006", "update-000007"];
        assert_eq!(of(&there, "update", model), kept);
        assert_eq!(of(&there, "update", "policy"), kept);
        assert_eq!(of(&there, "update", "optimizer"), kept);
        assert_eq!(of(&there, "sft", model), ["sft-000002"], "the base");
        assert_eq!(
            of(&there, "gradient", "gradient"),
            ["gradient-000007-00", "gradient-000007-01"]
        );
        assert_eq!(
            of(&there, "rollout", "trajectories"),
            ["rollout-000007-00", "rollout-000007-01"]
        );
        assert_eq!(of(&there, "reward", "rewards").len(), 14);
        assert_eq!(of(&there, "evaluation", "evaluation").len(), 5);
        let config = of(&there, "update", "policy/config.json");
        assert_eq!(config.len(), 7, "what a kept policy needs stays for all");
    }
}

#[tokio::test]
async fn what_retention_deleted_is_neither_lost_nor_computed_again() {
    let test = TestStore::file().await;
    let whole = finished(&test.store, lean(&long()), 2).await;
    let report = verify(&test.reopened(), None).await.unwrap();
    assert!(report.is_clean() && report.orphaned.objects == 0, "{report:?}");
    assert!(report.dropped.objects > 30 && report.dropped.bytes > 0, "{report:?}");
    for index_is_lost in [false, true] {
        if index_is_lost {
            std::fs::remove_dir_all(test.path(&format!("runs/{}/stages", long().id()))).unwrap();
        }
        let again = finished(&test.reopened(), lean(&long()), 2).await;
        assert_eq!((again.computed, again.policy), (0, whole.policy), "{index_is_lost}");
        assert_eq!(again.reused, Plan::total_stages(&long()));
    }
}

#[tokio::test]
async fn the_last_request_says_what_is_kept() {
    let test = TestStore::memory().await;
    finished(&test.store, long(), 2).await;
    assert!(test.store.records.retention(long().id()).await.unwrap().keeps_all());
    let before = present(&test, &long()).await;
    finished(&test.store, lean(&long()), 2).await;
    let after = present(&test, &long()).await;
    assert!(after.len() < before.len());
    finished(&test.store, long(), 2).await;
    assert!(test.store.records.retention(long().id()).await.unwrap().keeps_all());
    assert_eq!(present(&test, &long()).await, after, "what is gone is not fetched back");
}

#[tokio::test]
async fn what_another_run_holds_stays_until_its_retention_deletes_it_too() {
    let test = TestStore::memory().await;
    // The same stages under another name; and the same bytes from stages of other names, as an update
    // says how long its run is.
    let twin = run_named("twin", 7);
    finished(&test.store, twin.clone(), 2).await;
    finished(&test.store, lean(&long()), 2).await;
    let all = present(&test, &twin).await;
    assert_eq!(of(&all, "gradient", "gradient").len(), 14);
    assert_eq!(of(&all, "update", "policy/model.safetensors").len(), 7);
    assert!(verify(&test.store, None).await.unwrap().is_clean());
    finished(&test.store, lean(&twin), 2).await;
    let few = present(&test, &twin).await;
    assert_eq!(of(&few, "gradient", "gradient").len(), 2);
    assert!(verify(&test.store, None).await.unwrap().is_clean());
}

/// Retention looks at other runs when it deletes for the first time and when the run is done, not at each update.
#[tokio::test]
async fn other_runs_are_not_listed_at_every_update() {
    let (objects, counts) = counting();
    let store = Store::over(objects);
    let others: Vec<_> =
        (0..4).map(|n| crate::testing::run_seeded("other", 2, 2, 10 + n)).collect();
    for other in &others {
        finished(&store, other.clone(), 2).await;
    }
    counts.lock().unwrap().clear();
    finished(&store, lean(&run_named("long", 20)), 2).await;
    let counts = counts.lock().unwrap().clone();
    let asked = |what: &str| counts.get(what).copied().unwrap_or(0);
    // Of four complete runs once, and of itself twice at each look, when it is opened and when it is done.
    assert!(asked("LIST runs/stages") <= 4 + 2 * 2 + 2, "{counts:?}");
    assert!(asked("LIST runs/dropped") <= 2, "{counts:?}");
    let kept = store.records.recorded_stages(run_named("long", 20).id()).await.unwrap();
    assert!(kept.len() > 100);
}

#[tokio::test]
async fn a_stage_whose_inputs_were_deleted_is_replayed_from_the_nearest_policy_that_is_kept() {
    let test = TestStore::file().await;
    finished(&test.store, lean(&long()), 2).await;
    let (id, stages) =
        (long().id(), test.store.records.recorded_stages(long().id()).await.unwrap());
    let stage = stages[&"update-000005".parse().unwrap()];
    let error = replay::replay(&test.store, stage, &fake()).await.unwrap_err();
    assert!(matches!(error, JobsError::Lost { .. }), "{error}");
    assert_eq!(replay::run_of(&test.store, stage).await.unwrap(), Some(id));
    let lacking = replay::lacking(&test.store, Some(id), stage).await.unwrap();
    let places: Vec<_> = lacking.iter().map(|(key, _)| key.unwrap().to_string()).collect();
    let expected = [
        "rollout-000004-00",
        "rollout-000004-01",
        "gradient-000004-00",
        "gradient-000004-01",
        "update-000004",
        "rollout-000005-00",
        "rollout-000005-01",
        "gradient-000005-00",
        "gradient-000005-01",
    ];
    assert_eq!(
        places.iter().collect::<BTreeSet<_>>(),
        expected.map(str::to_owned).iter().collect()
    );
    // What this process computed is still in its memory: a new one has to start further back.
    let store = test.reopened();
    local(&store, fake(), 1).mend(Some(id), stage).await.unwrap();
    let report = replay::replay(&test.store, stage, &fake()).await.unwrap();
    assert!(report.identical, "though its own outputs were deleted as well");
    let repairs = repairs(&test.store, id).await;
    assert_eq!(repairs.len(), lacking.len());
    assert!(repairs.iter().all(|Repair { why, .. }| *why == Why::Dropped));
}

#[tokio::test]
async fn a_policy_that_waits_for_its_evaluation_stays() {
    let test = TestStore::memory().await;
    finished(&test.store, lean(&long()), 1).await;
    let store = &test.store;
    let index = store.records.recorded_stages(long().id()).await.unwrap();
    let without: Stages =
        index.into_iter().filter(|(key, _)| key.to_string() != "evaluation-000002").collect();
    let key = |text: &str| text.parse().unwrap();
    assert!(is_needed(&long(), &without, key("update-000002")));
    assert!(!is_needed(&long(), &without, key("update-000004")));
    assert!(!is_needed(&long(), &without, key("update-000001")), "never evaluated");

    let stage = without[&key("update-000002")];
    let shard = |shard| (StageKey::evaluation(2, Some(shard)), stage);
    let mut shards: Stages = (0..2).map(shard).collect();
    assert!(is_needed(&run_in_shards(), &shards, key("update-000002")));
    shards.extend([shard(2)]);
    assert!(!is_needed(&run_in_shards(), &shards, key("update-000002")));
}
