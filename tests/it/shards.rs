//! Evaluations in shards by the program itself: the rows, grades and accuracies of one stage over all problems, on one
//! machine and on a fleet, killed and resumed, replayed, and as a grid.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use agrpo_spec::{Evaluation, Manifest, StageKey, StageKind, Together};
use serde_json::Value;

use crate::support::program::{Program, RUN};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

/// As many problems as a document shows completions of, at most: every row is compared.
const PROBLEMS: u32 = 16;

/// `run.toml` evaluates in one stage, `shards.toml` in as many as asked.
fn program(environment: &[(&str, &str)], shards: u32) -> Program {
    let program = Program::new(environment);
    let whole = RUN.replace("problems = 32\n", &format!("problems = {PROBLEMS}\n"));
    let write =
        |name: &str, text: String| std::fs::write(program.folder().join(name), text).unwrap();
    let problems = format!("problems = {PROBLEMS}\n");
    write("shards.toml", whole.replace(&problems, &format!("{problems}shards = {shards}\n")));
    write("run.toml", whole);
    program
}

/// The run's evaluations by their keys: records and documents.
fn evaluations(program: &Program, run: &str) -> BTreeMap<StageKey, (Manifest, Evaluation)> {
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    let index = std::fs::read_dir(program.store().join("runs").join(run).join("stages")).unwrap();
    let entry = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let (key, stage) = name.split_once('.')?;
        let key: StageKey =
            key.parse().ok().filter(|key: &StageKey| key.kind == StageKind::Evaluation)?;
        let record = read(program.store().join("stages").join(stage));
        let manifest = Manifest::open(stage.parse().unwrap(), &record).unwrap().value;
        let blob = manifest.output("evaluation").unwrap().to_string();
        let document = Evaluation::from_bytes(&read(program.store().join("cas").join(blob)));
        Some((key, (manifest, document.unwrap())))
    };
    index.filter_map(entry).collect()
}

/// What a run's evaluations add up to, by iteration: the document's bytes and the metrics.
fn joined(program: &Program, run: &str) -> BTreeMap<u32, (Vec<u8>, BTreeMap<String, f64>)> {
    let all = evaluations(program, run);
    let iterations = all.keys().map(|key| key.iteration);
    let of = |iteration| {
        let parts = all.iter().filter(|(key, _)| key.iteration == iteration);
        let (metrics, documents): (Vec<_>, Vec<_>) =
            parts.map(|(_, (manifest, document))| (&manifest.metrics, document)).unzip();
        let document = Evaluation::whole(&documents).unwrap();
        (iteration, (document.to_bytes(), BTreeMap::whole(&metrics).unwrap()))
    };
    iterations.map(of).collect()
}

fn run(program: &Program, file: &str) -> (String, Value) {
    let said = program.json(&["run", file, "--json"]);
    (said["run"].as_str().unwrap().to_owned(), said)
}

#[test]
fn shards_leave_the_rows_and_the_accuracies_of_one_stage() {
    let program = program(&[], 3);
    let (whole, said) = run(&program, "run.toml");
    let (shards, in_shards) = run(&program, "shards.toml");
    assert_eq!(in_shards["accuracy"], said["accuracy"]);
    assert_eq!(in_shards["policy"], said["policy"]);
    assert_eq!(in_shards["stages"]["computed"], 9, "the training is shared: {in_shards}");
    assert_eq!(evaluations(&program, &shards).len(), 9);
    let expected = joined(&program, &whole);
    let samples = |bytes: &[u8]| Evaluation::from_bytes(bytes).unwrap().samples.len();
    assert!(expected.values().all(|(bytes, _)| samples(bytes) == PROBLEMS as usize));
    assert_eq!(joined(&program, &shards), expected);

    // What a person is shown does not depend on the shards either.
    let exported = |run: &str| {
        let path = format!("{run}.csv");
        program.json(&["export", run, "--format", "csv", "-o", &path, "--json"]);
        let text = std::fs::read_to_string(program.folder().join(path)).unwrap();
        let (head, rows) = text.split_once('\n').unwrap();
        let columns: Vec<_> = head.split(',').map(|name| name.starts_with("eval/")).collect();
        assert!(columns.contains(&true), "{head}");
        let kept = |row: &str| -> Vec<String> {
            let cells = row.split(',').zip(&columns).filter(|(_, is_kept)| **is_kept);
            cells.map(|(cell, _)| cell.to_owned()).collect()
        };
        rows.lines().map(kept).collect::<Vec<_>>()
    };
    assert_eq!(exported(&shards), exported(&whole));

    let (key, (manifest, _)) = evaluations(&program, &shards).pop_last().unwrap();
    assert_eq!(key.to_string(), "evaluation-000004-02");
    let replayed = program.run(&["replay", &manifest.stage.to_string()]);
    assert_eq!(replayed.code, Some(0), "{}{}", replayed.stdout, replayed.stderr);
    assert!(replayed.stdout.trim_end().ends_with("identical"), "{}", replayed.stdout);
}

fn status(program: &Program) -> Value {
    program.json(&["status", "--json"])["runs"][0].clone()
}

/// A run that was killed once the first shard of its first evaluation was stored; `None` where it was done with all of
/// them by then.
fn killed() -> Option<Program> {
    let program = program(&[], PROBLEMS);
    let mut child = program.start(&["run", "shards.toml", "--workers", "1"]);
    let entries = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let has_shard = || {
        let runs = entries(program.store().join("runs"));
        let mut stages = runs.flat_map(|run| entries(run.path().join("stages")));
        stages.any(|stage| stage.file_name().to_string_lossy().starts_with("evaluation-000000-"))
    };
    while !has_shard() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    status(&program).get("partial_evaluations").is_some().then_some(program)
}

