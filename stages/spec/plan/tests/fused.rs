//! The plan of a run whose inner updates are one stage, and what the key changes of its names.

use super::*;
use crate::digest::encode;
use crate::run::{Checkpointing, EstimatorConfig};
use crate::stage::{ShardSpec, UpdatesSpec};

fn fused_text() -> String {
    let keys = "k = 2\ninner_updates = 24\nkl = 0.04\nfused_updates = true\n";
    text().replace("k = 2\n", keys)
}

fn fused() -> Run {
    Run::parse(&fused_text()).unwrap()
}

/// Every stage of the run with its spec.
fn specs(run: &Run) -> BTreeMap<StageKey, StageSpec> {
    let (mut plan, mut specs) = (Plan::new(run.clone()), BTreeMap::new());
    while let Some((key, spec)) = plan.pending().first_key_value().map(|(k, s)| (*k, s.clone())) {
        plan.finished(key, |name| output(&spec, name)).unwrap();
        specs.insert(key, spec);
    }
    specs
}

#[test]
fn one_stage_takes_the_place_of_gradients_and_updates() {
    let first = drive(Plan::new(fused()), |_| 0);
    assert_eq!(first, drive(Plan::new(fused()), |pending| pending - 1));
    assert_eq!(first.len() as u64, Plan::total_stages(&fused()));
    let keys = first.keys().filter(|key| key.iteration == 2 && key.kind != StageKind::Sft);
    let keys: Vec<_> = keys.map(ToString::to_string).collect();
    insta::assert_snapshot!(keys.join(" "), @"rollout-000002-00 rollout-000002-01 reward-000002-00 reward-000002-01 updates-000002 evaluation-000002");
    assert!(first.keys().is_sorted_by_key(StageKey::order));
    assert!(first.keys().all(|key| key.to_string().parse() == Ok(*key)));
    for text in ["updates-1-0", "updates-1-u2", "updates"] {
        assert!(text.parse::<StageKey>().is_err(), "{text}");
    }
}

#[test]
fn the_stage_reads_what_its_gradients_and_updates_would_read() {
    let (run, specs) = (fused(), specs(&fused()));
    let spec = |key: &str| &specs[&key.parse().unwrap()];
    let left = |key: &str, name| output(spec(key), name).unwrap();
    let StageSpec::Updates(second) = spec("updates-000002") else { panic!("not updates") };
    let UpdatesSpec { policy, optimizer_state, reference, shards, estimator, .. } = second;
    assert_eq!(*policy, left("updates-000001", "policy"));
    assert_eq!(*optimizer_state, Some(left("updates-000001", "optimizer")));
    assert_eq!(*reference, Some(left("sft-000002", "policy")));
    let of = |shard| ShardSpec {
        trajectories: left(&format!("rollout-000002-0{shard}"), "trajectories"),
        rewards: left(&format!("reward-000002-0{shard}"), "rewards"),
    };
    assert_eq!(*shards, [of(0), of(1)]);
    assert_eq!((estimator.inner_updates, second.iterations), (24, 3));
    for (key, spec) in &specs {
        let inputs = spec.inputs();
        if key.is_update() {
            assert_eq!(Plan::place(&run, spec), Some(*key));
            assert_eq!(*key, Plan::last_update(&run, key.iteration));
            assert!(Plan::is_update_of(&run, *key, spec));
            assert_eq!(inputs.len(), 1 + usize::from(key.iteration > 1) + 4 + 1);
            let separate = fused_text().replace("fused_updates = true", "fused_updates = false");
            let separate = Run::parse(&separate).unwrap();
            assert!(!Plan::is_update_of(&separate, *key, spec));
        }
    }
    assert_eq!(Plan::iterations_done(&run, specs.keys()), [1, 2, 3].into());
}

#[test]
fn a_plan_resumed_after_fused_updates_asks_for_the_same_stages() {
    let (whole, specs) = (drive(Plan::new(fused()), |_| 0), specs(&fused()));
    let left = |key: &str, name| output(&specs[&key.parse().unwrap()], name).unwrap();
    let at = Checkpoint {
        iteration: 2,
        policy: left("updates-000002", "policy"),
        optimizer: left("updates-000002", "optimizer"),
        base: Some(left("sft-000002", "policy")),
    };
    let rest = drive(Plan::resume(fused(), &at, []), |_| 0);
    assert!(rest.contains_key(&"updates-000003".parse().unwrap()));
    assert!(rest.iter().all(|(key, stage)| whole[key] == *stage));
    let mut plan = Plan::new(fused());
    plan.leap_to_base(left("sft-000002", "policy"));
    plan.leap(&at);
    assert!(drive(plan, |_| 0).iter().all(|(key, stage)| whole[key] == *stage));
}

/// A run without the key and one that sets it to false are one run, with the names from before there was the key.
#[test]
fn the_key_changes_names_only_where_it_is_set() {
    let without = fused_text().replace("fused_updates = true\n", "");
    let off = Run::parse(&fused_text().replace("= true\n", "= false\n")).unwrap();
    let (without, on) = (Run::parse(&without).unwrap(), fused());
    assert_eq!(without.id(), off.id());
    assert_ne!(on.id(), off.id());
    assert_eq!(drive(Plan::new(without.clone()), |_| 0), drive(Plan::new(off), |_| 0));
    let json = |run: &Run| serde_json::to_string(run.config()).unwrap();
    assert!(!json(&without).contains("fused_updates") && json(&on).contains("fused_updates"));
    let mut names = std::collections::BTreeSet::new();
    for checkpointing in [Checkpointing::Never, Checkpointing::Always, Checkpointing::Auto] {
        for fused_updates in [false, true] {
            let estimator = without.config().estimator.clone();
            names.insert(encode(&EstimatorConfig { checkpointing, fused_updates, ..estimator }));
        }
    }
    assert_eq!(names.len(), 6, "each has a name of its own");
    for wrong in ["1", "\"yes\"", "[true]"] {
        let text =
            fused_text().replace("fused_updates = true", &format!("fused_updates = {wrong}"));
        let error = Run::parse(&text).unwrap_err().to_string();
        assert!(error.contains("fused_updates") && error.contains("true or false"), "{error}");
    }
}
