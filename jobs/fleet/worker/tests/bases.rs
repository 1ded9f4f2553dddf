//! Workers stay at the checkpoint whose weights they hold, and no run starves for it.

use std::collections::BTreeMap;

use agrpo_spec::{Artifact, ArtifactDigest, Files, Outputs, Run, RunId};
use agrpo_store::{Control, Hold};
use tokio::time::sleep;

use super::house::{House, WorkerHandle};
use super::*;
use crate::control::{hold, resume};
use crate::coordination::queue::{Holding, Queue};
use crate::testing::run_seeded;

/// How long a run is passed over here.
const BOUND: Duration = Duration::from_millis(300);

fn base(n: u8) -> ArtifactDigest {
    ArtifactDigest::of(&[n])
}

/// A run of its own with ten stages in the queue; of a base, where it has one.
async fn offered(queue: &Queue, number: u8, base: Option<ArtifactDigest>) -> RunId {
    let run = run_seeded("offered", 1, 2, number.into()).id();
    if let Some(base) = base {
        queue.note_base(run, base).await.unwrap();
    }
    let stages = (0..10).map(|shard| {
        let digest = ArtifactDigest::of(&[number, shard]).to_string();
        (StageKey::new(StageKind::Rollout, 1, shard.into()), digest.parse().unwrap())
    });
    assert_eq!(queue.offer(run, stages).await.unwrap(), 10);
    run
}

/// Whose turns the next ones are, for a worker that holds this.
async fn turns(queue: &Queue, holding: Holding, count: usize) -> Vec<RunId> {
    let mut turns = vec![];
    for _ in 0..count {
        turns.extend(queue.take_near(holding, BOUND).await.unwrap().map(|hint| hint.run));
    }
    turns
}

fn holding(base: Option<ArtifactDigest>) -> Holding {
    Holding { base, is_storing: false }
}

#[tokio::test]
async fn a_worker_stays_at_its_base_until_another_run_was_passed_over_for_long_enough() {
    let house = House::new().await;
    let queue = house.queue(Numerics::CpuPortable);
    let [other, one, two] = [(1, base(1)), (2, base(2)), (3, base(2))];
    let other = offered(&queue, other.0, Some(other.1)).await;
    let one = offered(&queue, one.0, Some(one.1)).await;
    let two = offered(&queue, two.0, Some(two.1)).await;
    let near = holding(Some(base(2)));
    assert_eq!(turns(&queue, near, 4).await, [one, two, one, two], "runs of a base take turns");
    sleep(BOUND).await;
    assert_eq!(turns(&queue, near, 3).await, [other, one, two], "one turn, then it waits again");
    assert_eq!(turns(&queue, near, 2).await, [one, two]);
    // Workers that hold nothing, or the other base, give it turns, from which the bound counts anew.
    assert_eq!(turns(&queue, holding(None), 1).await, [other]);
    assert_eq!(turns(&queue, holding(Some(base(1))), 2).await, [other, other]);
    assert_eq!(turns(&queue, near, 1).await, [one]);
}

/// However many runs are overdue, each has its turn before any has a second one.
#[tokio::test]
async fn no_run_starves() {
    let house = House::new().await;
    let queue = house.queue(Numerics::CpuPortable);
    let mut runs = vec![];
    for number in 1..=5 {
        runs.push(offered(&queue, number, Some(base(number))).await);
    }
    let near = holding(Some(base(1)));
    assert_eq!(turns(&queue, near, 2).await, [runs[0], runs[0]]);
    sleep(BOUND).await;
    assert_eq!(turns(&queue, near, 5).await, [runs[1], runs[2], runs[3], runs[4], runs[0]]);
}

#[tokio::test]
async fn runs_without_a_checkpoint_take_turns_as_ever() {
    let house = House::new().await;
    let queue = house.queue(Numerics::CpuPortable);
    let plain = offered(&queue, 1, None).await;
    let other = offered(&queue, 2, Some(base(2))).await;
    let own = offered(&queue, 3, Some(base(3))).await;
    assert_eq!(turns(&queue, holding(Some(base(3))), 4).await, [plain, own, plain, own]);
    assert_eq!(turns(&queue, holding(None), 4).await, [other, plain, own, other]);
}

/// A worker is not idle for the sake of its base, but waits for what follows from its own result.
#[tokio::test]
async fn a_worker_without_a_stage_of_its_base_takes_another_unless_it_is_storing_a_result() {
    let house = House::new().await;
    let queue = house.queue(Numerics::CpuPortable);
    let other = offered(&queue, 1, Some(base(1))).await;
    let storing = Holding { base: Some(base(2)), is_storing: true };
    assert_eq!(turns(&queue, storing, 3).await, []);
    assert_eq!(turns(&queue, holding(Some(base(2))), 2).await, [other, other]);
    assert_eq!(turns(&queue, storing, 1).await, []);
    sleep(BOUND).await;
    assert_eq!(turns(&queue, storing, 1).await, [other], "not longer than the bound");
}

