//! What a worker has to know to go on from one stage, and who helps where it knows too little.

use std::collections::BTreeMap;

use agrpo_spec::{Plan, StageSpec};
use tokio::time::{sleep, timeout};

use super::house::{House, expected_of, finish};
use super::*;
use crate::testing::{self, hold, run_fused, run_of};
use agrpo_store::Hold;
use agrpo_store::Versions;

/// Puts a run's results into the house's store as if others had computed them all.
async fn computed_by_others(house: &House, run: &agrpo_spec::Run) {
    testing::finished(&house.store, run.clone(), 2).await;
}

fn asked(house: &House) -> BTreeMap<String, u64> {
    std::mem::take(&mut *house.counts.lock().unwrap())
}

#[tokio::test]
async fn a_worker_goes_on_from_any_stage_with_a_few_reads_however_long_the_run_is() {
    let house = House::new().await;
    let mut reads = vec![];
    for iterations in [5, 60] {
        let run = run_of("long", iterations, 4);
        computed_by_others(&house, &run).await;
        let index = house.store.records.recorded_stages(run.id()).await.unwrap();
        for kind in [StageKind::Rollout, StageKind::Reward, StageKind::Gradient] {
            let runs = Runs::new(house.store.clone(), Versions::own());
            let key = StageKey::new(kind, iterations - 1, 2);
            let manifest = house.store.records.manifest(index[&key]).await.unwrap().unwrap();
            asked(&house);
            let view = runs.finished(run.id(), key, &manifest).await.unwrap();
            reads.push(asked(&house).values().sum::<u64>());
            let ready: Vec<_> = view.pending.iter().map(|pending| pending.key.kind).collect();
            match kind {
                StageKind::Rollout => assert_eq!(ready, [StageKind::Reward]),
                StageKind::Reward => assert_eq!(ready, [StageKind::Gradient]),
                // Whether the update is ready, the count of its gradients says.
                _ => assert_eq!(ready, []),
            }
            let update = StageKey::new(StageKind::Update, iterations - 1, 0);
            let view = runs.joined(run.id(), update).await.unwrap();
            assert_eq!(view.pending[0].stage, index[&update]);
        }
    }
    let (short, long) = reads.split_at(3);
    assert_eq!(short, long);
    assert!(long.iter().all(|&requests| requests <= 10), "{long:?}");
}

#[tokio::test]
async fn updates_follow_from_the_rewards_of_all_shards_however_long_the_run_is() {
    let house = House::new().await;
    for iterations in [5, 60] {
        let run = run_fused("long-fused", iterations, 4);
        computed_by_others(&house, &run).await;
        let index = house.store.records.recorded_stages(run.id()).await.unwrap();
        let runs = Runs::new(house.store.clone(), Versions::own());
        let reward = StageKey::new(StageKind::Reward, iterations - 1, 2);
        let updates = StageKey::updates(iterations - 1);
        let manifest = house.store.records.manifest(index[&reward]).await.unwrap().unwrap();
        asked(&house);
        let view = runs.finished(run.id(), reward, &manifest).await.unwrap();
        assert!(view.pending.is_empty(), "whether all shards are there, their count says");
        assert_eq!(runs.join_of(run.id(), reward).await.unwrap(), Some((updates, 4)));
        assert!(asked(&house).values().sum::<u64>() <= 10);
        let view = runs.joined(run.id(), updates).await.unwrap();
        assert_eq!(view.pending[0].stage, index[&updates]);
        let manifest = house.store.records.manifest(index[&updates]).await.unwrap().unwrap();
        let view = runs.finished(run.id(), updates, &manifest).await.unwrap();
        let next = view.pending.iter().filter(|next| next.key.kind == StageKind::Rollout);
        assert_eq!(next.count(), 4);
        assert_eq!(runs.join_of(run.id(), updates).await.unwrap(), None);
    }
}

