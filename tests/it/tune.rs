//! `agrpo tune`: properties of its numbers, reproducibility, and wrong requests.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::help::help_of;
use crate::support::program::Program;
use crate::support::run_file::run_file;

/// Whole puzzles in low-confidence order without filters. The base already earns partial rewards.
fn run() -> String {
    let text = run_file(&[
        ("name", "\"puzzles\""),
        ("model.d_model", "32"),
        ("model.mlp_hidden_size", "64"),
        ("model.init_std", "0.06"),
        ("sft.steps", "80"),
        ("sft.batch", "64"),
        ("sft.steps_per_stage", "80"),
        ("sft.micro_batch", "64"),
        ("sft.optimizer", "{ learning_rate = 3e-3 }"),
        ("rollout.prompts", "12"),
        ("rollout.group", "6"),
        ("rollout.micro_batch", "64"),
        ("rollout.completion_tokens", "16"),
        ("rollout.block_tokens", "16"),
        ("rollout.temperature", "1.0"),
        ("rollout.top_k", "0"),
        ("rollout.top_p", "1.0"),
        ("rollout.position", "\"low-confidence\""),
        ("reward.weights", "{ cells = 1.0 }"),
        ("estimator.k", "4"),
        ("estimator.uniform_share", "0.2"),
        ("estimator.micro_batch", "64"),
        ("optimizer.learning_rate", "1e-3"),
        ("training.iterations", "1"),
        ("evaluation.every", "1"),
        ("evaluation.steps", "[8]"),
        ("evaluation.micro_batch", "64"),
    ]);
    text.replace("[task.countdown]", "[task.sudoku]")
}

/// A folder in which the run is done.
fn finished() -> Program {
    let program = Program::new(&[]);
    std::fs::write(program.folder().join("run.toml"), run()).unwrap();
    program.json(&["run", "run.toml", "--json"]);
    program
}

fn rows(report: &Value) -> &Vec<Value> {
    report["rows"].as_array().unwrap()
}

/// Kind, k, strata and weights of a row; "-" where it has none.
fn setting(row: &Value) -> [String; 4] {
    ["kind", "k", "strata", "step_weights"].map(|key| match &row[key] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    })
}

fn find<'a>(report: &'a Value, wanted: [&str; 4]) -> &'a Value {
    rows(report).iter().find(|row| setting(row) == wanted).unwrap()
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key} of {row}"))
}

/// How far the bias is above noise: a standard normal number where there is no bias.
fn z(row: &Value) -> f64 {
    number(row, "bias_z")
}

/// Every file of the store.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> =
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    all.sort();
    all
}

#[test]
fn the_numbers_keep_what_the_estimators_promise() {
    let program = finished();
    let before = files(&program.store());
    let question = ["tune", "puzzles", "--k", "1,2,4", "--repeats", "32", "--plot", "t.svg"];
    let only = ["--estimators", "agrpo,diffu-grpo", "--json"];
    let report = program.json(&[&question[..], &only].concat());
    assert_eq!(files(&program.store()), before, "nothing is left behind");
    let chart = std::fs::read_to_string(program.folder().join("t.svg")).unwrap();
    assert!(chart.starts_with("<svg ") && chart.contains("; recommended: agrpo, k "), "{chart}");
    // The exact sum, with and without positions.
    assert!(chart.contains("; not shown: 2 without variance"), "{chart}");

    let exact = &rows(&report)[0];
    assert_eq!(setting(exact), ["agrpo", "all", "-", "-"]);
    assert_eq!(number(exact, "variance"), 0.0);
    assert!(number(exact, "bias_share") < 1e-4 && number(exact, "cosine") > 0.9999, "{exact}");
    let drawn = |row: &&Value| row["kind"] == "agrpo" && row["k"] != "all";
    let drawn: Vec<&Value> = rows(&report).iter().filter(drawn).collect();
    assert_eq!(drawn.len(), 2 * (2 + 3 + 3), "one sample has no strata of its completion");
    for row in &drawn {
        assert!(z(row).abs() < 4.0, "unbiased: {row}");
        assert!(number(row, "states") <= number(row, "samples"), "{row}");
        assert!(number(row, "cost") >= 1.0, "{row}");
    }
    for weights in ["uniform", "entropy"] {
        for strata in ["none", "group"] {
            let variances = ["1", "2", "4"].map(|k| {
                let row = find(&report, ["agrpo", k, strata, weights]);
                number(row, "variance")
            });
            assert!(variances.is_sorted_by(|a, b| a > b), "{strata} {weights}: {variances:?}");
        }
        let [none, completion] = ["none", "completion"]
            .map(|strata| number(find(&report, ["agrpo", "4", strata, weights]), "variance"));
        assert!(completion < 0.8 * none, "{weights}: {completion} of {none}");
    }
    for k in ["1", "2", "4"] {
        let plain = find(&report, ["agrpo", k, "none", "uniform"]);
        assert_eq!(number(plain, "variance_ratio"), 1.0);
        let other = find(&report, ["diffu-grpo", k, "-", "-"]);
        assert!(z(other) > 10.0 && number(other, "bias_share") > 0.1, "{other}");
        assert!(number(other, "cosine") < 0.97 && other["cost"].is_null(), "{other}");
    }
    let positions = &rows(&report)[1];
    assert_eq!(positions["position_gradient"], true);
    assert!(number(positions, "bias_share") > 0.05, "{positions}");
    assert!(number(&report["positions"], "share") > 0.05, "{positions}");

    let cost =
        number(find(&report, setting(&report["recommended"]).each_ref().map(|s| &**s)), "cost");
    assert_eq!(cost, 1.0);
    assert!(number(&report["own"], "cost") >= 1.0);
    let form = &report["closed_form"];
    let squared = number(form, "step_variance") / number(form, "rollout_variance")
        * number(form, "rollout_seconds")
        / number(form, "seconds_per_sample");
    assert!((number(form, "k") - squared.sqrt()).abs() < 1e-9, "{form}");
    assert_eq!(report["batch"]["completions"].as_u64(), Some(36));
    assert_eq!(report["iteration"].as_u64(), Some(1));
}

