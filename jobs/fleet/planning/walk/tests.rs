//! An index that names another run's stages decides nothing.

use std::sync::Arc;

use agrpo_spec::{ArtifactDigest, record};

use super::*;
use crate::maintenance::{replay::replay_run, verify::verify};
use crate::testing::{TestStore, fake, fake_outputs, finish, finished, run, run_seeded};
use crate::{local::Outcome, planning::progress::Progress, status::status};

/// A store with two finished runs that share no stage, the second one's index still its own.
struct Two {
    test: TestStore,
    own: Outcome,
    other: Outcome,
}

async fn two() -> Two {
    two_with(run_seeded("other", 3, 2, 4)).await
}

async fn two_with(other: Run) -> Two {
    let test = TestStore::file().await;
    let own = finished(&test.store, run(), 1).await;
    let other = finished(&test.store, other, 1).await;
    assert_ne!(own.policy, other.policy);
    Two { test, own, other }
}

/// A run that begins like the first one, and has another estimator.
fn sibling() -> Run {
    let mut config = run().config().clone();
    config.name = "sibling".to_owned();
    config.estimator.k = agrpo_spec::Samples::Count(4);
    Run::resolve(config).unwrap()
}

impl Two {
    /// Rewrites the first run's index so that its entries with these keys name the second one's stages.
    fn edit(&self, is_edited: impl Fn(StageKey) -> bool, with_notes: bool) -> usize {
        let folder = |run, part: &str| self.test.path(&format!("runs/{run}/{part}"));
        let key_of = |name: &str| name.split('.').next().unwrap().parse::<StageKey>().unwrap();
        let names = |run, part: &str| {
            let files = std::fs::read_dir(folder(run, part)).unwrap();
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let mut edited = 0;
        for name in names(self.own.run, "stages").iter().filter(|name| is_edited(key_of(name))) {
            std::fs::remove_file(folder(self.own.run, "stages").join(name)).unwrap();
        }
        for name in names(self.other.run, "stages").iter().filter(|name| is_edited(key_of(name))) {
            let from = folder(self.other.run, "stages").join(name);
            std::fs::copy(from, folder(self.own.run, "stages").join(name)).unwrap();
            edited += 1;
            let key = key_of(name);
            let note = folder(self.own.run, "policies").join(key.to_string());
            if with_notes && note.exists() {
                let digest = name.split('.').nth(1).unwrap();
                std::fs::write(note, format!("{digest}\n")).unwrap();
            }
        }
        edited
    }

    /// Copies the second run's notes over the first one's.
    fn copy_notes(&self) {
        let folder = |run| self.test.path(&format!("runs/{run}/policies"));
        for file in std::fs::read_dir(folder(self.other.run)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), folder(self.own.run).join(file.file_name())).unwrap();
        }
    }

    /// Writes the second run's notes as if they were the first one's, with seals that are right.
    fn forge_notes(&self, is_edited: impl Fn(StageKey) -> bool) {
        let folder = |run| self.test.path(&format!("runs/{run}/policies"));
        for file in std::fs::read_dir(folder(self.other.run)).unwrap() {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            if is_edited(name.parse().unwrap()) {
                let bytes = std::fs::read(file.path()).unwrap();
                let mut note = record::open::<serde_json::Value>(&bytes).unwrap().value;
                note["run"] = self.own.run.to_string().into();
                std::fs::write(folder(self.own.run).join(name), record::seal(&note)).unwrap();
            }
        }
    }

    async fn policy_of_status(&self) -> Option<ArtifactDigest> {
        status(&self.test.reopened(), Some(self.own.run)).await.unwrap()[0].policy
    }
}

