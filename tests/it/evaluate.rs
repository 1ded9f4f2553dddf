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

fn names(row: &Value) -> (u64, &str) {
    (row["iteration"].as_u64().unwrap(), row["cell"].as_str().unwrap())
}

#[test]
fn a_grid_is_one_table_of_lengths_and_steps_with_the_best_policy_of_each_column() {
    let program = finished();
    // A cell that is named twice is measured once; a length alone has half as many steps.
    let question = ["evaluate", "bytes", "--grid", "8x8,16,8x2,16x8", "--iteration", "all"];
    let report = program.json(&[&question[..], &["--json"]].concat());
    let rows = report["evaluations"].as_array().unwrap();
    let of_policy = |iteration: u64| ["8x8", "16x8", "8x2"].map(|cell| (iteration, cell));
    let expected: Vec<_> = (0..=4).flat_map(of_policy).collect();
    assert_eq!(rows.iter().map(names).collect::<Vec<_>>(), expected);
    assert_eq!(report["stages"], serde_json::json!({ "computed": 15, "reused": 0 }));
    let status = program.json(&["status", "--json"]);
    let accuracy = &status["runs"][0]["accuracy"];
    assert_eq!((&rows[0]["score"], &rows[12]["score"]), (&accuracy["base"], &accuracy["latest"]));
    let score = |row: &Value| row["score"].as_f64().unwrap();
    assert!(rows.iter().all(|row| score(row) == share(row)), "no answer earns parts of points");
    let best = report["best"].as_array().unwrap();
    for (best, column) in best.iter().zip(["8x8", "16x8", "8x2"]) {
        let trained = |row: &&Value| names(row).1 == column && names(row).0 > 0;
        let most = rows.iter().filter(trained).map(score).fold(0.0, f64::max);
        let first = rows.iter().filter(trained).find(|row| score(row) == most).unwrap();
        assert_eq!((names(best), score(best)), (names(first), most));
    }

    let said = program.run(&question);
    assert_eq!(said.stderr.matches("(stored)").count(), 15, "{}", said.stderr);
    assert!(said.stderr.contains("iteration 4, 16x8  accuracy"), "{}", said.stderr);
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert!(lines[0].ends_with("32 held-out problems, greedy, blocks of 8 tokens"), "{}", lines[0]);
    let first = |line: &&str| line.split("  ").next().unwrap().to_owned();
    let firsts: Vec<_> = lines[2..].iter().map(first).collect();
    let policies = ["base", "iteration 1", "iteration 2", "iteration 3", "iteration 4"];
    assert_eq!(firsts, [&["policy"][..], &policies, &["best"]].concat());
    let cells = lines[2].split_whitespace().collect::<Vec<_>>();
    assert_eq!(cells, ["policy", "8x8", "16x8", "8x2"]);
    let (iteration, share) = (best[0]["iteration"].as_u64().unwrap(), score(&best[0]));
    let shown = format!("iteration {iteration}");
    assert!(lines[8].contains(&format!("{:.1}% (", 100.0 * share)), "{}", lines[8]);
    assert!(lines[8].contains(&shown), "{}", lines[8]);

    let said = program.run(&["evaluate", "bytes", "--grid", "8x8", "--iteration", "best,base"]);
    let firsts: Vec<_> = said.stdout.lines().skip(2).map(|line| first(&line)).collect();
    assert_eq!(firsts, ["policy", "base", "best"]);
    // Blocks of other lengths allow other steps, and are other evaluations.
    let blocks = ["evaluate", "bytes", "--grid", "8x8", "--block-tokens", "4", "--json"];
    let report = program.json(&blocks);
    assert_eq!((&report["block_tokens"], &report["stages"]["computed"]), (&4.into(), &2.into()));
    assert_eq!(report["best"], Value::Null, "one trained policy is no choice");
}