/// A killed process leaves some of the shards; the next one adds the rest.
#[test]
fn a_run_that_is_killed_between_shards_ends_with_the_same_accuracies() {
    let program = (0..5).find_map(|_| killed()).expect("a moment between two shards");
    let partial = &status(&program)["partial_evaluations"][0];
    assert_eq!((&partial["iteration"], &partial["shards"]), (&Value::from(0), &PROBLEMS.into()));
    let said = program.run(&["status"]);
    assert!(said.stdout.contains(&format!("of {PROBLEMS} shards")), "{}", said.stdout);
    let (shards, _) = run(&program, "shards.toml");
    let (whole, _) = run(&program, "run.toml");
    assert_eq!(joined(&program, &shards), joined(&program, &whole));
    assert_eq!(status(&program).get("partial_evaluations"), None);
}

/// Of an evaluation that an earlier process left undone, a later update was made.
#[test]
fn a_resumed_run_shows_the_accuracy_of_an_evaluation_that_it_completes() {
    let program = program(&[], 3);
    let first = program.run(&["run", "shards.toml", "--workers", "1"]);
    let accuracies = |stderr: &str, of: &str| -> Vec<String> {
        let lines = stderr.lines().filter(|line| line.starts_with(of));
        lines.map(|line| line.split("  ").nth(1).unwrap().to_owned()).collect()
    };
    let shown = accuracies(&first.stderr, "evaluation of iteration 2");
    let [.., accuracy] = &*shown else { panic!("{}", first.stderr) };
    assert!(accuracy.starts_with("accuracy "), "{accuracy}");
    let base = accuracies(&first.stderr, "iteration 1/4");
    assert!(
        base[0].starts_with("accuracy ") && !base[0].contains("->"),
        "the base alone: {base:?}"
    );
    let later = accuracies(&first.stderr, "iteration 4/4");
    assert!(later[0].contains(" -> "), "{later:?}");

    let (run, _) = run(&program, "shards.toml");
    let (key, (manifest, _)) = evaluations(&program, &run).into_iter().nth(4).unwrap();
    assert_eq!(key.to_string(), "evaluation-000002-01");
    let index = format!("runs/{run}/stages/{key}.{}", manifest.stage);
    for file in [index, format!("stages/{}", manifest.stage)] {
        std::fs::remove_file(program.store().join(file)).unwrap();
    }
    let resumed = program.run(&["run", "shards.toml", "--workers", "1"]);
    assert_eq!(accuracies(&resumed.stderr, "evaluation of iteration 2"), [&**accuracy]);
}

#[test]
fn a_fleet_of_two_workers_shares_the_shards() {
    let redis = RedisServer::start(&[]);
    let program = program(&[("AGRPO_REDIS", &redis.url())], 3);
    let enqueued = program.json(&["enqueue", "shards.toml", "--json"]);
    let shards = enqueued["run"].as_str().unwrap();
    let mut workers = [0, 1].map(|_| program.start(&["worker", "--exit-when-idle", "8"]));
    for worker in &mut workers {
        let ended = wait_for("the end of a worker", || worker.try_wait().unwrap());
        assert!(ended.success());
    }
    assert_eq!(program.policy().1, "done");
    let (whole, said) = run(&program, "run.toml");
    assert_eq!(said["stages"]["computed"], 3, "only the evaluations in one stage: {said}");
    assert_eq!(joined(&program, shards), joined(&program, &whole));
}

#[test]
fn a_grid_in_shards_has_the_numbers_of_one_in_whole_stages() {
    let program = program(&[], 3);
    run(&program, "run.toml");
    let grid = |more: &[&str]| {
        let mut report =
            program.json(&[&["evaluate", "bytes", "--steps", "8,2", "--json"], more].concat());
        report["evaluations"].as_array_mut().unwrap().iter_mut().for_each(|row| {
            let row = row.as_object_mut().unwrap();
            let shards = row.remove("shards").map_or(1, |shards| shards.as_array().unwrap().len());
            let asked = more.iter().skip_while(|word| **word != "--shards").nth(1);
            assert_eq!(shards, asked.map_or(1, |shards| shards.parse().unwrap()));
            row.remove("stage");
        });
        (report["evaluations"].clone(), report["stages"]["computed"].as_u64())
    };
    let (whole, computed) = grid(&[]);
    assert_eq!(computed, Some(4));
    assert_eq!(grid(&["--shards", "3"]), (whole.clone(), Some(12)));
    let sampled = ["--problems", "11", "--temperature", "1", "--samples", "5"];
    let (drawn, _) = grid(&sampled);
    assert_eq!(grid(&[&["--shards", "4"], &sampled[..]].concat()).0, drawn);
    let said = program.run(&["evaluate", "bytes", "--steps", "8", "--shards", "3"]);
    assert!(said.stdout.contains(" and 2 more"), "{}", said.stdout);
    assert!(said.stderr.contains("of problems 7 to 11"), "{}", said.stderr);
    let error = |shards: &str| {
        let said = program.run(&["evaluate", "bytes", "--shards", shards]);
        assert_eq!(said.code, Some(2), "{}", said.stderr);
        said.stderr.lines().next().unwrap().to_owned()
    };
    insta::assert_snapshot!(error("17"), @"error: --shards 17: expected at most one for each of 16 problems");
    insta::assert_snapshot!(error("0"), @"error: invalid value '0' for '--shards <N>': 0 is not in 1..=1048576");
}
