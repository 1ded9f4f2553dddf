//! `agrpo evaluate`: the grid as JSON and as text, what is reused, the chart, and wrong requests.

use serde_json::Value;

use crate::support::program::Program;

/// A folder in which the run is done.
fn finished() -> Program {
    let program = Program::new(&[]);
    program.json(&["run", "run.toml", "--json"]);
    program
}

/// The only run's index.
fn index(program: &Program) -> std::path::PathBuf {
    let runs = std::fs::read_dir(program.store().join("runs")).unwrap();
    let [run] = runs.map(|entry| entry.unwrap().path()).collect::<Vec<_>>().try_into().unwrap();
    run.join("stages")
}

/// The result of `look` while the record of a stage of the run is missing.
fn without_record<T>(program: &Program, stage: &str, look: impl Fn() -> T) -> T {
    let names = std::fs::read_dir(index(program)).unwrap();
    let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let name = names.find(|name| name.starts_with(stage)).unwrap();
    let record = program.store().join("stages").join(name.split_once('.').unwrap().1);
    let bytes = std::fs::read(&record).unwrap();
    std::fs::remove_file(&record).unwrap();
    let seen = look();
    std::fs::write(record, bytes).unwrap();
    seen
}

fn share(row: &Value) -> f64 {
    row["accuracy"]["share"].as_f64().unwrap()
}

#[test]
fn a_greedy_grid_is_computed_once_and_agrees_with_the_run() {
    let program = finished();
    let report = program.json(&["evaluate", "bytes", "--plot", "a.svg", "--json"]);
    let rows = report["evaluations"].as_array().unwrap();
    let cell = |row: &Value| (row["iteration"].as_u64(), row["steps"].as_u64());
    let cells: Vec<_> = rows.iter().map(cell).collect();
    let expected = [0, 4].map(|policy| [8, 4, 2, 1].map(|steps| (Some(policy), Some(steps))));
    assert_eq!(cells, expected.concat());
    for row in rows {
        let interval = &row["accuracy"]["interval"];
        let (low, high) = (interval["low"].as_f64().unwrap(), interval["high"].as_f64().unwrap());
        assert!(low <= share(row) && share(row) <= high && low < high, "{row}");
        assert_eq!(row["solved_by"].as_array().unwrap().len(), 2, "greedy: one completion each");
        let tokens = row["tokens_per_step"].as_u64().unwrap();
        assert_eq!(tokens * row["steps"].as_u64().unwrap(), 8);
    }
    let status = program.json(&["status", "--json"]);
    let accuracy = &status["runs"][0]["accuracy"];
    assert_eq!(accuracy["base"].as_f64(), Some(share(&rows[0])));
    assert_eq!(accuracy["latest"].as_f64(), Some(share(&rows[4])));
    assert_eq!(report["trade"]["base_accuracy"].as_f64(), Some(share(&rows[0])));
    assert_eq!(report["stages"], serde_json::json!({ "computed": 8, "reused": 0 }));

    let again = program.json(&["evaluate", "bytes", "--plot", "b.svg", "--json"]);
    assert_eq!(again["stages"], serde_json::json!({ "computed": 0, "reused": 8 }));
    let chart = |name: &str| std::fs::read_to_string(program.folder().join(name)).unwrap();
    assert!(chart("a.svg").starts_with("<svg "));
    assert_eq!(chart("a.svg"), chart("b.svg"));

    let stage = rows[5]["stage"].as_str().unwrap();
    let replayed = program.run(&["replay", stage]);
    assert_eq!(replayed.code, Some(0), "{}{}", replayed.stdout, replayed.stderr);
}