#[tokio::test]
async fn a_time_ahead_of_the_clock_of_redis_makes_no_run_wait_for_ever() {
    let house = House::new().await;
    let queue = house.queue(Numerics::CpuPortable);
    let other = offered(&queue, 1, Some(base(1))).await;
    let own = offered(&queue, 2, Some(base(2))).await;
    let (key, name) = (format!("{}:passed", house.queue_name()), other.to_string());
    house.redis_says::<()>(&["ZADD", &key, "9e15", &name]).await;
    let near = holding(Some(base(2)));
    assert_eq!(turns(&queue, near, 1).await, [own]);
    sleep(BOUND).await;
    assert_eq!(turns(&queue, near, 1).await, [other]);
    for run in [other, own] {
        queue.withdraw(run).await.unwrap();
    }
    assert_eq!(turns(&queue, near, 1).await, []);
    let left = house.keys().await;
    assert!(
        !left.iter().any(|key| key.ends_with(":bases") || key.ends_with(":passed")),
        "{left:?}"
    );
}

async fn finish_worker(worker: WorkerHandle) {
    worker.stop.send_replace(true);
    worker.end().await.unwrap();
}

/// A run of a checkpoint whose folder is in the store.
async fn checkpoint_run(house: &House, number: u8) -> Run {
    let file = |name: &str| (name.to_owned(), vec![number; 9].into());
    let files: Files = ["config.json", "tokenizer.json", "model.safetensors"].map(file).into();
    let artifacts = BTreeMap::from([("policy", Artifact::Folder(files))]);
    let outputs = Outputs { artifacts, metrics: BTreeMap::new() };
    let stored = house.store.cas.put_outputs(&outputs).await.unwrap();
    let (folder, blob) = (stored["policy"].digest, stored["policy/config.json"].digest);
    let text = format!(
        r#"
name = "of-a-checkpoint"
seed = {number}
task.benchmark = {{ name = "gsm8k", protocol = "agrpo", train = "{blob}", test = "{blob}", prompt_tokens = 64 }}
lora = {{ rank = 2, alpha = 4.0, head = false }}
optimizer = {{ learning_rate = 1e-2 }}
training = {{ iterations = 3 }}
evaluation = {{ problems = 2, every = 1, steps = [8], micro_batch = 4 }}
[checkpoint]
folder = "{folder}"
config = "{blob}"
tokenizer = "{blob}"
shape = {{ d_model = 8, n_layers = 1, n_heads = 2, mlp_hidden_size = 8, embedding_size = 99, max_sequence_length = 128 }}
[rollout]
prompts = 2
group = 2
shards = 2
micro_batch = 4
completion_tokens = 16
block_tokens = 8
steps = 8
[estimator]
k = 2
micro_batch = 4
"#
    );
    Run::parse(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_base_stays_of_a_run_that_is_over() {
    let house = House::new().await;
    let (store, key) = (&house.store, format!("{}:bases", house.queue_name()));
    let (mut runs, mut ids) = (vec![], vec![]);
    for number in 1..=4 {
        runs.push(checkpoint_run(&house, number).await);
        house.enqueue_run(runs[runs.len() - 1].clone()).await;
        ids.push(runs[runs.len() - 1].id());
    }
    let control = |state| Control { state, unix_ms: 7, by: "anna".to_owned() };
    for (run, state) in [(ids[1], Hold::Cancelled), (ids[2], Hold::Paused)] {
        hold(store, Some(&house.fleet), run, &control(state)).await.unwrap();
    }
    store.records.forget_run(ids[3]).await.unwrap();
    let only_the_paused = async || {
        let noted: Vec<String> = house.redis_says(&["HKEYS", &key]).await;
        noted == [ids[2].to_string()]
    };
    let worker = house.worker("only");
    house.until_done_with(&runs[0]).await;
    house.until("the bases of runs that are over to be forgotten", only_the_paused).await;
    // A worker that had a stage of the run in hand notes its base once more.
    house.queue(Numerics::CpuPortable).note_base(ids[1], base(1)).await.unwrap();
    house.until("a late base to be forgotten", only_the_paused).await;
    resume(store, Some(&house.fleet), ids[1]).await.unwrap();
    house.until_done_with(&runs[1]).await;
    finish_worker(worker).await;
}

/// Sixteen gigabytes would be read at each change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_worker_with_runs_of_two_checkpoints_changes_its_base_once() {
    let house = House::new().await;
    let runs = [checkpoint_run(&house, 1).await, checkpoint_run(&house, 2).await];
    for run in &runs {
        house.enqueue_run(run.clone()).await;
    }
    let worker = house.worker("only");
    for run in &runs {
        house.until_done_with(run).await;
    }
    finish_worker(worker).await;
    let started = |event| match event {
        Event::Started { run, .. } => Some(run),
        _ => None,
    };
    let mut bases: Vec<RunId> = house.events().into_iter().filter_map(started).collect();
    assert!(bases.len() > 30, "{}", bases.len());
    bases.dedup();
    assert_eq!(bases.len(), 2);
}
