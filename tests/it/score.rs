//! `agrpo score` by published rubrics: what a row says, what is refused, and the figures of thousands of
//! real completions, which lie beside the checkout or where `AGRPO_SHARED` says.

use std::path::{Path, PathBuf};

use insta::assert_snapshot;

use crate::cli::alone;
use crate::support::not_run::not_run;

fn score(task: &str, rubric: &str, rows: &str) -> String {
    let said = alone(&["score", "--task", task, "--rubric", rubric, "-"], rows);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    format!("{}{}", said.stdout, said.stderr)
}

#[test]
fn a_row_has_its_parts() {
    let row = "{\"ground_truth\": 18.0, \"completion\": \"<answer>\\\\boxed{18.0}</answer>\", \"id\": 5}\n";
    assert_snapshot!(score("gsm8k", "d1", row), @r#"
    {"completion":"<answer>\\boxed{18.0}</answer>","correct":false,"extracted":"\\boxed{18.0}","ground_truth":18.0,"id":5,"parts":{"correctness":0.0,"int":0.0,"soft_format":0.0,"strict_format":0.0,"xmlcount":0.0},"reward":0.0}
    1 row  reward 0.0000  correct 0.0% (0 of 1)
    "#);
    assert_snapshot!(score("gsm8k", "d1-eval", row), @r#"
    {"completion":"<answer>\\boxed{18.0}</answer>","correct":true,"extracted":18.0,"ground_truth":18.0,"id":5,"parts":{"correct":1.0},"reward":1.0}
    1 row  reward 1.0000  correct 100.0% (1 of 1)
    "#);
    assert_snapshot!(score("gsm8k", "agrpo", row), @r#"
    {"completion":"<answer>\\boxed{18.0}</answer>","correct":true,"extracted":"18.0","ground_truth":18.0,"id":5,"parts":{"answer_format":0.5,"correctness":3.0,"thinking_format":0.0},"reward":3.5}
    1 row  reward 3.5000  correct 100.0% (1 of 1)
    "#);
    let row = "{\"question\": \"Sudoku puzzle: 0204032001400402\", \"ground_truth\": \"1234432121433412\", \"completion\": \"<answer>12344321</answer>\"}\n";
    assert_snapshot!(score("sudoku", "d1-eval", row), @r#"
    {"completion":"<answer>12344321</answer>","correct":false,"correct_cells":4,"empty_cells":8,"extracted":"1234432100000000","ground_truth":"1234432121433412","parts":{"cells":0.5},"question":"Sudoku puzzle: 0204032001400402","reward":0.5}
    1 row  reward 0.5000  correct 0.0% (0 of 1)  cells 50.0% (4 of 8)
    "#);
    // Padded on the left; the mean of the shares is AGRPO's accuracy.
    let row = row.replace(">12344321<", ">4432121433412<");
    assert_snapshot!(score("sudoku", "agrpo-eval", &row), @r#"
    {"completion":"<answer>4432121433412</answer>","correct":false,"correct_cells":6,"empty_cells":8,"extracted":"4432121433412","ground_truth":"1234432121433412","parts":{"cells":0.75},"question":"Sudoku puzzle: 0204032001400402","reward":0.75}
    1 row  reward 0.7500  correct 0.0% (0 of 1)
    "#);
    let row = "{\"ground_truth\": [[17, 18, 5], 67], \"completion\": \"<answer>= 17 * 5 - 18 = 67</answer>\"}\n";
    assert_snapshot!(score("countdown", "agrpo-eval", row), @r#"
    {"completion":"<answer>= 17 * 5 - 18 = 67</answer>","correct":true,"extracted":"= 17 * 5 - 18 = 67","ground_truth":[[17,18,5],67],"parts":{"correct":1.0},"reward":1.0}
    1 row  reward 1.0000  correct 100.0% (1 of 1)
    "#);
}

#[test]
fn what_cannot_be_graded_is_named() {
    let refused = |arguments: &[&str], rows: &str| {
        let said = alone(&[&["score"], arguments, &["-"]].concat(), rows);
        format!("{}\n{}", said.code.unwrap(), said.stderr)
    };
    assert_snapshot!(refused(&["--task", "gsm8k"], ""), @r#"
    2
    error: this project has no rule of its own for this task: name one with --rubric d1, d1-eval, agrpo or agrpo-eval
    "#);
    let math = ["--task", "math", "--rubric", "d1"];
    assert_snapshot!(refused(&math, "\n{\"completion\": \"x\"}"), @r#"
    2
    error: standard input, line 2: no ground_truth: expected a JSON object such as {"question": "...", "ground_truth": ..., "completion": "..."}
    "#);
    assert_snapshot!(refused(&math, "{\"completion\": \"x\", \"ground_truth\": 3}"), @r#"
    2
    error: standard input, line 1: ground_truth = 3: expected LaTeX as a string that is not empty
    "#);
    let sudoku = ["--task", "sudoku", "--rubric", "agrpo"];
    let row =
        "{\"completion\": \"x\", \"question\": \"?\", \"ground_truth\": \"1234432121433412\"}";
    assert_snapshot!(refused(&sudoku, row), @r#"
    2
    error: standard input, line 1: question = "?": expected a puzzle of 16 digits from 0 to 4, with a 0 among them and the solution's digits elsewhere
    "#);
}

#[test]
fn a_byte_order_mark_is_passed_over_and_what_json_has_not_is_named() {
    let rows = "\u{feff}{\"ground_truth\": \"5\", \"completion\": \"<answer>\\\\boxed{5}</answer>\"}\n{\"ground_truth\": \"6\", \"completion\": \"6\"}\n";
    let said = score("math", "agrpo", rows);
    assert!(said.ends_with("2 rows  reward 3.2500  correct 100.0% (2 of 2)\n"), "{said}");
    let row = "{\"ground_truth\":\"5\",\"completion\":\"5\",\"logp\":NaN}";
    let said = alone(&["score", "--task", "math", "--rubric", "agrpo", "-"], row);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("line 1: "), "{}", said.stderr);
    for truth in ["seven", "no marker 5", "nan"] {
        let row = format!("{{\"ground_truth\": \"{truth}\", \"completion\": \"5\"}}");
        let said = alone(&["score", "--task", "gsm8k", "--rubric", "d1", "-"], &row);
        assert_eq!(said.code, Some(2));
        let expected = format!("line 1: ground_truth = \"{truth}\": expected a number");
        assert!(said.stderr.contains(&expected), "{}", said.stderr);
    }
}

#[test]
fn rows_are_bounded_and_exact() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl");
    let graded = |rows: &str| {
        std::fs::write(&file, rows).unwrap();
        let name = file.to_str().unwrap();
        let said = alone(&["score", "--task", "gsm8k", "--rubric", "d1-eval", name], "");
        (said.code.unwrap(), said.stderr.replace(name, "rows.jsonl"))
    };
    let row = "{\"ground_truth\": \"5\", \"completion\": \"5\"}\n";
    assert_eq!(graded(&format!("\u{feff}{row}{row}")).0, 0);
    let mut messages = vec![];
    for bad in [
        format!("{{\"completion\": \"{}\"}}\n", "x".repeat(40 << 20)),
        "[".repeat(100_000),
        format!("{{\"a\": {}}}", "[".repeat(100_000)),
        "{\"ground_truth\": 123456789012345678901, \"completion\": \"\"}".to_owned(),
        "{\"completion\": \"a\", \"completion\": \"b\"}".to_owned(),
    ] {
        let (code, said) = graded(&format!("{row}{bad}"));
        assert_eq!(code, 2, "{said}");
        messages.push(said.split("; expected a JSON").next().unwrap().to_owned());
    }
    assert_snapshot!(messages.join("\n"), @r#"
    error: rows.jsonl, line 2: more than 16777216 bytes
    error: rows.jsonl, line 2: invalid type: sequence, expected a map at line 1 column 0
    error: rows.jsonl, line 2: lists and objects nest deeper than 64 at line 1 column 70
    error: rows.jsonl, line 2: column "ground_truth": the integer 123456789012345678901 has more than 64 bits: write it as text
    error: rows.jsonl, line 2: the key "completion" stands twice at line 1 column 32
    "#);
}

/// A file beside the checkout; `None`, after a line that says so, where there is no such folder.
#[expect(clippy::disallowed_methods, reason = "a variable of tests alone")]
fn shared(what: &str) -> Option<PathBuf> {
    let beside = || format!("{}/../shared", env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::var("AGRPO_SHARED").unwrap_or_else(|_| beside());
    if !Path::new(&folder).exists() {
        not_run(&format!("all rows of {what}: there is no folder {folder}"));
        return None;
    }
    let path = Path::new(&folder).join(what);
    assert!(path.exists(), "{} is not there, and its folder is", path.display());
    Some(path)
}

#[test]
fn figures_of_published_generations() {
    for (file, task, expected) in [
        ("countdown_128", "countdown", "(53 of 256)"),
        ("countdown_256", "countdown", "(50 of 256)"),
        ("gsm8k_128", "gsm8k", "(783 of 1130)"),
        ("gsm8k_256", "gsm8k", "(863 of 1130)"),
        ("math500_128", "math", "(130 of 500)"),
        ("math500_256", "math", "(162 of 500)"),
        ("sudoku_128", "sudoku", "(240 of 2048)"),
        ("sudoku_256", "sudoku", "(137 of 2048)"),
    ] {
        let Some(path) = shared(&format!("fixtures/graded/{file}.jsonl")) else { continue };
        let rows = std::fs::read_to_string(&path).unwrap();
        let path = path.to_str().unwrap();
        let said = alone(&["score", "--task", task, "--rubric", "d1-eval", path], "");
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        assert!(said.stderr.trim_end().ends_with(expected), "{file}: {}", said.stderr);
        assert_eq!(said.stdout.lines().count(), rows.lines().count());
    }
}
