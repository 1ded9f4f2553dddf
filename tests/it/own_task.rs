//! A custom task: rows, templates, rules and a grading program; with a model from scratch and with a checkpoint; and
//! the errors when any of them is wrong.

use std::fs;
use std::sync::LazyLock;

use insta::assert_snapshot;

use crate::checkpoint::checkpoint;
use crate::lora::manifests;
use crate::support::program::{Program, Said};
use crate::support::run_file::run_file;

/// A model from scratch that sorts letters.
static RUN: LazyLock<String> = LazyLock::new(|| {
    let text = run_file(&[
        ("name", "\"letters\""),
        ("task.countdown.train", "{ from = \"train.jsonl\" }"),
        ("task.countdown.test", "{ from = \"test.jsonl\" }"),
        ("task.countdown.prompt", "\"{{ word }}\""),
        ("task.countdown.answer", "\"{{ word | list | sort | join }}\""),
        ("task.countdown.prompt_tokens", "4"),
        ("model.d_model", "32"),
        ("model.n_layers", "2"),
        ("model.mlp_hidden_size", "64"),
        ("model.init_std", "0.06"),
        ("sft.steps", "60"),
        ("sft.batch", "32"),
        ("sft.steps_per_stage", "30"),
        ("sft.micro_batch", "32"),
        ("sft.optimizer", "{ learning_rate = 1e-2, beta2 = 0.98 }"),
        ("rollout.prompts", "8"),
        ("rollout.group", "4"),
        ("rollout.micro_batch", "32"),
        ("rollout.completion_tokens", "4"),
        ("rollout.block_tokens", "4"),
        ("rollout.steps", "4"),
        ("rollout.top_k", "0"),
        ("reward.command", "[\"python3\", \"reward.py\"]"),
        ("reward.files", "[\"reward.py\", \"lib/right.py\"]"),
        ("reward.timeout_seconds", "20"),
        ("reward.weights", "{ program = 1.0, letters = 0.25 }"),
        (
            "reward.rules",
            "{ letters = { kind = \"regex\", pattern = \"^[a-e]{3}$\" }, same = { kind = \"exact\" } }",
        ),
        ("estimator.micro_batch", "32"),
        ("optimizer.learning_rate", "1e-3"),
        ("training.iterations", "2"),
        ("evaluation.problems", "8"),
        ("evaluation.steps", "[4, 2]"),
        ("evaluation.micro_batch", "32"),
    ]);
    text.replace("[task.countdown]", "[task.dataset]")
});

const REWARD: &str = r#"
import json, sys
from lib.right import share
for line in sys.stdin:
    row = json.loads(line)
    assert row["prompt"] == row["row"]["word"], row
    print(json.dumps({"id": row["id"], "reward": share(row["completion"], row["answer"])}))
"#;

const RIGHT: &str = r#"
def share(found, right):
    return sum(a == b for a, b in zip(found, right)) / len(right)
"#;

/// With the first letters of the alphabet, three to a word.
fn rows(words: impl Iterator<Item = usize>) -> String {
    let letter = |n: usize| ["a", "b", "c", "d", "e"][n % 5];
    let word = |n: usize| [letter(n / 25), letter(n / 5), letter(n)].concat();
    words.map(|n| format!("{{\"word\": \"{}\"}}\n", word(n))).collect()
}

pub(crate) fn letters() -> Program {
    let program = Program::new(&[]);
    let folder = program.folder();
    fs::create_dir_all(folder.join("lib")).unwrap();
    fs::write(folder.join("run.toml"), &*RUN).unwrap();
    fs::write(folder.join("train.jsonl"), rows((0..125).filter(|n| n % 10 != 0))).unwrap();
    fs::write(folder.join("test.jsonl"), rows((0..125).step_by(10))).unwrap();
    fs::write(folder.join("reward.py"), REWARD).unwrap();
    fs::write(folder.join("lib/right.py"), RIGHT).unwrap();
    program
}

