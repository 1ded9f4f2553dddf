//! Records that are not what a run left: an index and notes that name another run's stages, runs that cannot be
//! read.

use std::path::{Path, PathBuf};

use agrpo_spec::record;
use serde_json::{Value, json};

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
    let of_other = names(&folder(&other).join("stages"));
    for stage in stages {
        let end = format!(".{}", stage["stage"].as_str().unwrap());
        assert!(of_other.iter().all(|name| !name.ends_with(&end)), "{stage:#}");
    }
    let again = program.json(&["run", "run.toml", "--json"]);
    assert_eq!((&again["policy"], &again["stages"]["computed"]), (&own["policy"], &0.into()));
}

/// Lets a run name the stages of another one, in its index and in notes whose seals are right.
fn forge(own: &Path, other: &Path, is_edited: impl Fn(&str) -> bool) {
    let is_edited = |name: &String| is_edited(name.split('.').next().unwrap());
    for name in names(&own.join("stages")).iter().filter(|name| is_edited(name)) {
        std::fs::remove_file(own.join("stages").join(name)).unwrap();
    }
    for name in names(&other.join("stages")).iter().filter(|name| is_edited(name)) {
        std::fs::copy(other.join("stages").join(name), own.join("stages").join(name)).unwrap();
    }
    for key in names(&other.join("policies")).iter().filter(|name| is_edited(name)) {
        let bytes = std::fs::read(other.join("policies").join(key)).unwrap();
        let mut note = record::open::<Value>(&bytes).unwrap().value;
        note["run"] = json!(own.file_name().unwrap().to_str().unwrap());
        std::fs::write(own.join("policies").join(key), record::seal(&note)).unwrap();
    }
}

