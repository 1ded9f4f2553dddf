//! Records that are not what a run left: an index that names another run's stages, runs that cannot be read.

use std::path::{Path, PathBuf};

use crate::support::program::Program;

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Lets the index of a run name the stages of another one.
fn edit(own: &Path, other: &Path) {
    for name in names(&own.join("stages")) {
        std::fs::remove_file(own.join("stages").join(name)).unwrap();
    }
    for name in names(&other.join("stages")) {
        let (key, stage) = name.split_once('.').unwrap();
        std::fs::write(own.join("stages").join(&name), format!("{stage}\n")).unwrap();
        if key.starts_with("sft") || key.starts_with("update") {
            std::fs::write(own.join("policies").join(key), format!("{stage}\n")).unwrap();
        }
    }
}

#[test]
fn an_index_that_names_another_runs_stages_decides_nothing() {
    let program = Program::new(&[]);
    let own = program.json(&["run", "run.toml", "--json"]);
    program.change("seed = 7", "seed = 8");
    program.change("name = \"bytes\"", "name = \"other\"");
    let other = program.json(&["run", "run.toml", "--json"]);
    assert_ne!(own["policy"], other["policy"]);
    program.change("seed = 8", "seed = 7");
    program.change("name = \"other\"", "name = \"bytes\"");
    let folder = |run: &serde_json::Value| -> PathBuf {
        program.store().join("runs").join(run["run"].as_str().unwrap())
    };
    let wrong = names(&folder(&other).join("stages")).len();
    edit(&folder(&own), &folder(&other));

    let status = program.json(&["status", "bytes", "--json"]);
    assert_eq!(status["runs"][0]["policy"], own["policy"]);
    assert_eq!(status["runs"][0]["accuracy"]["latest"], own["accuracy"]["latest"]);
    let said = program.run(&["export", "bytes", "--format", "hf", "-o", "model", "--json"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let exported: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(exported["policy"], own["policy"]);
    let said = program.run(&["verify", "bytes", "--json"]);
    assert_eq!(said.code, Some(5), "{}", said.stderr);
    let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let corrupt = report["corrupt"].as_array().unwrap().iter();
    let entries = corrupt.filter(|found| found["object"].as_str().unwrap().contains("/stages/"));
    assert_eq!(entries.count(), wrong, "{report:#}");
    let said = program.run(&["replay", "--run", "bytes", "--json"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let replayed: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let stages = replayed["stages"].as_array().unwrap();
    assert_eq!(stages.len(), wrong, "as many stages, its own");
    let foreign = names(&folder(&other).join("stages"));
    for stage in stages {
        let end = format!(".{}", stage["stage"].as_str().unwrap());
        assert!(foreign.iter().all(|name| !name.ends_with(&end)), "{stage:#}");
    }
    let again = program.json(&["run", "run.toml", "--json"]);
    assert_eq!((&again["policy"], &again["stages"]["computed"]), (&own["policy"], &0.into()));
}

#[test]
fn a_run_that_cannot_be_read_is_a_row_and_asked_for_by_name_an_error() {
    let program = Program::new(&[]);
    let policy = program.json(&["run", "run.toml", "--json"])["policy"].clone();
    let (empty, garbage) = ("1".repeat(64), "2".repeat(64));
    for run in [&empty, &garbage] {
        std::fs::create_dir(program.store().join("runs").join(run)).unwrap();
    }
    std::fs::write(program.store().join(format!("runs/{garbage}/run.json")), "garbage").unwrap();
    let status = program.json(&["status", "--json"]);
    let rows = status["runs"].as_array().unwrap();
    let of = |run: &str| rows.iter().find(|row| row["run"] == run).unwrap();
    assert_eq!(of(&empty)["state"], "unreadable");
    assert!(of(&empty)["unreadable"].as_str().unwrap().contains("is missing"));
    assert!(of(&garbage)["unreadable"].as_str().unwrap().contains("is corrupt"));
    assert!(rows.iter().any(|row| row["policy"] == policy && row["unreadable"].is_null()));
    let said = program.run(&["status"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stdout.contains("111111111111: unreadable: runs/1111"), "{}", said.stdout);
    assert_eq!(program.run(&["status", &empty]).code, Some(5));
    assert_eq!(program.run(&["status", &garbage]).code, Some(5));
}