/// What retention deleted is neither measured by mistake nor computed again without being asked for.
#[test]
fn policies_are_chosen_among_those_that_retention_has_left() {
    let program = Program::new(&[]);
    let path = program.folder().join("run.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, format!("{text}\n[retention]\nkeep_policies = 4\n")).unwrap();
    program.json(&["run", "run.toml", "--json"]);
    let measured = |choice: &str| -> Vec<u64> {
        let report =
            program.json(&["evaluate", "bytes", "--steps", "8", "--iteration", choice, "--json"]);
        report["evaluations"].as_array().unwrap().iter().map(|row| names(row).0).collect()
    };
    assert_eq!(measured("all"), [0, 3, 4]);
    assert_eq!(measured("3,latest,base,4"), [0, 3, 4]);
    assert_eq!(measured("3"), [3]);
    let refused = |choice: &str, code: i32| {
        let said = program.run(&["evaluate", "bytes", "--iteration", choice]);
        assert_eq!((said.code, said.stdout.as_str()), (Some(code), ""), "{}", said.stderr);
        said.stderr
    };
    let deleted = refused("1", 5);
    assert!(deleted.starts_with("error: --iteration 1: the retention of "), "{deleted}");
    assert!(deleted.contains("--rewind computes it again"), "{deleted}");
    let absent = refused("9", 2);
    assert!(absent.contains("has come to iteration 4; expected base, latest, all"), "{absent}");
}

/// The same figures by `evaluation.grid` and by `--grid`, named by length and steps wherever steps are named.
#[test]
fn a_run_measures_the_grid_of_its_file_by_itself() {
    let program = Program::new(&[]);
    let path = program.folder().join("run.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let with_grid = text.replace("[evaluation]\n", "[evaluation]\ngrid = [\"16x8\", \"8x2\"]\n");
    assert_ne!(text, with_grid);
    std::fs::write(path, with_grid).unwrap();
    program.json(&["run", "run.toml", "--json"]);
    let report = program.json(&["evaluate", "bytes", "--grid", "8x8,16x8,8x2", "--json"]);
    let rows = report["evaluations"].as_array().unwrap();
    let said = program.run(&["export", "bytes", "--format", "jsonl", "-o", "-"]);
    let exported: Vec<Value> =
        said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for row in rows {
        let (iteration, cell) = names(row);
        let line = exported.iter().find(|line| line["iteration"] == iteration).unwrap();
        let metric = |name: &str| line[format!("eval/{name}@{cell}")].as_f64();
        assert_eq!(metric("accuracy"), Some(share(row)), "{cell}, {line}");
        let interval = &row["accuracy"]["interval"];
        assert_eq!(metric("accuracy_low"), interval["low"].as_f64(), "{cell}, {line}");
    }
    let status = program.json(&["status", "--json"]);
    let steps = ("eval/accuracy@8", &exported[0]["eval/accuracy@8"]);
    assert_eq!(steps, ("eval/accuracy@8", &status["runs"][0]["accuracy"]["base"]));
    assert_eq!(program.run(&["report", "bytes", "-o", "report.html"]).code, Some(0));
    let page = std::fs::read_to_string(program.folder().join("report.html")).unwrap();
    assert!(page.contains("16 tokens, 8 steps") && page.contains("8 tokens, 2 steps"));
    let names = std::fs::read_dir(index(&program)).unwrap();
    let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let evaluation = names.find(|name| name.starts_with("evaluation-000004")).unwrap();
    let said = program.run(&["show", evaluation.split_once('.').unwrap().1]);
    assert!(said.stdout.contains("accuracy_16x8"), "{}", said.stdout);
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
    insta::assert_snapshot!(error(&["bytes", "--grid", "8by4"]), @r#"error: invalid value '8by4' for '--grid <LIST>': "8by4": expected tokens and unmask steps of a completion as in "128x64", or tokens alone for half as many steps"#);
    insta::assert_snapshot!(error(&["bytes", "--grid", "8x8,12x4"]), @"error: --grid 12x4: evaluation.block_tokens = 8: expected a divisor of evaluation.completion_tokens = 12");
    insta::assert_snapshot!(error(&["bytes", "--grid", "16x1"]), @"error: --grid 16x1: evaluation.steps = 1: expected a multiple of the 2 block(s) that divides evaluation.completion_tokens = 16");
    insta::assert_snapshot!(error(&["bytes", "--grid", "16x8", "--threshold", "0.9"]), @"error: --grid 16x8: evaluation.steps = 8: expected the 16 tokens of a completion: with a threshold a step writes one token or more, so this is the most steps that there can be");
    insta::assert_snapshot!(error(&["bytes", "--protocol", "d1"]), @"error: --protocol d1: expected a run with [task.benchmark]; this run's task has one way of asking and grading");
    insta::assert_snapshot!(error(&["bytes", "--iteration", "best"]), @"error: --iteration best: expected --grid as well, each of whose columns has a best policy");
    insta::assert_snapshot!(error(&["bytes", "--iteration", "newest"]), @"error: invalid value 'newest' for '--iteration <LIST>': expected base, latest, all, best, or the number of an iteration");
    insta::assert_snapshot!(error(&["bytes", "--block-tokens", "3"]), @"error: --block-tokens 3: expected a divisor of the completion's 8 tokens");
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