#[tokio::test]
async fn an_evaluation_is_placed_by_its_hint_only_if_the_hint_is_true() {
    let house = House::new().await;
    let run = run_of("placed", 8, 2);
    computed_by_others(&house, &run).await;
    let index = house.store.records.recorded_stages(run.id()).await.unwrap();
    let runs = Runs::new(house.store.clone(), Versions::own());
    let key = StageKey::new(StageKind::Evaluation, 4, 0);
    let spec = house.store.records.manifest(index[&key]).await.unwrap().unwrap().spec;
    assert_eq!(runs.place(run.id(), &spec, Some(key)).await.unwrap(), Some(key));
    for wrong in [StageKey::new(StageKind::Evaluation, 6, 0), StageKey::new(StageKind::Sft, 4, 0)] {
        assert_eq!(runs.place(run.id(), &spec, Some(wrong)).await.unwrap(), None);
    }
    assert_eq!(runs.place(run.id(), &spec, None).await.unwrap(), None);
    for (key, stage) in index {
        let spec = house.store.records.manifest(stage).await.unwrap().unwrap().spec;
        if key.kind != StageKind::Evaluation {
            assert_eq!(runs.place(run.id(), &spec, None).await.unwrap(), Some(key));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spec_that_is_lost_or_damaged_is_written_again() {
    for damage in [None, Some("{}")] {
        let house = House::slow(Duration::from_millis(10)).await;
        house.enqueue().await;
        let (_, first) = *house.pending().await.first().unwrap();
        house.objects.damage_spec(first, damage).await;
        house.store.records.invalidate_spec(first);
        finish(house.worker("mender"), &house).await;
        assert_eq!(house.result().await, house.expected().await);
        assert_eq!(house.store.fresh().records.spec(first).await.unwrap().digest(), first);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_between_result_and_offer_is_reconciled() {
    let house = House::new().await;
    let run = house.run();
    // The first stage is published, and its worker died before it offered what follows.
    let plan = Plan::new(run.clone());
    let spec = plan.pending().values().next().unwrap().clone();
    let inputs = house.store.cas.load_inputs(&spec).await.unwrap();
    house.store.records.put_run(&run).await.unwrap();
    house.enqueue().await;
    let outputs = testing::fake_outputs(&spec, &inputs).unwrap();
    let records = house.store.cas.put_outputs(&outputs).await.unwrap();
    let manifest = Manifest {
        stage: spec.digest(),
        spec,
        outputs: records,
        metrics: outputs.metrics,
        environment: testing::environment(),
        phases: agrpo_spec::Phases::default(),
    };
    house.store.records.publish(&manifest).await.unwrap();
    house.redis_says::<()>(&["FLUSHALL"]).await;
    house.redis_says::<()>(&["SADD", &house.fleet.keys.of("active"), &run.id().to_string()]).await;
    finish(house.worker("heir"), &house).await;
    assert_eq!(house.calls().get(&manifest.stage), None, "it is not computed again");
    assert_eq!(house.result().await, house.expected().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_index_and_counts_a_run_goes_on_by_the_reconciler() {
    let house = House::slow(Duration::from_millis(20)).await;
    let run = run_of("bare", 3, 3);
    house.enqueue_run(run.clone()).await;
    let workers = ["a", "b", "c"].map(|name| house.supervised(name));
    for calls in [8, 20] {
        house.until_calls(calls).await;
        house.objects.drop_index(run.id()).await;
        let joins: Vec<String> = house.keys().await;
        for key in joins.iter().filter(|key| key.contains(":joins:")) {
            house.redis_says::<()>(&["DEL", key]).await;
        }
    }
    house.until_done_with(&run).await;
    for worker in workers {
        worker.stop.send_replace(true);
        worker.end().await.unwrap();
    }
    assert_eq!(house.calls().values().max(), Some(&1));
    let outputs = |results: super::house::Results| results.into_values().collect::<Vec<_>>();
    let expected = outputs(expected_of(&run).await);
    for result in outputs(house.result_of(&run).await) {
        assert!(expected.contains(&result));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_another_program_is_left_alone_and_reported_once_until_it_is_enqueued_again() {
    let house = House::new().await;
    house.enqueue().await;
    let run = house.run().id();
    house.objects.pin_other_versions(run).await;
    let mut options = house.options("foreign");
    options.exit_when_idle = Some(Duration::from_millis(1500));
    // Alone, it neither computes nor waits for ever.
    timeout(Duration::from_secs(20), house.serve(options)).await.unwrap().unwrap();
    let said: Vec<_> = house
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Incompatible { run, why } => Some((run, why)),
            _ => None,
        })
        .collect();
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].0, run);
    assert!(said[0].1.contains("version 99 of rollout stages"), "{}", said[0].1);
    assert_eq!(house.calls().len(), 0);
    house.enqueue().await;
    finish(house.worker("ours"), &house).await;
    assert_eq!(house.result().await, house.expected().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_of_another_class_in_the_wrong_queue_finds_its_way() {
    let house = House::new().await;
    let run = house.run();
    house.enqueue().await;
    let first = *house.pending().await.first().unwrap();
    house.redis_says::<()>(&["FLUSHALL"]).await;
    let of_gpu = Numerics::Cuda { sm: 90 };
    let wrong = house.queue(of_gpu);
    wrong.offer(run.id(), [first]).await.unwrap();
    let mut options = house.options("gpu");
    options.numerics = of_gpu;
    let stray = house.worker_with(options);
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(house.calls().len(), 0);
    let said = house.events();
    let said = said.iter().filter(|event| matches!(event, Event::Incompatible { .. })).count();
    assert_eq!(said, 1);
    finish(house.worker("processor"), &house).await;
    stray.stop.send_replace(true);
    stray.end().await.unwrap();
    assert_eq!(house.result().await, house.expected().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_redis_knows_held_runs_again_once_it_is_reconciled() {
    let house = House::new().await;
    let run = house.run();
    house.enqueue().await;
    hold(&house.store, run.id(), Hold::Paused).await;
    house.redis_says::<()>(&["FLUSHALL"]).await;
    let worker = house.worker("careful");
    house
        .until("the hash", async || {
            let how: Option<String> = house
                .redis_says(&["HGET", &house.fleet.keys.of("held"), &run.id().to_string()])
                .await;
            how.as_deref() == Some("paused")
        })
        .await;
    sleep(Duration::from_millis(800)).await;
    assert_eq!((house.calls().len(), house.waiting().await), (0, 0));
    worker.stop.send_replace(true);
    worker.end().await.unwrap();
}

/// A hint of a stage that is done is dropped for two small reads and no plan.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_of_a_finished_stage_costs_no_plan() {
    let house = House::new().await;
    let run = run_of("done", 6, 2);
    house.store.records.put_run(&run).await.unwrap();
    computed_by_others(&house, &run).await;
    let index = house.store.records.recorded_stages(run.id()).await.unwrap();
    let key = StageKey::new(StageKind::Reward, 4, 1);
    let spec: StageSpec = house.store.records.manifest(index[&key]).await.unwrap().unwrap().spec;
    house.store.records.put_spec(index[&key], &spec).await.unwrap();
    let queue = house.queue(Numerics::CpuPortable);
    queue.offer(run.id(), [(key, index[&key])]).await.unwrap();
    asked(&house);
    let mut options = house.options("quick");
    options.reconcile = Duration::from_secs(3600);
    let reconciler = house.fleet.keys.reconciler(&Versions::own());
    house.redis_says::<()>(&["SET", &reconciler, "another", "PX", "60000"]).await;
    options.exit_when_idle = Some(Duration::from_millis(800));
    let taken = {
        let house = &house;
        async move { house.until("the hint", async || house.waiting().await == 0).await }
    };
    let (served, ()) = tokio::join!(house.serve(options), taken);
    served.unwrap();
    let counts = asked(&house);
    let of = |what: &str| counts.get(what).copied().unwrap_or(0);
    assert_eq!((of("GET stages"), of("GET runs/policies")), (1, 0), "{counts:?}");
    assert_eq!(house.calls().len(), 0);
}
