//! The answers of the verbs as a person reads them who pipes them on: text without colour, whole.
//!
//! Times, dates, sizes of records that hold times, and what names this machine are replaced. Digests are
//! not: the tiny run's results are the same everywhere.

use std::path::Path;

use insta::assert_snapshot;
use regex::Regex;

use crate::cli::{agrpo, with_a_run};

/// What a verb answers, told to a pipe; it has to succeed and to keep from colours.
fn answer(folder: &Path, arguments: &[&str]) -> String {
    let said = agrpo(folder, arguments, "");
    assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.stderr);
    assert!(!(said.stdout + &said.stderr).contains('\u{1b}'), "{arguments:?} is coloured");
    let mut text = agrpo(folder, arguments, "").stdout;
    for (pattern, with) in [
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC by \S+", "[date] by [worker]"),
        (r"(?m)^          on .*$", "          on [machine]"),
        (r"(?m)^          agrpo .*$", "          agrpo [version]"),
        (r"(?m)^took .*$", "took      [times]"),
        (r"\d+(\.\d+)? (ms|s)\b", "[time]"),
        (r"\d+(\.\d+)? kB\b", "[size]"),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, with).into_owned();
    }
    text
}

/// The first digest of a stage of the run, by its key.
fn stage(folder: &Path, key: &str) -> String {
    let run = agrpo(folder, &["show", "tiny", "--json"], "").stdout;
    let run: serde_json::Value = serde_json::from_str(&run).unwrap();
    run["stages"][key].as_str().unwrap().to_owned()
}

#[test]
fn what_is_shown_of_a_run_and_its_parts() {
    let (folder, _) = with_a_run();
    let folder = folder.path();
    let run = answer(folder, &["show", "tiny"]);
    assert_snapshot!(run.lines().filter(|line| line.starts_with('#')).collect::<Vec<_>>().join("\n"), @"");
    let rollout = answer(folder, &["show", &stage(folder, "rollout-000001-00")]);
    assert_snapshot!(rollout.split("\nspec:").next().unwrap(), @"");
    assert_snapshot!(rollout.split("completions").last().unwrap(), @"");
    let update = answer(folder, &["show", &stage(folder, "update-000001")]);
    assert_snapshot!(update.split("\nspec:").next().unwrap(), @"");
    let evaluation = answer(folder, &["show", &stage(folder, "evaluation-000001")]);
    assert_snapshot!(evaluation.split("\nspec:").next().unwrap(), @"");
}

#[test]
fn what_a_run_says_that_is_done() {
    let (folder, _) = with_a_run();
    let folder = folder.path();
    assert_snapshot!(answer(folder, &["run", "tiny.toml", "--workers", "1"]).replace(|c: char| c == '\t', " ").lines().filter(|line| !line.starts_with("seconds")).collect::<Vec<_>>().join("\n"), @"");
    assert_snapshot!(answer(folder, &["replay", &stage(folder, "reward-000001-00")]), @"");
    assert_snapshot!(answer(folder, &["evaluate", "tiny"]), @"");
}

#[test]
fn what_keeping_says() {
    let (folder, _) = with_a_run();
    let folder = folder.path();
    assert_snapshot!(answer(folder, &["verify", "tiny"]), @"");
    assert_snapshot!(answer(folder, &["gc", "--dry-run"]), @"");
    assert_snapshot!(answer(folder, &["forget", "tiny", "--dry-run"]), @"");
    assert_snapshot!(answer(folder, &["pause", "tiny"]), @"");
    assert_snapshot!(answer(folder, &["resume", "tiny"]), @"");
}

#[test]
fn the_doctor_looks_at_everything_and_says_how_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let said = agrpo(folder.path(), &["doctor"], "");
    assert!(!said.stdout.contains('\u{1b}'), "{}", said.stdout);
    let names: Vec<&str> =
        said.stdout.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_snapshot!(names.join(" "), @"");
    for line in said.stdout.lines() {
        let verdict = line.split_whitespace().next().unwrap();
        assert!(["ok", "note", "bad"].contains(&verdict), "{line}");
    }
}

#[test]
fn a_run_file_to_begin_with() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let first = agrpo(folder, &["init", "mine.toml", "--task", "sudoku", "--seed", "5"], "");
    assert_snapshot!(first.stdout, @"");
    let again = agrpo(folder, &["init", "mine.toml"], "");
    assert_snapshot!(format!("{:?}\n{}", again.code, again.stderr), @"");
    assert_eq!(agrpo(folder, &["init", "mine.toml", "--force"], "").code, Some(0));
    let printed = agrpo(folder, &["init", "-", "--name", "mine"], "").stdout;
    assert_eq!(
        printed.replace("run.toml", "mine.toml"),
        std::fs::read_to_string(folder.join("mine.toml")).unwrap()
    );
    for task in ["smoke", "countdown", "sudoku", "gsm8k", "math", "llada-countdown", "llada-sudoku"]
    {
        agrpo(folder, &["init", "any.toml", "--force", "--task", task], "");
        let said = agrpo(folder, &["run", "any.toml", "--dry-run"], "");
        assert_eq!(said.code, Some(0), "{task}: {}", said.stderr);
        assert!(said.stdout.contains("(any, "), "{task}: {}", said.stdout);
    }
}

#[test]
fn slips_are_answered_with_what_was_meant() {
    let (folder, _) = with_a_run();
    let folder = folder.path();
    let error = |arguments: &[&str]| {
        let said = agrpo(folder, arguments, "");
        assert_eq!(said.code, Some(2), "{arguments:?}");
        said.stderr
    };
    assert_snapshot!(error(&["status", "tniy"]), @"");
    assert_snapshot!(error(&["run", "tiny.toml", "--worker", "1"]), @"");
    assert_snapshot!(error(&["tune", "tiny", "--estimators", "agprpo"]), @"");
    let text = std::fs::read_to_string(folder.join("tiny.toml")).unwrap();
    std::fs::write(folder.join("slip.toml"), text.replace("group = 2", "groups = 2")).unwrap();
    assert_snapshot!(error(&["run", "slip.toml"]), @"");
    std::fs::write(folder.join("slip.toml"), text.replace("[task.countdown]", "[task.countdwn]"))
        .unwrap();
    assert_snapshot!(error(&["run", "slip.toml"]), @"");
}