#[test]
fn a_sampled_grid_measures_what_several_completions_are_worth() {
    let program = finished();
    let mut question = vec!["evaluate", "bytes", "--steps", "2,8", "--problems", "6"];
    question.extend(["--temperature", "1", "--samples", "5", "--position", "random"]);
    let json = |extra: &[&str]| program.json(&[&question, extra].concat());
    let report = json(&["--json", "--workers", "1"]);
    let rows = report["evaluations"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows {
        let solved_by: Vec<u64> =
            row["solved_by"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        assert_eq!((solved_by.len(), solved_by.iter().sum::<u64>()), (6, 6));
        let correct: u64 = (0..).zip(&solved_by).map(|(right, n)| right * n).sum();
        assert_eq!(row["correct"].as_u64(), Some(correct));
        let tries: Vec<_> = row["pass_at"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(tries, ["1", "2", "4", "5"]);
    }
    let said = program.run(&question);
    assert!(said.stdout.contains("pass@4"), "{}", said.stdout);
    assert!(said.stderr.contains("evaluation 4/4  "), "{}", said.stderr);
    assert_eq!(said.stderr.matches("(stored)").count(), 4, "{}", said.stderr);

    // A lost record is not computed again.
    for stage in ["update-000004", "sft-000001"] {
        let said = without_record(&program, stage, || program.run(&question));
        assert_eq!((said.code, said.stdout.as_str()), (Some(5), ""), "{stage}: {}", said.stderr);
        let first = said.stderr.lines().next().unwrap();
        assert!(first.starts_with(&format!("error: {stage}: stages/")), "{first}");
        assert!(first.contains(" is missing in "), "{first}");
        assert!(said.stderr.contains("hint: agrpo run FILE"), "{}", said.stderr);
    }

    // Records count without the index.
    let mut records = vec![];
    for entry in std::fs::read_dir(index(&program)).unwrap() {
        let path = entry.unwrap().path();
        if let Some(entry) = path.file_name().unwrap().to_str().unwrap().strip_prefix("update-") {
            records.push(program.store().join("stages").join(entry.split_once('.').unwrap().1));
            std::fs::remove_file(path).unwrap();
        }
    }
    assert_eq!(json(&["--json"])["evaluations"].as_array().unwrap().len(), 4);
    // Without an update there is a base to measure, and without that nothing.
    for record in records {
        std::fs::remove_file(record).unwrap();
    }
    let report = json(&["--json"]);
    assert_eq!(report["evaluations"].as_array().unwrap().len(), 2);
    assert_eq!(report["trade"], Value::Null);
    std::fs::remove_dir_all(program.store().join("stages")).unwrap();
    std::fs::remove_dir_all(index(&program)).unwrap();
    let said = program.run(&question);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    assert!(said.stderr.contains("0 of its 2 sft stages are done"), "{}", said.stderr);
}

/// With a cache the grid is the same grid; with a threshold it is one cell, and passes are counted.
#[test]
fn faster_decoding_is_measured_in_passes() {
    let program = finished();
    let rows = |options: &[&str]| {
        let report = program.json(&[&["evaluate", "bytes", "--json"], options].concat());
        let rows = report["evaluations"].as_array().unwrap();
        rows.iter()
            .map(|row| (row["steps"].as_u64(), row["passes"].as_f64().unwrap()))
            .collect::<Vec<_>>()
    };
    let exact = [(Some(8), 8.0), (Some(4), 4.0), (Some(2), 2.0), (Some(1), 1.0)];
    assert_eq!(rows(&["--cache", "dual"]), [exact, exact].concat());
    let [(_, base), (most, newest)] = rows(&["--threshold", "0.4"])[..] else { panic!("two rows") };
    assert_eq!(most, Some(8));
    assert!((1.0..8.0).contains(&base) && (1.0..8.0).contains(&newest), "{base}, {newest}");
    let said = program.run(&["evaluate", "bytes", "--threshold", "0.4", "--cache", "prefix"]);
    let title = said.stdout.lines().next().unwrap_or_default().split_once("): ").unwrap().1;
    assert_eq!(title, "32 held-out problems, greedy, prefix cache, threshold 0.4");
    assert!(said.stdout.contains("<= 8") && said.stdout.contains(">= 1"), "{}", said.stdout);
}

#[test]
fn wrong_requests_are_reported_in_one_line() {
    let program = finished();
    let error = |arguments: &[&str]| {
        let said = program.run(&[&["evaluate"], arguments].concat());
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        let store = program.store().canonicalize().unwrap();
        said.stderr.lines().next().unwrap().replace(store.to_str().unwrap(), "[store]")
    };
    insta::assert_snapshot!(error(&["absent"]), @"error: no run in file://[store] has the name `absent` or an id that begins with it; `agrpo status` lists all runs");
    insta::assert_snapshot!(error(&["bytes", "--steps", "8,3"]), @"error: --steps 3: the run's completions of 8 tokens in 1 block can be unmasked in these numbers of steps: 8,4,2,1");
    insta::assert_snapshot!(error(&["bytes", "--steps", "x"]), @"error: invalid value 'x' for '--steps <LIST>': expected whole numbers with commas between, as in 8,4,2");
    insta::assert_snapshot!(error(&["bytes", "--problems", "100000"]), @"error: --problems 100000: the run's task has 47 held-out problems; expected at most that many");
    insta::assert_snapshot!(error(&["bytes", "--temperature", "0", "--samples", "2"]), @"error: invalid value '0' for '--temperature <T>': expected a number above 0; without the option, decoding is greedy");
    insta::assert_snapshot!(error(&["bytes", "--plot", "chart.png"]), @"error: --plot chart.png: expected a name that ends in .svg");
    insta::assert_snapshot!(error(&["bytes", "--plot", "nowhere/chart.svg"]), @"error: nowhere/chart.svg: cannot write there: no such file or directory; name another place");
    insta::assert_snapshot!(error(&["bytes", "--threshold", "1.5"]), @"error: invalid value '1.5' for '--threshold <P>': expected a probability above 0 and up to 1");
    insta::assert_snapshot!(error(&["bytes", "--threshold", "0.9", "--position", "random"]), @r#"error: evaluation.position = "random": expected "low-confidence": a threshold is one of confidence"#);
    std::fs::create_dir(program.folder().join("d.svg")).unwrap();
    insta::assert_snapshot!(error(&["bytes", "--plot", "d.svg"]), @"error: d.svg: cannot write there: is a folder, expected a regular file; name another place");
    assert!(!program.folder().join("chart.svg").exists(), "a wrong request leaves no file");
    for (given, missing) in [("--temperature", "--samples"), ("--samples", "--temperature")] {
        let said = program.run(&["evaluate", "bytes", given, "1"]);
        assert!(said.code == Some(2) && said.stderr.contains(missing), "{}", said.stderr);
    }
}