#[test]
fn all_but_seconds_is_a_function_of_the_request() {
    let program = finished();
    let json = |seed: &str| {
        let question = ["tune", "puzzles", "--k", "2", "--repeats", "4", "--prompts", "3"];
        let mut report = program
            .json(&[&question[..], &["--iteration", "base", "--seed", seed, "--json"]].concat());
        for key in ["recommended", "closed_form"] {
            report.as_object_mut().unwrap().remove(key);
        }
        report["rollout"].as_object_mut().unwrap().remove("seconds");
        report["own"].as_object_mut().unwrap().remove("cost");
        for row in report["rows"].as_array_mut().unwrap() {
            let row = row.as_object_mut().unwrap();
            assert!(row.remove("seconds").and_then(|n| n.as_f64()).unwrap() > 0.0);
            row.remove("cost");
        }
        report
    };
    let first = json("0");
    assert_eq!(first, json("0"));
    assert_eq!((first["policy"].as_str(), rows(&first).len()), (Some("base"), 2 + 6 + 3));
    assert!(
        first["left_out"][0].as_str().unwrap().starts_with("ar-grpo: rollout.block_tokens"),
        "{first}"
    );
    assert_ne!(first["norm"], json("1")["norm"]);
}

#[test]
fn people_read_a_table_and_what_to_do() {
    let program = finished();
    let mut question = vec!["tune", "puzzles", "--k", "1", "--k", "2", "--repeats", "4"];
    question.extend(["--prompts", "4", "--estimators", "agrpo,coupled-grpo"]);
    let said = program.run(&question);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    for part in ["at iteration 1\n", "var. ratio", "coupled-grpo", "agrpo+positions"] {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    for part in ["\nrecommended: agrpo, k ", "k* = sigma_step / sigma_roll"] {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    assert!(!said.stdout.contains("merged-step") && !said.stdout.contains("left out"));
    assert!(
        said.stderr.contains("tune 14/14  coupled-grpo, k 2  relative std "),
        "{}",
        said.stderr
    );
    let alone = program.run(&["tune", "puzzles", "--estimators", "merged-step", "--k", "2,99"]);
    for part in [
        "nothing is recommended",
        "left out: merged-step: estimator.k = 99: expected 1 to rollout.steps = 8 segments",
    ] {
        assert!(alone.stdout.contains(part), "{}", alone.stdout);
    }
}

#[test]
fn help_of_tune() {
    insta::assert_snapshot!(help_of("tune"), @r"
    Measure estimators of the policy gradient, and recommend a number of samples

    Samples a fresh batch of the run's training prompts and estimates its gradient again and again: for
    every estimator and every k, with and without stratification (strata) and entropy weights
    (step_weights). Reports how much the estimates vary, how far their mean is off the exact sum over
    all steps, and how long they take; and which k gives the least variance times seconds, rollout
    included. A bias is reported if it is 4 standard deviations above noise, as the table has many rows,
    and otherwise its upper bound; more --repeats find smaller ones. Changes nothing in the store. Takes
    about a minute on one core for the runs in jobs/runs.

    Usage: agrpo tune [OPTIONS] <RUN>

    Arguments:
      <RUN>
              Run to measure, by the start of its id or by its name

    Options:
          --prompts <N>
              Prompts of the batch [default: those of a shard, at most 8]

          --repeats <N>
              Estimates of each setting
              
              [default: 12]

          --k <LIST>
              Numbers of samples [default: powers of two up to the run's steps or 32, and the run's own]

          --estimators <LIST>
              Estimators to measure [default: all that the run's rollouts allow]

              Possible values:
              - agrpo:        Drawn steps of the trajectory
              - diffu-grpo:   One pass over a masked completion
              - coupled-grpo: Pairs of complementary masks
              - merged-step:  Neighbouring steps in one pass
              - ar-grpo:      From left to right; needs rollout.block_tokens = 1

          --iteration <POLICY>
              Policy to measure on

              Possible values:
              - latest: The newest
              - base:   The one before reinforcement learning
              
              [default: latest]

          --seed <N>
              Other completions of the same prompts, and other draws
              
              [default: 0]

          --device <DEVICE>
              What computes: cpu, or cuda:N for the GPU number N
              
              [default: cpu]

          --threads <N>
              Threads of this process that compute; all its stages share them, and results do not depend
              on their number. A GPU takes one [default: number of cores that the process may use]

          --plot <FILE.svg>
              Draw a chart of variance by seconds, and of what strata and weights save

    [common options]

    Examples:
      agrpo tune countdown
      agrpo tune 3f2a --k 1,2,4,8,24 --estimators agrpo,diffu-grpo --repeats 32
      agrpo tune 3f2a --iteration base --plot tune.svg
    ");
}

#[test]
fn wrong_requests_are_reported_in_one_line() {
    let program = finished();
    let error = |program: &Program, arguments: &[&str]| {
        let said = program.run(&[&["tune"], arguments].concat());
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        said.stderr.lines().next().unwrap().to_owned()
    };
    let wrong = |arguments: &[&str]| error(&program, arguments);
    insta::assert_snapshot!(wrong(&["puzzles", "--k", "0"]), @"error: invalid value '0' for '--k <LIST>': expected numbers from 1 to 65536 with commas between, as in 1,2,4,8,24");
    insta::assert_snapshot!(wrong(&["puzzles", "--repeats", "3"]), @"error: invalid value '3' for '--repeats <N>': 3 is not in 4..=65536");
    insta::assert_snapshot!(wrong(&["puzzles", "--prompts", "1"]), @"error: invalid value '1' for '--prompts <N>': 1 is not in 2..=65536");
    insta::assert_snapshot!(wrong(&["puzzles", "--estimators", "agrpo,ar-grpo"]), @r#"error: --estimators ar-grpo: rollout.block_tokens = 16: expected 1: estimator.kind = "ar-grpo" writes tokens from left to right"#);
    insta::assert_snapshot!(wrong(&["puzzles", "--estimators", "grpo"]), @"error: invalid value 'grpo' for '--estimators <LIST>'");
    insta::assert_snapshot!(wrong(&["puzzles", "--plot", "chart.png"]), @"error: --plot chart.png: expected a name that ends in .svg");
    std::fs::create_dir(program.folder().join("d.svg")).unwrap();
    insta::assert_snapshot!(wrong(&["puzzles", "--plot", "d.svg", "--json"]), @"error: d.svg: cannot write there: is a folder, expected a regular file; name another place");
    assert!(wrong(&["absent"]).contains("has the name `absent`"));

    // A base that solves nothing: no completion differs from its group.
    let hopeless = Program::new(&[]);
    hopeless.json(&["run", "run.toml", "--json"]);
    insta::assert_snapshot!(error(&hopeless, &["bytes", "--prompts", "2"]), @"error: none of the 16 completions has an advantage: all of a prompt's earned the same, so there is no gradient to estimate");
    let said = hopeless.run(&["tune", "bytes", "--prompts", "2"]);
    assert!(said.stderr.contains("hint: --prompts N: more prompts"), "{}", said.stderr);
}
