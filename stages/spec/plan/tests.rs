//! Tests of a plan: the whole chain in order, joins in the order of shards, and a resumed plan
//! that asks for the very same stages.

use std::collections::BTreeMap;

use super::*;
use crate::digest::StageDigest;

#[path = "../../../tests/support/run_file.rs"]
mod run_file;

fn text() -> String {
    run_file::run_file(&[("name", "\"plan\"")])
}

fn run() -> Run {
    Run::parse(&text()).unwrap()
}

/// An output that depends on the whole spec, as a real one does.
fn output(spec: &StageSpec, name: &str) -> Option<ArtifactDigest> {
    Some(ArtifactDigest::of(format!("{}/{name}", spec.digest()).as_bytes()))
}

/// Runs the plan to its end, always finishing the pending stage that `choose` picks.
fn drive(mut plan: Plan, choose: impl Fn(usize) -> usize) -> BTreeMap<StageKey, StageDigest> {
    let mut seen = BTreeMap::new();
    while !plan.is_done() {
        let index = choose(plan.pending().len());
        let (key, spec) = plan.pending().iter().nth(index).map(|(k, s)| (*k, s.clone())).unwrap();
        seen.insert(key, spec.digest());
        plan.finished(key, |name| output(&spec, name)).unwrap();
    }
    seen
}

#[test]
fn the_whole_chain_is_planned_in_any_order_of_completion() {
    let first = drive(Plan::new(run()), |_| 0);
    let last = drive(Plan::new(run()), |pending| pending - 1);
    assert_eq!(first, last);
    assert_eq!(first.len() as u64, Plan::total_stages(&run()));
    let names: Vec<_> = first.keys().map(ToString::to_string).collect();
    insta::assert_snapshot!(names.join(" "), @"sft-000000 sft-000001 sft-000002 evaluation-000000 rollout-000001-00 rollout-000001-01 reward-000001-00 reward-000001-01 gradient-000001-00 gradient-000001-01 update-000001 rollout-000002-00 rollout-000002-01 reward-000002-00 reward-000002-01 gradient-000002-00 gradient-000002-01 update-000002 evaluation-000002 rollout-000003-00 rollout-000003-01 reward-000003-00 reward-000003-01 gradient-000003-00 gradient-000003-01 update-000003 evaluation-000003");
}

#[test]
fn a_plan_resumed_at_an_update_asks_for_the_same_stages() {
    let whole = drive(Plan::new(run()), |_| 0);
    let mut plan = Plan::new(run());
    let mut base = None;
    let checkpoint = loop {
        let (key, spec) = plan.pending().first_key_value().map(|(k, s)| (*k, s.clone())).unwrap();
        if key.kind == StageKind::Evaluation {
            base = Some((key, spec.clone()));
        }
        plan.finished(key, |name| output(&spec, name)).unwrap();
        if key.kind == StageKind::Update && key.iteration == 2 {
            let digest = |name| output(&spec, name).unwrap();
            break Checkpoint {
                iteration: 2,
                policy: digest("policy"),
                optimizer: digest("optimizer"),
                base: None,
            };
        }
    };
    let rest = drive(Plan::resume(run(), &checkpoint, base), |_| 0);
    assert!(rest.contains_key(&"update-000003".parse().unwrap()));
    assert!(rest.contains_key(&"evaluation-000000".parse().unwrap()));
    for (key, digest) in rest {
        assert_eq!(whole[&key], digest, "{key}");
    }
}

#[test]
fn nonsense_is_refused() {
    let mut plan = Plan::new(run());
    let update = "update-000001".parse().unwrap();
    assert_eq!(plan.finished(update, |_| None), Err(PlanError::NotPending(update)));
    let sft = "sft-000000".parse().unwrap();
    assert_eq!(
        plan.finished(sft, |_| None),
        Err(PlanError::MissingOutput { key: sft, output: "policy" })
    );
    assert!(plan.pending().contains_key(&sft), "a refused result leaves the stage pending");
    for text in [
        "update",
        "update-x",
        "update-1-2",
        "update-1-u1",
        "rollout-1-1-u2",
        "rollout-000001",
        "fly-000001",
        "evaluation-1-u2",
        "evaluation-1-2-3",
        "",
    ] {
        assert!(text.parse::<StageKey>().is_err(), "{text}");
    }
}