/// A letters run whose program misbehaves in stages; it answers the check before the run.
fn misbehaving(body: &str) -> Said {
    let program = letters();
    let text = format!(
        "import json, sys, time\nfor line in sys.stdin:\n    row = json.loads(line)\n    if row['id'] != 'check/0':\n        print('grading', row['id'], file=sys.stderr)\n        {body}\n    print(json.dumps({{'id': row['id'], 'reward': 1}}))\n"
    );
    fs::write(program.folder().join("reward.py"), text).unwrap();
    let run = RUN.replace("timeout_seconds = 20", "timeout_seconds = 2");
    fs::write(program.folder().join("run.toml"), run).unwrap();
    program.run(&["run", "run.toml", "--workers", "1"])
}

/// What a run says at its end, without what its weights decide.
fn last(said: &Said) -> String {
    let errors = said.stderr.lines().skip_while(|line| !line.starts_with("error: "));
    let shown: Vec<String> = errors.map(str::to_owned).collect();
    let mut text = format!("{}\n{}", said.code.unwrap(), shown.join("\n"));
    let hidden = [("stage ", ' '), ("row ", ' '), ("prompt \"", '"'), ("completion \"", '"')];
    for (before, end) in hidden {
        let mut from = 0;
        while let Some(at) = text[from..].find(before) {
            let start = from + at + before.len();
            let length = text[start..].find(end).unwrap_or(text.len() - start);
            text.replace_range(start..start + length, "…");
            from = start;
        }
    }
    text
}

