//! Programs that behave and programs that do not, each of them a real one.

use agrpo_spec::ArtifactDigest;

use super::*;

mod ends;

const GOOD: &str = r#"
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    reward = float(row["completion"] == row["answer"])
    print(json.dumps({"id": row["id"], "reward": reward}))
"#;

fn programs() -> Programs {
    Programs::new(option_env!("PATH").unwrap_or("/usr/bin:/bin"))
}

/// The program, given a row for each `print`.
fn python(text: &str) -> (Program, BTreeMap<String, Bytes>) {
    let bytes = Bytes::from(text.to_owned());
    let program = Program {
        command: vec!["python3".into(), "reward.py".into()],
        files: BTreeMap::from([("reward.py".to_owned(), ArtifactDigest::of(&bytes))]),
        timeout_seconds: 20.0,
        memory: 2 << 30,
    };
    (program, BTreeMap::from([("reward.py".to_owned(), bytes)]))
}

fn sample(n: usize, completion: &str) -> Sample {
    Sample {
        id: format!("{n}/0"),
        place: format!("row {n} of task.dataset.train"),
        prompt: "cab".into(),
        completion: completion.into(),
        answer: Some("abc".into()),
        row: serde_json::Map::from_iter([("word".to_owned(), "cab".into())]),
    }
}

/// The error of a program.
fn fault(text: &str, seconds: f64) -> StageError {
    let (program, files) = python(text);
    let program = Program { timeout_seconds: seconds, ..program };
    let completion = "a\u{1b}[31m<script>alert(1)</script>";
    let samples = [sample(7, completion), sample(8, "abc"), sample(9, "abc")];
    let error = programs().score(&program, &files, &samples).unwrap_err();
    let text = error.to_string();
    assert!(!text.contains(['\n', '\u{1b}']), "{text}");
    assert!(
        text.contains("completion \"a\\u{1b}[31m<script>") || text.contains("id \"8/0\""),
        "{text}"
    );
    error
}