#[tokio::test]
async fn an_index_that_names_another_runs_stages_is_ignored_and_reported() {
    for (first, with_notes) in [(0, true), (0, false), (2, true), (2, false)] {
        let two = two().await;
        let from = |key: StageKey| key.kind != StageKind::Sft && key.iteration >= first;
        let edited = two.edit(from, with_notes);
        assert!(edited > 5);
        let store = two.test.reopened();
        assert_eq!(two.policy_of_status().await, two.own.policy);
        let report = verify(&store, Some(two.own.run)).await.unwrap();
        let wrong = report.corrupt.iter().filter(|found| found.object.contains("/stages/"));
        assert_eq!(wrong.count(), edited, "{report:?}");
        let replayed = replay_run(&store, two.own.run, &fake()).await.unwrap();
        assert_eq!(replayed.len(), 27, "the run's own stages, found by its plan");
        let own = own_stages(&store, &run()).await.unwrap();
        assert!(replayed.iter().all(|(key, report)| own[key] == report.stage && report.identical));
        let again = finished(&two.test.reopened(), run(), 1).await;
        assert_eq!((again.computed, again.policy), (0, two.own.policy));
        assert_eq!(two.policy_of_status().await, two.own.policy);
        let rows = status(&store, Some(two.own.run)).await.unwrap();
        let base = crate::planning::policy_notes::evaluations_at(&store, &run(), 0).await.unwrap();
        let [(_, base)] = &*base else { panic!("{base:?}") };
        assert_eq!(rows[0].accuracy.base, base.metrics.get("accuracy").copied());
    }
}

#[tokio::test]
async fn a_stage_that_is_done_and_has_no_record_is_named() {
    let two = two().await;
    let stages = two.test.store.records.recorded_stages(two.own.run).await.unwrap();
    let stage = stages[&"update-000002".parse().unwrap()];
    std::fs::remove_file(two.test.path(&format!("stages/{stage}"))).unwrap();
    let store = two.test.reopened();
    let error = replay_run(&store, two.own.run, &fake()).await.unwrap_err();
    assert!(matches!(error, JobsError::Data(_)), "{error}");
    assert!(error.to_string().starts_with(&format!("stages/{stage} is missing")), "{error}");
}

#[tokio::test]
async fn notes_of_another_run_count_for_none() {
    let two = two().await;
    two.edit(|_| true, false);
    two.copy_notes();
    assert_eq!(two.policy_of_status().await, two.own.policy);
    let report = verify(&two.test.reopened(), Some(two.own.run)).await.unwrap();
    let notes = report.corrupt.iter().filter(|found| found.object.contains("/policies/"));
    assert_eq!(notes.count(), 6, "{report:?}");
    let again = finished(&two.test.reopened(), run(), 1).await;
    assert_eq!((again.computed, again.policy), (0, two.own.policy));
    assert_eq!(two.policy_of_status().await, two.own.policy);
}

#[tokio::test]
async fn notes_that_were_sealed_anew_decide_nothing() {
    let is_last = |key: StageKey| key.kind == StageKind::Update && key.iteration == 3;
    let parts: [&dyn Fn(StageKey) -> bool; 2] = [&|_| true, &is_last];
    for (other, part) in [run_seeded("other", 3, 2, 4), sibling()]
        .into_iter()
        .flat_map(|other| parts.map(|part| (other.clone(), part)))
    {
        let two = two_with(other).await;
        two.edit(part, false);
        two.forge_notes(part);
        let row = status(&two.test.reopened(), Some(two.own.run)).await.unwrap().remove(0);
        assert_eq!((row.policy, row.stages.done), (two.own.policy, 27));
        let again = finished(&two.test.reopened(), run(), 1).await;
        assert_eq!((again.computed, again.policy), (0, two.own.policy));
    }
}

#[tokio::test]
async fn an_unfinished_run_goes_on_from_its_own_update() {
    for other in [run_seeded("other", 3, 2, 4), sibling()] {
        for (kind, iteration) in [(StageKind::Gradient, 1), (StageKind::Update, 2)] {
            for is_sealed in [true, false] {
                unfinished(other.clone(), StageKey::new(kind, iteration, 0), is_sealed).await;
            }
        }
    }
}