#[test]
fn a_program_grades_every_stage_and_every_stage_replays() {
    let program = letters();
    let said = program.run(&["run", "run.toml", "--workers", "2"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let (policy, state) = program.policy();
    assert_eq!(state, "done");
    for stage in manifests(&program, "reward") {
        let metrics = &stage["metrics"];
        for part in ["part_program", "part_letters", "part_same"] {
            assert!(metrics[part].is_f64(), "{metrics}");
        }
        let sum = metrics["part_program"].as_f64().unwrap()
            + 0.25 * metrics["part_letters"].as_f64().unwrap();
        assert!((metrics["reward"].as_f64().unwrap() - sum).abs() < 1e-9, "{metrics}");
    }
    for stage in manifests(&program, "evaluation") {
        let reward = stage["metrics"]["reward_2"].as_f64().unwrap();
        assert!((0.0..=1.25).contains(&reward), "{}", stage["metrics"]);
    }
    let replayed = program.run(&["replay", "--run", "letters"]);
    assert_eq!(replayed.code, Some(0), "{}{}", replayed.stdout, replayed.stderr);

    // The stored program grades, whatever the folder holds now.
    fs::write(program.folder().join("reward.py"), "raise SystemExit(1)").unwrap();
    let replayed = program.run(&["replay", "--run", "letters"]);
    assert_eq!(replayed.code, Some(0), "{}{}", replayed.stdout, replayed.stderr);
    let collected = program.run(&["gc", "--grace", "0s"]);
    assert_eq!(collected.code, Some(0), "{}", collected.stderr);
    let replayed = program.run(&["replay", "--run", "letters"]);
    assert_eq!(replayed.code, Some(0), "gc keeps the reward program: {}", replayed.stderr);

    // Another program is another run; the base, which no program graded, is the same.
    fs::write(program.folder().join("reward.py"), REWARD.replace("/ len", "/ 2 / len")).unwrap();
    fs::write(program.folder().join("lib/right.py"), RIGHT.replace("/ len", "/ 2 / len")).unwrap();
    let other = program.json(&["run", "run.toml", "--json"]);
    assert_ne!(other["policy"].as_str(), Some(policy.as_str()));
    assert!(other["stages"]["reused"].as_u64().unwrap() >= 4, "{other}");

    let id = other["run"].as_str().unwrap();
    let measured = program.json(&["evaluate", id, "--steps", "4", "--json"]);
    assert!(measured["evaluations"].is_array(), "{measured}");
}

#[test]
fn a_checkpoint_is_asked_in_its_own_words() {
    let program = letters();
    checkpoint(&program.folder().join("checkpoint"));
    let before = RUN.find("[model]").unwrap();
    let after = RUN.find("[rollout]").unwrap();
    let shape = "[checkpoint]\nfolder = { from = \"checkpoint\" }\nprecision = \"f32\"\n[checkpoint.shape]\nd_model = 32\n\
                 n_layers = 2\nn_heads = 2\nmlp_hidden_size = 48\nembedding_size = 272\nmax_sequence_length = 512\n";
    let text = format!("{}{shape}{}", &RUN[..before], &RUN[after..]);
    let text =
        text.replace("prompt_tokens = 4", "prompt_tokens = 200\nsystem = \"Sort {{ word }}.\"");
    fs::write(program.folder().join("run.toml"), text).unwrap();
    let said = program.run(&["run", "run.toml"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let replayed = program.run(&["replay", "--run", "letters"]);
    assert_eq!(replayed.code, Some(0), "{}{}", replayed.stdout, replayed.stderr);
}

#[test]
fn a_program_that_misbehaves_fails_its_stage_and_says_where() {
    let messages = [
        "print('<b>\\x1b[31mrubbish'); continue",
        "print(json.dumps({'id': row['id'], 'reward': float('nan')})); continue",
        "print(json.dumps({'id': '0/3', 'reward': 1})); continue",
        "sys.exit(7)",
        "time.sleep(60)",
    ]
    .map(|body| last(&misbehaving(body)));
    assert_snapshot!(messages.join("\n"), @r#"
    6
    error: evaluation stage … failed: the reward program `python3 reward.py` answered "<b>\u{1b}[31mrubbish", which is no answer (it is no object): expected one line of JSON such as {"id": "held-out 0/0", "reward": 0.5}; asked about row … of task.dataset.test, id "held-out 0/0", prompt "…", completion "…"; its last lines on stderr: "grading held-out 0/0"

    hint: agrpo status
    6
    error: evaluation stage … failed: the reward program `python3 reward.py` answered "{\"id\": \"held-out 0/0\", \"reward\": NaN}", which is no answer (NaN and Infinity are no numbers of JSON): expected one line of JSON such as {"id": "held-out 0/0", "reward": 0.5}; asked about row … of task.dataset.test, id "held-out 0/0", prompt "…", completion "…"; its last lines on stderr: "grading held-out 0/0"

    hint: agrpo status
    6
    error: evaluation stage … failed: the reward program `python3 reward.py` answered for id "0/3" where "held-out 0/0" was asked: expected one answer for each row, in the order of the rows; asked about row … of task.dataset.test, id "held-out 0/0", prompt "…", completion "…"; its last lines on stderr: "grading held-out 0/0"

    hint: agrpo status
    6
    error: evaluation stage … failed: the reward program `python3 reward.py` ended with code 7 before it answered (it may take 4096 MiB of memory, reward.memory_mib); asked about row … of task.dataset.test, id "held-out 0/0", prompt "…", completion "…"; its last lines on stderr: "grading held-out 0/0"

    hint: agrpo status
    6
    error: evaluation stage … failed: the reward program `python3 reward.py` gave no answer within 2 s (reward.timeout_seconds): expected a line for each row, flushed; asked about row … of task.dataset.test, id "held-out 0/0", prompt "…", completion "…"; its last lines on stderr: "grading held-out 0/0"

    hint: agrpo status
    "#);
}

#[test]
fn a_program_that_is_no_function_of_its_rows_is_found_by_replay() {
    let program = letters();
    let text = "import json, sys, time\nfor line in sys.stdin:\n    print(json.dumps({'id': json.loads(line)['id'], 'reward': time.time_ns() % 1000}))\n";
    fs::write(program.folder().join("reward.py"), text).unwrap();
    assert_eq!(program.run(&["run", "run.toml"]).code, Some(0));
    let stage = manifests(&program, "reward")[0]["stage"].as_str().unwrap().to_owned();
    let replayed = program.run(&["replay", &stage]);
    assert_eq!(replayed.code, Some(3), "{}{}", replayed.stdout, replayed.stderr);
    for part in
        ["differs    rewards", "differs    metric part_program", "`python3 reward.py` gave row "]
    {
        assert!(replayed.stdout.contains(part), "{part}: {}", replayed.stdout);
    }
}

/// The error of the run file with these edits, before anything is computed.
fn refused(program: &Program, edits: &[(&str, &str)]) -> String {
    let text = edits.iter().fold(RUN.clone(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    });
    fs::write(program.folder().join("run.toml"), text).unwrap();
    let said = program.run(&["run", "run.toml"]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    let errors = said.stderr.lines().filter(|line| line.starts_with("error: "));
    errors.collect::<Vec<_>>().join("\n")
}

/// The lines of a run file that name its program.
const PROGRAM: &str = "command = [\"python3\", \"reward.py\"]\nfiles = [\"reward.py\", \"lib/right.py\"]\ntimeout_seconds = 20\n";

#[test]
fn rows_and_templates_are_checked_before_anything_is_computed() {
    let program = letters();
    let messages = [
        refused(&program, &[("{{ word }}", "{{ wrod }}")]),
        refused(&program, &[("{{ word }}", "{{ word ")]),
        refused(&program, &[("prompt_tokens = 4", "prompt_tokens = 2")]),
        refused(
            &program,
            &[
                (
                    "completion_tokens = 4\nblock_tokens = 4\nsteps = 4",
                    "completion_tokens = 2\nblock_tokens = 2\nsteps = 2",
                ),
                ("steps = [4, 2]", "steps = [2]"),
            ],
        ),
        refused(&program, &[("problems = 8", "problems = 80")]),
        refused(&program, &[("answer = ", "# answer = ")]),
        refused(&program, &[("steps_per_stage = 30", "steps_per_stage = 30\ncareless_steps = 10")]),
    ];
    assert_snapshot!(messages.join("\n"), @r#"
    error: run.toml: task.dataset.prompt, row 1 of task.dataset.test: no column "wrod": the row has "word"
    error: run.toml: task.dataset.prompt: line 1: syntax error: unexpected end of input, expected end of variable block
    error: run.toml: task.dataset.prompt_tokens = 2: the prompt of row 1 of task.dataset.train has 3 tokens; raise the key, or leave the row out
    error: run.toml: rollout.completion_tokens = 2: the answer of row 1 of task.dataset.train has 3 characters; raise the key, or leave the row out
    error: run.toml: evaluation.problems = 80: expected at most 13, which task.dataset.test has
    error: run.toml: task.dataset.answer = left out: expected a template: [sft] learns from answers; a [checkpoint] needs none
    error: run.toml: sft.careless_steps = 10: expected 0: a dataset has no wrong answers to learn from
    "#);
}

/// The run file names a file by its key; an error about it says which file that is.
#[test]
fn an_error_about_a_dataset_names_its_file() {
    let program = letters();
    fs::write(program.folder().join("run.toml"), &*RUN).unwrap();
    let mut messages = vec![];
    for bytes in [&b""[..], b"\n", b"word\n\"abc\n", b"\xff\xfew\0", b"{\"word\": \"caf\xe9\"}\n"] {
        fs::write(program.folder().join("train.jsonl"), bytes).unwrap();
        let said = program.run(&["run", "run.toml"]);
        assert_eq!(said.code, Some(2), "{}", said.stderr);
        let lines = said.stderr.lines();
        let lines = lines.filter(|line| line.starts_with("error: ") || line.starts_with("hint: "));
        messages.extend(lines.map(str::to_owned));
    }
    assert_snapshot!(messages.join("\n"), @"
    error: run.toml: task.dataset.train: the data set cannot be read: the file is empty (0 bytes)
    hint: task.dataset.train is train.jsonl
    error: run.toml: task.dataset.train: the data set cannot be read: it has no rows: expected at least one
    hint: task.dataset.train is train.jsonl
    error: run.toml: task.dataset.train: row 1 cannot be read: the quote that opens a field in line 2 is never closed
    hint: task.dataset.train is train.jsonl
    error: run.toml: task.dataset.train: the data set cannot be read: it is UTF-16, expected UTF-8: `iconv -f UTF-16 -t UTF-8` converts it
    hint: task.dataset.train is train.jsonl
    error: run.toml: task.dataset.train: the data set cannot be read: the byte 0xE9 is not UTF-8: save the file as UTF-8; `iconv -f WINDOWS-1252 -t UTF-8` converts Latin-1 and Windows-1252
    hint: task.dataset.train is train.jsonl
    ");
}

#[test]
fn rewards_are_checked_before_anything_is_computed() {
    let program = letters();
    let wrong = "import sys\nprint('no <model>', file=sys.stderr)\nprint('hello')\n";
    fs::write(program.folder().join("wrong.py"), wrong).unwrap();
    let messages = [
        refused(&program, &[("^[a-e]{3}$", "^[a-e{3}$")]),
        refused(&program, &[(PROGRAM, ""), ("rules = {", "# rules = {")]),
        refused(&program, &[(PROGRAM, "")]),
        refused(&program, &[("program = 1.0", "style = 1.0")]),
        refused(&program, &[("timeout_seconds = 20", "timeout_seconds = 0")]),
        refused(&program, &[("files = [\"reward.py\"", "files = [\"../reward.py\"")]),
        refused(
            &program,
            &[
                ("[\"python3\", \"reward.py\"]", "[\"python3\", \"wrong.py\"]"),
                ("\"lib/right.py\"", "\"wrong.py\""),
            ],
        ),
        refused(&program, &[("[\"python3\", \"reward.py\"]", "[\"no-such-program\"]")]),
        refused(&program, &[("files = [\"reward.py\"", "files = [\"absent.py\"")]),
        refused(
            &program,
            &[
                ("[task.dataset]", "[task.countdown]"),
                (
                    "train = { from = \"train.jsonl\" }\ntest = { from = \"test.jsonl\" }\nprompt = \"{{ word }}\"\nanswer = \"{{ word | list | sort | join }}\"\nprompt_tokens = 4\n",
                    "",
                ),
                (
                    "completion_tokens = 4\nblock_tokens = 4\nsteps = 4",
                    "completion_tokens = 8\nblock_tokens = 8\nsteps = 8",
                ),
                ("steps = [4, 2]", "steps = [8]"),
            ],
        ),
    ];
    assert_snapshot!(messages.join("\n"), @r#"
    error: run.toml: reward.rules.letters.pattern = "^[a-e{3}$": unclosed character class
    error: run.toml: reward = without rules and command: expected rules = { right = { kind = "exact" } }, or a program as in command = ["python3", "reward.py"]: nothing else says what a dataset's completions are worth
    error: run.toml: reward.weights = program: expected one of reward.rules: letters, same
    error: run.toml: reward.weights names the part "style", and what was graded for row 1 of task.dataset.test is letters, program, same
    error: run.toml: reward.timeout_seconds = 0: expected a number above 0
    error: run.toml: reward.files = "../reward.py": expected a path within the program's folder, as in "reward.py"; a file elsewhere is { "reward.py" = { from = "../reward.py" } }
    error: run.toml: the reward program `python3 wrong.py` answered "hello", which is no answer (it is no object): expected one line of JSON such as {"id": "check/0", "reward": 0.5}; asked about row 1 of task.dataset.test, id "check/0", prompt "aaa", completion "aaa"; its last lines on stderr: "no <model>"
    error: run.toml: the reward program `no-such-program` cannot be started: there is no "no-such-program" on PATH, nor in reward.files
    error: run.toml: reward.files.absent.py: absent.py: cannot be read: entity not found
    error: run.toml: reward = with rules or a program: expected [task.dataset]: this task brings its own grades, and takes weights alone
    "#);
}

#[test]
fn a_dry_run_needs_no_file() {
    let program = Program::new(&[]);
    fs::write(program.folder().join("run.toml"), &*RUN).unwrap();
    let said = program.run(&["run", "run.toml", "--dry-run"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let missing = "without task.dataset.train, task.dataset.test, reward.files.reward.py, reward.files.lib/right.py";
    assert!(said.stdout.contains(missing), "{}", said.stdout);
}