/// Every verb that names a policy or its stages names those of the run.
fn every_verb_names(program: &Program, own: &Value, of_other: &[String]) {
    for arguments in [vec!["status", "--json"], vec!["status", "bytes", "--json"]] {
        let status = program.json(&arguments);
        let mut rows = status["runs"].as_array().unwrap().iter();
        let row = rows.find(|row| row["name"] == "bytes").unwrap();
        assert_eq!((&row["policy"], &row["state"]), (&own["policy"], &json!("done")), "{row:#}");
        assert_eq!(row["accuracy"]["base"], own["accuracy"]["base"]);
        assert_eq!(row["accuracy"]["latest"], own["accuracy"]["latest"]);
    }
    let model = format!("model-{}", names(program.folder()).len());
    let exported = program.json(&["export", "bytes", "--format", "hf", "-o", &model, "--json"]);
    assert_eq!(exported["policy"], own["policy"]);
    let said = program.run(&["report", "bytes", "-o", "report.html"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let report = std::fs::read_to_string(program.folder().join("report.html")).unwrap();
    let shown = program.json(&["show", "bytes", "--json"]).to_string();
    let replayed = program.json(&["replay", "--run", "bytes", "--json"]).to_string();
    for stage in of_other {
        assert!(!report.contains(&stage[..12]) && !shown.contains(stage), "{stage}");
        assert!(!replayed.contains(stage), "{stage}");
    }
    assert_eq!(program.run(&["verify", "bytes"]).code, Some(5));
    let again = program.json(&["run", "run.toml", "--json"]);
    assert_eq!((&again["policy"], &again["stages"]["computed"]), (&own["policy"], &0.into()));
    assert_eq!(again["accuracy"], own["accuracy"]);
}

#[test]
fn notes_whose_seals_are_right_decide_nothing() {
    let program = Program::new(&[]);
    let own = program.json(&["run", "run.toml", "--json"]);
    let folder = |run: &Value| -> PathBuf {
        program.store().join("runs").join(run["run"].as_str().unwrap())
    };
    let saved = program.folder().join("saved");
    copy(&folder(&own), &saved);
    // One that shares nothing, and one that shares its base.
    for (from, to) in [("seed = 7", "seed = 8"), ("k = 4", "k = 2")] {
        program.change(from, to);
        program.change("name = \"bytes\"", "name = \"other\"");
        let other = program.json(&["run", "run.toml", "--json"]);
        assert_ne!(own["policy"], other["policy"]);
        program.change(to, from);
        program.change("name = \"other\"", "name = \"bytes\"");
        let stages_of = |run: &Path| -> Vec<String> {
            let names = names(&run.join("stages"));
            names.iter().map(|name| name.split_once('.').unwrap().1.to_owned()).collect()
        };
        let shared = stages_of(&saved);
        let mut of_other = stages_of(&folder(&other));
        of_other.retain(|stage| !shared.contains(stage));
        assert!(of_other.len() > 10);
        for part in ["", "update-000004", "update-000002"] {
            forge(&folder(&own), &folder(&other), |key| key.starts_with(part));
            every_verb_names(&program, &own, &of_other);
            std::fs::remove_dir_all(folder(&own)).unwrap();
            copy(&saved, &folder(&own));
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

#[test]
fn a_damaged_record_is_named_beside_what_the_others_say() {
    let program = Program::new(&[]);
    let run = program.json(&["run", "run.toml", "--json"]);
    let folder = program.store().join("runs").join(run["run"].as_str().unwrap());
    let index = names(&folder.join("stages"));
    let entry = index.iter().find(|name| name.starts_with("evaluation-000004")).unwrap();
    let object = format!("stages/{}", entry.split_once('.').unwrap().1);
    let path = program.store().join(&object);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"worker\"", "\"walker\"")).unwrap();
    for arguments in [vec!["status", "--json"], vec!["status", "bytes", "--json"]] {
        let row = program.json(&arguments)["runs"][0].clone();
        assert_eq!((&row["state"], &row["iteration"]), (&json!("done"), &json!(4)), "{row:#}");
        assert_eq!(row["policy"], run["policy"]);
        assert_eq!(row["accuracy"]["base"], run["accuracy"]["base"]);
        let lost = row["unreadable_records"].as_array().unwrap();
        assert_eq!((lost.len(), &lost[0]["object"]), (1, &json!(object)), "{row:#}");
        assert_eq!(lost[0]["key"], "evaluation-000004");
    }
    for arguments in [vec!["status"], vec!["status", "bytes"], vec!["show", "bytes"]] {
        let said = program.run(&arguments);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        let expected = format!("evaluation-000004: {object} in ");
        assert!(said.stdout.contains(&expected), "{arguments:?}: {}", said.stdout);
    }
    // A run makes it again.
    let again = program.json(&["run", "run.toml", "--json"]);
    assert_eq!((&again["accuracy"], &again["stages"]["computed"]), (&run["accuracy"], &1.into()));
    let row = program.json(&["status", "--json"])["runs"][0].clone();
    assert!(row["unreadable_records"].is_null(), "{row:#}");
}

/// Exports do not need a record that decides no result.
#[test]
fn a_damaged_record_that_is_no_stages_is_named_and_left_aside() {
    let program = Program::new(&[]);
    let run = program.json(&["run", "run.toml", "--json"])["run"].clone();
    let folder = program.store().join("runs").join(run.as_str().unwrap());
    std::fs::create_dir_all(folder.join("failures")).unwrap();
    let failure = format!("failures/{}", "0".repeat(64));
    for file in ["retention.json", "control.json", &failure] {
        std::fs::write(folder.join(file), b"{").unwrap();
        let shown = program.run(&["show", "bytes"]);
        assert_eq!(shown.code, Some(0), "{file}: {}", shown.stderr);
        let is_shown = file != "control.json";
        assert_eq!(shown.stdout.contains("# cannot be read: runs/"), is_shown, "{file}");
        let export = ["export", "bytes", "--format", "csv", "--force", "-o", "a.csv"];
        let exported = program.run(&export);
        assert_eq!(exported.code, Some(0), "{file}: {}", exported.stderr);
        std::fs::remove_file(folder.join(file)).unwrap();
    }
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
    // One of them may have the name.
    for verb in ["status", "show", "forget"] {
        let said = program.run(&[verb, "other"]);
        assert_eq!(said.code, Some(5), "{}", said.stderr);
        assert!(said.stderr.contains(&format!("runs/{garbage}/run.json")), "{}", said.stderr);
    }
    assert_eq!(program.run(&["show", "bytes"]).code, Some(0));
}
