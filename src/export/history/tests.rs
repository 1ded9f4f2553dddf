//! From stages to rows: what is summed, what is averaged, what has no row yet.

use agrpo_spec::{EvaluationResult, Phases, StageDigest};

use super::*;

#[path = "../../../tests/support/run_file.rs"]
mod run_file;

fn run() -> Run {
    let text = run_file::run_file(&[
        ("name", "\"rows\""),
        ("seed", "1"),
        ("model.n_heads", "1"),
        ("model.mlp_hidden_size", "16"),
        ("sft.steps", "4"),
        ("rollout.prompts", "2"),
        ("estimator.inner_updates", "2"),
        ("optimizer.learning_rate", "1e-3"),
        ("training.iterations", "2"),
        ("evaluation.every", "1"),
    ]);
    Run::parse(&text).unwrap()
}

fn done(started_unix_ms: u64, metrics: &[(&str, f64)]) -> Done {
    let digest = ArtifactDigest::of(b"policy");
    Done {
        stage: digest.to_string().parse::<StageDigest>().unwrap(),
        worker: 0,
        started_unix_ms,
        attempt: 1,
        phases: Phases { fetch_ms: 1.0, compute_ms: 500.0, store_ms: 9.0 },
        metrics: metrics.iter().map(|&(name, value)| (name.to_owned(), value)).collect(),
        outputs: BTreeMap::from([("policy".to_owned(), digest)]),
    }
}

fn stages() -> BTreeMap<StageKey, Done> {
    use StageKind::{Evaluation, Gradient, Reward, Rollout, Sft, Update};
    let key = StageKey::new;
    let mut stages = BTreeMap::from([
        (key(Sft, 0, 0), done(1000, &[("loss", 3.0), ("steps", 2.0)])),
        (key(Sft, 1, 0), done(2000, &[("loss", 2.0), ("steps", 2.0)])),
        (key(Evaluation, 0, 0), done(3000, &[("accuracy", 0.25), ("accuracy_8", 0.25)])),
        (key(Rollout, 1, 0), done(3000, &[("tokens", 30.0), ("entropy", 1.0)])),
        (key(Rollout, 1, 1), done(3000, &[("tokens", 10.0), ("entropy", 2.0)])),
        (key(Reward, 1, 0), done(4000, &[("reward", 0.0), ("part_new", 1.0)])),
        (key(Reward, 1, 1), done(4000, &[("reward", 1.0), ("part_new", 0.0)])),
        (key(Gradient, 1, 0), done(5000, &[("ratio_deviation", 0.5)])),
        (key(Gradient, 1, 1).of_update(2), done(6000, &[("ratio_deviation", 0.7)])),
        (key(Update, 1, 0), done(7000, &[("learning_rate", 0.1)])),
        (key(Update, 1, 0).of_update(2), done(8000, &[("learning_rate", 0.2)])),
        (key(Rollout, 2, 0), done(9000, &[("tokens", 5.0), ("entropy", 9.0)])),
    ]);
    stages.insert(key(Update, 2, 0), done(9500, &[("learning_rate", 0.3)]));
    stages
}

#[test]
fn an_iteration_is_a_row_once_its_last_update_is_done() {
    let run = run();
    let evaluation = Evaluation { problems: 4, results: vec![grades(0.25)], samples: vec![] };
    let history = History::read(&run, &stages(), &BTreeMap::from([(0, evaluation)]));
    assert_eq!(history.began_unix_ms, 1000);
    let times: Vec<_> = history.rows.iter().map(|row| (row.iteration, row.unix_ms)).collect();
    assert_eq!(times, [(0, 2510), (1, 8510)], "the second iteration has one update more to go");

    let base = &history.rows[0].metrics;
    assert_eq!(base["eval/accuracy@8"], 0.25);
    let (low, high) = (base["eval/accuracy_low@8"], base["eval/accuracy_high@8"]);
    assert!(low < 0.25 && 0.25 < high, "{low} to {high}");
    assert!(!base.contains_key("eval/accuracy") && !base.contains_key("train/loss"));

    let row = &history.rows[1].metrics;
    assert_eq!((row["train/tokens"], row["train/entropy"]), (40.0, 1.25), "weighted by tokens");
    assert_eq!((row["train/reward"], row["train/part_new"]), (0.5, 0.5));
    assert_eq!((row["train/ratio_deviation"], row["train/learning_rate"]), (0.7, 0.2));
    assert_eq!(row["time/rollout"], 1.02);

    let sft: Vec<_> = history.sft.iter().map(|chunk| (chunk.steps, &chunk.metrics)).collect();
    assert_eq!(sft[1], (4, &Metrics::from([("sft/loss".to_owned(), 2.0)])));
}

fn grades(accuracy: f64) -> EvaluationResult {
    EvaluationResult {
        accuracy,
        completion_tokens: None,
        correct: 1,
        points: None,
        position: None,
        samples: None,
        solved_by: vec![3, 1],
        steps: 8,
        temperature: None,
    }
}

/// Where answers earn parts of points, Wilson's interval is about another number.
#[test]
fn an_accuracy_that_is_no_share_has_no_interval() {
    assert!(interval(&grades(0.25)).is_some());
    assert_eq!(interval(&grades(0.6)), None);
}

#[test]
fn a_run_that_has_not_begun_has_no_rows() {
    let run = run();
    assert_eq!(History::read(&run, &BTreeMap::new(), &BTreeMap::new()), History::default());
}
