//! `agrpo compare`: the page, the curves and the numbers of a small comparison, and wrong requests.

use std::time::SystemTime;

use serde_json::Value;

use crate::support::program::Program;

const FILE: &str = r#"# What a number of samples changes.
run = "run.toml"
seeds = [7, 8]
set.training.iterations = 2
set.evaluation.every = 1
[[variant]]
name = "two"
set.estimator.k = 2
[[variant]]
name = "all"
set.estimator.k = "all"
set.training.iterations = 1
"#;

const COMMAND: [&str; 4] = ["compare", "pair.toml", "--output", "out"];

/// A folder with a comparison and a folder for its page.
fn folder() -> Program {
    let program = Program::new(&[]);
    std::fs::write(program.folder().join("pair.toml"), FILE).unwrap();
    std::fs::create_dir(program.folder().join("out")).unwrap();
    program
}

fn written(program: &Program, ending: &str) -> String {
    std::fs::read_to_string(program.folder().join(format!("out/pair.{ending}"))).unwrap()
}

/// The records of all stages in the store, and when they were written.
fn records(program: &Program) -> Vec<(String, SystemTime)> {
    let entries = std::fs::read_dir(program.store().join("stages")).unwrap();
    let record = |entry: std::fs::DirEntry| {
        let written = entry.metadata().unwrap().modified().unwrap();
        (entry.file_name().into_string().unwrap(), written)
    };
    let mut all: Vec<_> = entries.map(|entry| record(entry.unwrap())).collect();
    all.sort();
    all
}

fn runs(numbers: &Value) -> Vec<&Value> {
    let variants = numbers["variants"].as_array().unwrap().iter();
    variants.flat_map(|variant| variant["runs"].as_array().unwrap()).collect()
}

#[test]
fn a_comparison_agrees_with_its_runs_and_is_computed_once() {
    let program = folder();
    let said = program.run(&COMMAND);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let numbers: Value = serde_json::from_str(&written(&program, "json")).unwrap();
    let named = |variant: &Value| variant["name"].as_str().unwrap().to_owned();
    let names: Vec<_> = numbers["variants"].as_array().unwrap().iter().map(named).collect();
    assert_eq!(names, ["two", "all"]);
    let all = runs(&numbers);
    let seeds: Vec<_> = all.iter().map(|run| run["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, [7, 8, 7, 8]);

    let status = program.json(&["status", "--json"]);
    assert_eq!(status["runs"].as_array().unwrap().len(), 4);
    for run in &all {
        let mut listed = status["runs"].as_array().unwrap().iter();
        let listed = listed.find(|listed| listed["run"] == run["run"]).unwrap();
        assert_eq!((&listed["state"], &listed["iteration"]), (&"done".into(), &run["iterations"]));
        let points = run["points"].as_array().unwrap();
        let [first, last] = [&points[0], &points[points.len() - 1]];
        assert_eq!(first["accuracy"]["8"], listed["accuracy"]["base"], "{run}");
        assert_eq!(last["accuracy"]["8"], listed["accuracy"]["latest"], "{run}");
        assert_eq!((&first["passes"], &first["seconds"]), (&0.0.into(), &0.0.into()));
        assert!(last["seconds"].as_f64() > Some(0.0), "{run}");
    }
    // A run none of whose groups differ in reward makes no pass; not all are like that.
    let passes =
        |run: &&Value| run["points"].as_array().unwrap().last().unwrap()["passes"].as_f64();
    assert!(all.iter().filter_map(passes).sum::<f64>() > 0.0, "{numbers}");
    // One base a seed, whatever a variant changes.
    for n in [0, 1] {
        assert_eq!(all[n]["points"][0]["accuracy"], all[n + 2]["points"][0]["accuracy"]);
    }

    let page = written(&program, "md");
    assert!(page.contains(said.stdout.trim_end()), "the page has the table:\n{page}");
    for part in ["# pair\n\nWhat a number", "Seeds 7, 8;", "on 32\n", "Made from `pair.toml` by"] {
        assert!(page.contains(part), "{part}:\n{page}");
    }
    let without_seconds = |line: &str| {
        let cells = line.strip_suffix(" |").and_then(|line| line.rsplit_once(" | "));
        match cells {
            Some((rest, seconds)) if seconds.parse::<f64>().is_ok() => format!("{rest} | [s] |"),
            _ => line.to_owned(),
        }
    };
    let lines: Vec<_> = said.stdout.lines().map(without_seconds).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    | variant | iterations | passes | gain at 8 steps | 8 steps, % | 4 steps, % | seconds |
    |---|--:|--:|--:|--:|--:|--:|
    | base | 0 | 0 | | 1.6 ± 2.2 | 1.6 ± 2.2 | |
    | two | 2 | 40 | 1.6 ± 2.2 | 3.1 ± 4.4 | 3.1 ± 4.4 | [s] |
    | all | 1 | 24 | 0.0 ± 0.0 | 1.6 ± 2.2 | 0.0 ± 0.0 | [s] |
    ");
    let chart = written(&program, "svg");
    assert!(chart.starts_with("<svg ") && chart.contains("base of seed 7"), "{chart}");

    let (before, files) = (records(&program), ["md", "svg", "json"].map(|e| written(&program, e)));
    let again = program.run(&COMMAND);
    assert_eq!((again.code, &again.stdout), (Some(0), &said.stdout), "{}", again.stderr);
    assert_eq!(records(&program), before, "nothing is computed again");
    // Seconds are those that the stages' records hold, so they are the same too.
    assert_eq!(["md", "svg", "json"].map(|ending| written(&program, ending)), files);
}

#[test]
fn wrong_requests_are_reported_in_one_line_before_anything_is_computed() {
    let program = folder();
    let error = |arguments: &[&str]| {
        let said = program.run(&[&["compare"], arguments].concat());
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        said.stderr.lines().next().unwrap().to_owned()
    };
    let write = |name: &str, from: &str, to: &str| {
        std::fs::write(program.folder().join(name), FILE.replace(from, to)).unwrap();
    };
    write("names.toml", r#""all""#, r#""two""#);
    write("problems.toml", "set.evaluation.every = 1", "set.evaluation.problems = 9999");
    write("key.toml", "set.evaluation.every = 1", "evry = 1");
    std::fs::create_dir(program.folder().join("out/key.md")).unwrap();
    std::fs::create_dir(program.folder().join("out/pair.svg")).unwrap();
    insta::assert_snapshot!(error(&["nowhere.toml"]), @"error: cannot read nowhere.toml: no such file or directory");
    insta::assert_snapshot!(error(&["-"]), @"error: -: a comparison names a run file beside it, expected a file, not standard input");
    insta::assert_snapshot!(error(&["names.toml"]), @"error: names.toml: two variants have the name `two`, expected different names");
    insta::assert_snapshot!(error(&["problems.toml"]), @"error: problems.toml: task.countdown: 9999 held-out problems were asked for, 47 were found and 20000 more draws brought no other: lower evaluation.problems, raise task.countdown.held_out, or widen the task");
    insta::assert_snapshot!(error(&["key.toml"]), @"error: key.toml: line 5, column 1: unknown key `evry`: expected one of run, seeds, set, variant");
    insta::assert_snapshot!(error(&["pair.toml", "--output", "nowhere"]), @"error: --output nowhere: there is no such folder");
    insta::assert_snapshot!(error(&["pair.toml", "--output", "out"]), @"error: out/pair.svg: cannot write there: is a folder, expected a regular file; name another place");
    assert!(!program.store().exists(), "nothing is computed");
}