/// A fault that the program would repeat.
fn wrong(body: &str) -> String {
    let text = format!(
        "import json, sys\nprint('warming up', file=sys.stderr)\nfor line in sys.stdin:\n    row = json.loads(line)\n    id = row['id']\n    {}\n",
        body.replace('\n', "\n    ")
    );
    match fault(&text, 20.0) {
        StageError::Invalid(text) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Whether a process runs. What has ended and waits to be collected has no command line any more.
fn runs(pid: &str) -> bool {
    !std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().is_empty()
}

#[test]
fn rows_are_graded_in_their_order_by_one_process() {
    let (program, files) = python(GOOD);
    let programs = programs();
    let samples: Vec<_> =
        (0..300).map(|n| sample(n, if n % 3 == 0 { "abc" } else { "é\n\"" })).collect();
    for _ in 0..2 {
        let scores = programs.score(&program, &files, &samples).unwrap();
        for (n, score) in scores.iter().enumerate() {
            assert_eq!(score.parts["program"], f64::from(u8::from(n % 3 == 0)), "{n}");
        }
        assert_eq!(programs.idle().len(), 1);
    }
    let pid = programs.idle()[0].1.pid.as_raw_pid();
    drop(programs);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_program_sees_its_files_and_nothing_else() {
    let (program, files) = python(
        "import json, os, sys\nfor line in sys.stdin:\n    row = json.loads(line)\n    print(json.dumps({'files': sorted(os.listdir()), 'env': sorted(os.environ), 'keys': sorted(row), 'hash': hash('a')}), file=sys.stderr)\n    print('no')\n",
    );
    let error = programs().score(&program, &files, &[sample(1, "x")]).unwrap_err().to_string();
    assert!(error.contains(r#"\"files\": [\"reward.py\"]"#), "{error}");
    for name in ["AGRPO_", "CARGO", "LD_LIBRARY_PATH"] {
        assert!(!error.contains(name), "{error}");
    }
}

#[test]
fn what_is_no_answer_fails_for_good() {
    let errors = [
        "print('rubbish')",
        "print(json.dumps({'id': id, 'reward': float('nan')}))",
        "print(json.dumps({'id': id, 'reward': float('-inf')}))",
        "print(json.dumps({'id': id, 'reward': '1'}))",
        "print(json.dumps({'id': id}))",
        "print(json.dumps({'id': '8/0', 'reward': 1}))",
        "print(json.dumps({'id': id, 'reward': 1}) * 2)",
        "sys.stdout.write('x' * 2_000_000)",
    ]
    .map(wrong);
    insta::assert_snapshot!(errors.join("\n"), @r#"
    the reward program `python3 reward.py` answered "rubbish", which is no answer (it is no object): expected one line of JSON such as {"id": "7/0", "reward": 0.5}; asked about row 7 of task.dataset.train, id "7/0", prompt "cab", completion "a\u{1b}[31m<script>alert(1)</script>"; its last lines on stderr: "warming up"
    the reward program `python3 reward.py` answered "{\"id\": \"7/0\", \"reward\": NaN}", which is no answer (NaN and Infinity are no numbers of JSON): expected one line of JSON such as {"id": "7/0", "reward": 0.5}; asked about row 7 of task.dataset.train, id "7/0", prompt "cab", completion "a\u{1b}[31m<script>alert(1)</script>"; its last lines on stderr: "warming up"
    the reward program `python3 reward.py` answered "{\"id\": \"7/0\", \"reward\": -Infinity}", which is no answer (NaN and Infinity are no numbers of JSON): expected one line of JSON such as {"id": "7/0", "reward": 0.5}; asked about row 7 of task.dataset.train, id "7/0", prompt "cab", completion "a\u{1b}[31m<script>alert(1)</script>"; its last lines on stderr: "warming up"
    the reward program `python3 reward.py` answered reward = "1": expected a finite number; asked about row 7 of task.dataset.train, id "7/0", prompt "cab", completion "a\u{1b}[31m<script>alert(1)</script>"; its last lines on stderr: "warming up"
    the reward program `python3 reward.py` answered "{\"id\": \"7/0\"}", which is no answer (it has neither reward nor parts): expected one line of JSON such as {"id": "7/0", "reward": 0.5}; asked about row 7 of task.dataset.train, id "7/0", prompt "cab", completion "a\u{1b}[31m<script>alert(1)</script>"; its last lines on stderr: "warming up"
    the reward program `python3 reward.py` answered for id "8/0" where "7/0" was asked: expected one answer for each row, in the order of the rows; asked about row 7 of task.dataset.train, id "7/0", prompt "cab", completion "a\u{1b}[31m<script>alert(1)</script>"; its last lines on stderr: "warming up"
    the reward program `python3 reward.py` answered "{\"id\": \"7/0\", \"reward\": 1}{\"id\": \"7/0\", \"reward\": 1}", which is no answer (trailing characters): expected one line of JSON such as {"id": "7/0", "reward": 0.5}; asked about row 7 of task.dataset.train, id "7/0", prompt "cab", completion "a\u{1b}[31m<script>alert(1)</script>"; its last lines on stderr: "warming up"
    the reward program `python3 reward.py` wrote 1064960 bytes without the end of a line: expected one line of JSON for each row; asked about row 7 of task.dataset.train, id "7/0", prompt "cab", completion "a\u{1b}[31m<script>alert(1)</script>"; its last lines on stderr: "warming up"
    "#);
    let twice = wrong("print(json.dumps({'id': id, 'reward': 1}))\nprint('and more')");
    assert!(twice.contains("beside its answer") || twice.contains("no answer"), "{twice}");
}

#[test]
fn what_ends_is_asked_again_and_then_given_up() {
    let text = "import sys\nfor line in sys.stdin:\n    print('Traceback: no such model', file=sys.stderr)\n    sys.exit(3)\n";
    let error = fault(text, 20.0);
    assert!(matches!(error, StageError::Internal(_)));
    insta::assert_snapshot!(error, @r#"the reward program `python3 reward.py` ended with code 3 before it answered (it may take 2048 MiB of memory, reward.memory_mib); asked about row 7 of task.dataset.train, id "7/0", prompt "cab", completion "a\u{1b}[31m<script>alert(1)</script>"; its last lines on stderr: "Traceback: no such model""#);
    // A program that ends now and then is started again, and no row is lost.
    let (program, files) = python(
        "import json, sys\nfor n, line in enumerate(sys.stdin):\n    if n == 2: sys.exit(1)\n    print(json.dumps({'id': json.loads(line)['id'], 'reward': 1}))\n",
    );
    let samples: Vec<_> = (0..5).map(|n| sample(n, "abc")).collect();
    assert_eq!(programs().score(&program, &files, &samples).unwrap().len(), 5);
}

#[test]
fn what_hangs_is_ended_with_all_that_it_started() {
    let (program, files) = python(
        "import os, subprocess, sys, time\nchild = subprocess.Popen(['sleep', '1000'])\nprint(os.getpid(), child.pid, file=sys.stderr)\ntime.sleep(1000)\n",
    );
    let program = Program { timeout_seconds: 1.5, ..program };
    let error = programs().score(&program, &files, &[sample(1, "x")]).unwrap_err();
    assert!(matches!(error, StageError::Internal(_)));
    let text = error.to_string();
    assert!(text.contains("gave no answer within 1.5 s (reward.timeout_seconds)"), "{text}");
    let (_, pids) = text.rsplit_once('"').and_then(|(rest, _)| rest.rsplit_once('"')).unwrap();
    assert_eq!(pids.split(' ').count(), 2, "{text}");
    for pid in pids.split(' ') {
        assert!(!runs(pid), "{pid} runs");
    }
}

#[test]
fn neither_stderr_nor_a_closed_stdin_holds_it_up() {
    let text = "import sys, json\nfor line in sys.stdin:\n    sys.stderr.write('noise\\n' * 100_000)\n    print(json.dumps({'id': json.loads(line)['id'], 'reward': 1}))\n";
    let (program, files) = python(text);
    let samples: Vec<_> = (0..5).map(|n| sample(n, "abc")).collect();
    assert_eq!(programs().score(&program, &files, &samples).unwrap().len(), 5);
    let error = fault("import os, time\nos.close(0)\nos.close(1)\ntime.sleep(1000)\n", 20.0);
    assert!(error.to_string().contains("closed its output before it answered"), "{error}");
    // A row that is larger than a pipe and is never read does not block.
    let (program, files) = python("import time\ntime.sleep(1000)\n");
    let program = Program { timeout_seconds: 1.0, ..program };
    let error = programs().score(&program, &files, &[sample(1, &"x".repeat(1 << 20))]);
    assert!(error.unwrap_err().to_string().contains("gave no answer within 1 s"));
}

#[test]
fn memory_ends_where_the_run_says() {
    let text = "import sys\nfor line in sys.stdin:\n    x = bytearray(1 << 30)\n    print('unreachable')\n";
    let (program, files) = python(text);
    let program = Program { memory: 512 << 20, ..program };
    let error = programs().score(&program, &files, &[sample(1, "x")]).unwrap_err().to_string();
    assert!(error.contains("MemoryError") && error.contains("512 MiB"), "{error}");
}

#[test]
fn a_program_that_cannot_be_started_is_reported() {
    let (program, files) = python(GOOD);
    let absent = Program { command: vec!["no-such-program".into()], ..program.clone() };
    let error = programs().score(&absent, &files, &[sample(1, "x")]).unwrap_err();
    insta::assert_snapshot!(error, @r#"the reward program `no-such-program` cannot be started: there is no "no-such-program" on PATH, nor in reward.files"#);
    // A file of the program's own may be the program.
    let script = Bytes::from_static(
        b"#!/bin/sh\nwhile read line; do echo '{\"id\": \"1/0\", \"reward\": 1}'; done\n",
    );
    let files = BTreeMap::from([("bin/reward".to_owned(), script)]);
    let own = Program { command: vec!["./bin/reward".into()], ..program };
    assert_eq!(programs().score(&own, &files, &[sample(1, "x")]).unwrap()[0].parts["program"], 1.0);
}