/// Stores find results by these names. If this test fails, a spec's encoding has changed: undo it, or raise the format
/// in the digest's prefix and say so in CHANGELOG. The run says what was the default when they were frozen.
#[test]
fn stage_names_are_frozen() {
    let run = || Run::parse(&text().replace("k = 2\n", "k = 2\nstrata = \"shard\"\n")).unwrap();
    let stages = drive(Plan::new(run()), |_| 0);
    let name = |key: &str| stages[&key.parse().unwrap()].short();
    let names = [
        "sft-000000",
        "sft-000001",
        "rollout-000001-01",
        "reward-000001-00",
        "gradient-000002-01",
        "update-000001",
        "update-000002",
        "evaluation-000000",
    ];
    let frozen: Vec<_> = names.iter().map(|key| format!("{key} {}", name(key))).collect();
    insta::assert_snapshot!(format!("run {}\n{}", run().id().short(), frozen.join("\n")), @r"
    run 2b7df3c2dd2b
    sft-000000 487544cdb088
    sft-000001 cc2c3836e002
    rollout-000001-01 99b994f39f6c
    reward-000001-00 80af3a22b28a
    gradient-000002-01 759affcebb89
    update-000001 3bda95fae4a9
    update-000002 7e1a1a6099cd
    evaluation-000000 2f7604a68a07
    ");
}

#[test]
fn trajectories_serve_several_updates_before_they_are_sampled_anew() {
    let text = text().replace("k = 2\n", "k = 2\ninner_updates = 2\nkl = 0.04\n");
    let run = Run::parse(&text).unwrap();
    let mut specs = BTreeMap::new();
    let mut plan = Plan::new(run.clone());
    while let Some((key, spec)) = plan.pending().first_key_value().map(|(k, s)| (*k, s.clone())) {
        plan.finished(key, |name| output(&spec, name)).unwrap();
        specs.insert(key, spec);
    }
    assert_eq!(specs.len() as u64, Plan::total_stages(&run));
    let keys = specs
        .keys()
        .map(ToString::to_string)
        .filter(|key| key.contains("-000002") && !key.starts_with("sft"));
    let keys: Vec<_> = keys.collect();
    insta::assert_snapshot!(keys.join(" "), @"rollout-000002-00 rollout-000002-01 reward-000002-00 reward-000002-01 gradient-000002-00 gradient-000002-01 update-000002 gradient-000002-00-u2 gradient-000002-01-u2 update-000002-u2 evaluation-000002");
    for key in specs.keys() {
        assert_eq!(key.to_string().parse(), Ok(*key));
    }
    let spec = |key: &str| &specs[&key.parse().unwrap()];
    let policy_after = |key: &str| output(spec(key), "policy").unwrap();
    let (StageSpec::Gradient(first), StageSpec::Gradient(second)) =
        (spec("gradient-000002-01"), spec("gradient-000002-01-u2"))
    else {
        panic!("not gradients")
    };
    assert_eq!(first.policy, policy_after("update-000001-u2"));
    assert_eq!((first.behaviour, second.behaviour), (first.policy, first.policy));
    assert_eq!(second.policy, policy_after("update-000002"));
    assert_eq!(second.trajectories, first.trajectories);
    assert_eq!(first.reference, Some(policy_after("sft-000002")));
}

/// Rollouts are never guided: the learner's probabilities are those of the policy alone.
#[test]
fn guidance_reaches_evaluations_only() {
    let text = text().replace("problems = 4", "problems = 4\nguidance = 1.5");
    let mut plan = Plan::new(Run::parse(&text).unwrap());
    let mut seen = 0;
    while let Some((key, spec)) = plan.pending().first_key_value().map(|(k, s)| (*k, s.clone())) {
        match &spec {
            StageSpec::Rollout(rollout) => assert_eq!(rollout.sampler.guidance.get(), 0.0),
            StageSpec::Evaluation(evaluation) => {
                assert!(evaluation.samplers.iter().all(|s| s.guidance.get() == 1.5));
                seen += 1;
            }
            _ => {}
        }
        plan.finished(key, |name| output(&spec, name)).unwrap();
    }
    assert_eq!(seen, 3);
    let refused = Run::parse(&text.replace("1.5", "-0.5")).unwrap_err().to_string();
    assert_eq!(
        refused,
        "evaluation.guidance = -0.5: expected a number of at least 0 (0 is no guidance)"
    );
}

#[test]
fn a_spec_says_where_it_stands_and_keys_sort_as_their_texts() {
    let run = Run::parse(&text().replace("k = 2\n", "k = 2\ninner_updates = 2\n")).unwrap();
    let (mut plan, mut keys) = (Plan::new(run.clone()), vec![]);
    while let Some((key, spec)) = plan.pending().first_key_value().map(|(k, s)| (*k, s.clone())) {
        match &spec {
            StageSpec::Evaluation(evaluation) => {
                assert_eq!(Plan::place(&run, &spec), None);
                assert_eq!(Plan::evaluation_of(&run, key, evaluation.policy), Some(spec.clone()));
            }
            _ => assert_eq!(Plan::place(&run, &spec), Some(key)),
        }
        keys.push(key);
        plan.finished(key, |name| output(&spec, name)).unwrap();
    }
    keys.sort_unstable();
    assert!(keys.is_sorted_by_key(StageKey::order));
}

#[test]
fn a_plan_that_leaps_keeps_its_pending_evaluations_and_asks_for_the_same_stages() {
    let whole = drive(Plan::new(run()), |_| 0);
    let (mut plan, mut specs) = (Plan::new(run()), BTreeMap::new());
    while let Some((key, spec)) = plan.pending().first_key_value().map(|(k, s)| (*k, s.clone())) {
        specs.insert(key, spec.clone());
        plan.finished(key, |name| output(&spec, name)).unwrap();
    }
    let left = |key: &str, name| output(&specs[&key.parse().unwrap()], name).unwrap();
    let mut plan = Plan::new(run());
    plan.leap_to_base(left("sft-000002", "policy"));
    assert_eq!(plan.base(), Some(left("sft-000002", "policy")));
    plan.leap(&Checkpoint {
        iteration: 2,
        policy: left("update-000002", "policy"),
        optimizer: left("update-000002", "optimizer"),
        base: None,
    });
    let rest = drive(plan, |_| 0);
    let keys: Vec<_> = rest.keys().map(ToString::to_string).collect();
    insta::assert_snapshot!(keys.join(" "), @"evaluation-000000 evaluation-000002 rollout-000003-00 rollout-000003-01 reward-000003-00 reward-000003-01 gradient-000003-00 gradient-000003-01 update-000003 evaluation-000003");
    assert!(rest.iter().all(|(key, stage)| whole[key] == *stage));
}

fn in_shards(problems: u32, shards: u32) -> Run {
    let (problems, shards) = (problems.to_string(), shards.to_string());
    let changes = [("evaluation.problems", &*problems), ("evaluation.shards", &*shards)];
    Run::parse(&run_file::run_file(&changes)).unwrap()
}

#[test]
fn shards_of_an_evaluation_share_its_problems_and_no_stage_waits_for_them() {
    let run = in_shards(7, 3);
    let first = drive(Plan::new(run.clone()), |_| 0);
    assert_eq!(first, drive(Plan::new(run.clone()), |pending| pending - 1));
    assert_eq!(first.len() as u64, Plan::total_stages(&run));
    let kept = run.config().retention.whole_at_end(&run, StageKind::Evaluation);
    assert_eq!(kept, 9, "three policies in three shards");

    let (mut plan, mut evaluations) = (Plan::new(run.clone()), vec![]);
    while let Some((key, spec)) =
        plan.pending().iter().rev().find_map(|(key, spec)| {
            (key.kind != StageKind::Evaluation).then(|| (*key, spec.clone()))
        })
    {
        plan.finished(key, |name| output(&spec, name)).unwrap();
    }
    for (key, spec) in plan.pending() {
        let StageSpec::Evaluation(spec) = spec else { panic!("{key}") };
        evaluations.push(format!(
            "{key}:{}+{}",
            spec.shard.0.unwrap().first_problem,
            spec.problems
        ));
        assert_eq!(key.to_string().parse(), Ok(*key));
        let again = Plan::evaluation_of(&run, *key, spec.policy);
        assert_eq!(again.map(|spec| spec.digest()), first.get(key).copied());
    }
    insta::assert_snapshot!(evaluations.join(" "), @"evaluation-000000-00:0+3 evaluation-000000-01:3+2 evaluation-000000-02:5+2 evaluation-000002-00:0+3 evaluation-000002-01:3+2 evaluation-000002-02:5+2 evaluation-000003-00:0+3 evaluation-000003-01:3+2 evaluation-000003-02:5+2");
    assert!(plan.pending().keys().map(StageKey::order).is_sorted());
    let update = Plan::last_update(&run, 2);
    assert!(update < StageKey::evaluation(2, Some(0)));
    assert!(StageKey::evaluation(2, Some(2)) < StageKey::new(StageKind::Rollout, 3, 0));

    let policy = ArtifactDigest::of(b"");
    for wrong in
        ["evaluation-000002", "evaluation-000002-03", "evaluation-000001-00", "update-000002"]
    {
        assert_eq!(Plan::evaluation_of(&run, wrong.parse().unwrap(), policy), None, "{wrong}");
    }
    plan.leave_evaluations();
    assert!(plan.is_done());
}

/// Runs and stages from before there were shards keep their names and their records.
#[test]
fn one_shard_is_none() {
    let (one, none) = (in_shards(4, 1), Run::parse(&run_file::run_file(&[])).unwrap());
    assert_eq!((one.id(), one.config()), (none.id(), none.config()));
    assert_eq!(
        serde_json::to_string(one.config()).unwrap().matches("shards").count(),
        1,
        "of rollouts"
    );
    let whole = drive(Plan::new(one), |_| 0);
    assert_eq!(whole, drive(Plan::new(none.clone()), |_| 0));
    assert_ne!(in_shards(4, 2).id(), none.id());
    let policy = ArtifactDigest::of(b"");
    let whole = Plan::evaluation_of(&none, StageKey::evaluation(0, None), policy).unwrap();
    assert!(!serde_json::to_string(&whole).unwrap().contains("_problem"));
    assert_eq!(Plan::evaluation_of(&none, StageKey::evaluation(0, Some(0)), policy), None);
}

#[test]
fn every_problem_is_in_one_shard() {
    for (problems, shards) in [(1, 1), (7, 2), (7, 3), (7, 7), (1319, 8), (1_048_576, 1_048_575)] {
        let run = in_shards(problems, shards);
        let policy = ArtifactDigest::of(b"");
        let mut next = 0;
        for key in Plan::evaluations(&run, 0) {
            let Some(StageSpec::Evaluation(spec)) = Plan::evaluation_of(&run, key, policy) else {
                panic!("{key}")
            };
            assert_eq!(spec.shard.0.map_or(0, |shard| shard.first_problem), next);
            assert!([problems / shards, problems.div_ceil(shards)].contains(&spec.problems));
            next += spec.problems;
        }
        assert_eq!(next, problems);
    }
}

mod fused;