/// A run that fails at a stage; its index names updates of another run after it.
async fn unfinished(other: Run, stops_at: StageKey, is_sealed: bool) {
    let test = TestStore::file().await;
    let other = finished(&test.store, other, 1).await;
    let broken: agrpo_spec::ExecuteFn =
        Arc::new(move |spec, inputs| match Plan::place(&run(), spec) {
            Some(key) if key == stops_at => Err(agrpo_spec::StageError::Internal("broken".into())),
            _ => fake_outputs(spec, inputs),
        });
    finish(&test.store, run(), broken, 1).await.0.unwrap_err();
    let store = test.reopened();
    for (key, stage) in store.records.recorded_stages(other.run).await.unwrap() {
        if key.kind == StageKind::Update && key.iteration >= stops_at.iteration {
            store.records.record_stage(run().id(), key, stage).await.unwrap();
            let name = format!("runs/{}/policies/{key}", run().id());
            let policy = store.records.manifest(stage).await.unwrap().unwrap().output("policy");
            let note = serde_json::json!({
                "run": run().id(), "key": key, "stage": stage, "policy": policy,
            });
            let plain = format!("{stage}\n").into_bytes();
            test.objects.put(&name, if is_sealed { record::seal(&note) } else { plain }).await;
        }
    }
    let row = status(&store, Some(run().id())).await.unwrap().remove(0);
    assert_eq!(row.iteration, stops_at.iteration - 1);
    assert_ne!(row.policy, other.policy);
    let mut progress = Progress::open(&store, run()).await.unwrap();
    assert_eq!(progress.plan.iteration(), stops_at.iteration - 1);
    progress.leap(&store).await.unwrap();
    progress.catch_up(&store).await.unwrap();
    assert_eq!(progress.plan.iteration(), stops_at.iteration - 1);
    let done = finished(&store, run(), 1).await;
    let right = finished(&TestStore::memory().await.store, run(), 1).await;
    assert_eq!(done.policy, right.policy);
}

#[tokio::test]
async fn a_walk_goes_on_after_a_lost_record_and_reads_only_new_ones() {
    let test = TestStore::file().await;
    finished(&test.store, run(), 1).await;
    let store = test.reopened();
    let mut walk = Walk::new(run());
    assert_eq!(walk.advance(&store).await.unwrap().len(), 27);
    assert_eq!(walk.advance(&store).await.unwrap().len(), 0);
    assert_eq!(walk.wrong().count(), 0);
    let stage = walk.stages()[&"rollout-000001-00".parse().unwrap()];
    test.remove(&format!("stages/{stage}"));
    let mut walk = Walk::new(run());
    let found = walk.advance(&store).await.unwrap();
    // The rollout, and the reward and gradient that follow from it.
    assert_eq!(found.len(), 24);
    assert_eq!(walk.unreadable().len(), 1);
    assert_eq!(walk.wrong().count(), 0, "nothing is wrong with the others");
}

#[tokio::test]
async fn a_restored_record_is_found_by_the_next_walk() {
    let test = TestStore::file().await;
    finished(&test.store, run(), 1).await;
    let stages = test.store.records.recorded_stages(run().id()).await.unwrap();
    for (key, found) in [("rollout-000001-00", 24), ("update-000002", 20)] {
        let object = format!("stages/{}", stages[&key.parse().unwrap()]);
        test.flip(&object);
        let mut walk = Walk::new(run());
        assert_eq!(walk.advance(&test.reopened()).await.unwrap().len(), found, "{key}");
        assert_eq!((walk.unreadable().len(), walk.done_keys().len()), (1, 27), "{key}");
        test.flip(&object);
        assert_eq!(walk.advance(&test.reopened()).await.unwrap().len(), 27, "{key}");
        assert_eq!((walk.unreadable().len(), walk.wrong().count()), (0, 0), "{key}");
        assert_eq!(*walk.stages(), stages, "{key}");
    }
}

#[tokio::test]
async fn what_the_index_does_not_name_is_followed_all_the_same() {
    let test = TestStore::file().await;
    let own = finished(&test.store, run(), 1).await;
    let index = test.store.records.recorded_stages(own.run).await.unwrap();
    for (key, stage) in index.iter().filter(|(key, _)| key.iteration >= 2) {
        test.remove(&format!("runs/{}/stages/{key}.{stage}", own.run));
    }
    let store = test.reopened();
    let row = status(&store, Some(own.run)).await.unwrap().remove(0);
    assert_eq!((row.iteration, row.policy, row.stages.done), (3, own.policy, 27));
    let mut walk = Walk::new(run());
    assert_eq!(walk.advance(&store).await.unwrap().len(), 27);
    assert_eq!(*walk.stages(), index);
    assert!(verify(&store, Some(own.run)).await.unwrap().is_clean());
    // A record that cannot be read is named, though no entry leads to it.
    let last = index[&"update-000003".parse().unwrap()];
    test.flip(&format!("stages/{last}"));
    let row = status(&test.reopened(), Some(own.run)).await.unwrap().remove(0);
    let named: Vec<_> = row.unreadable_records.iter().filter_map(|record| record.key).collect();
    assert_eq!(named, ["update-000003".parse().unwrap()]);
    assert_eq!((row.iteration, row.policy), (3, None), "no older policy is called the newest");
}
