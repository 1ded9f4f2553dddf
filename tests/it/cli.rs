//! The command line as text: errors, listings and exit codes; help is in `help.rs`.
//!
//! Every test starts the program itself in an empty folder and without any setting. Times, sizes,
//! paths and versions are replaced; digests that follow from a run file alone are not.

use std::path::Path;
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use tempfile::TempDir;

use crate::support::run_file::run_file;

/// The smallest run: one chunk, one iteration, one shard.
fn tiny() -> String {
    run_file(&[
        ("name", "\"tiny\""),
        ("seed", "1"),
        ("model.n_heads", "1"),
        ("model.mlp_hidden_size", "16"),
        ("sft.steps", "2"),
        ("rollout.prompts", "2"),
        ("rollout.shards", "1"),
        ("optimizer.learning_rate", "1e-3"),
        ("training.iterations", "1"),
        ("evaluation.every", "1"),
        ("evaluation.steps", "[8]"),
    ])
}

/// What a command said and how it ended.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// Code, then stderr: the text that a person sees after a mistake.
    fn error(&self) -> String {
        assert_eq!(self.stdout, "", "an error leaves stdout empty");
        format!("{}\n{}", self.code.unwrap(), self.stderr)
    }
}

/// Runs `agrpo` in a folder, with nothing in its environment.
pub(crate) fn agrpo(folder: &Path, arguments: &[&str], input: &str) -> Said {
    use std::io::Write;
    let mut child = Command::new(env!("CARGO_BIN_EXE_agrpo"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that never reads its input has closed it.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let output = child.wait_with_output().unwrap();
    let real = folder.canonicalize().unwrap();
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap();
        text.replace(real.to_str().unwrap(), "[folder]")
            .replace(folder.to_str().unwrap(), "[folder]")
    };
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs `agrpo` in an empty folder.
pub(crate) fn alone(arguments: &[&str], input: &str) -> Said {
    agrpo(TempDir::new().unwrap().path(), arguments, input)
}

/// A folder in which the tiny run is done.
pub(crate) fn with_a_run() -> (TempDir, Said) {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("tiny.toml"), tiny()).unwrap();
    let said = agrpo(folder.path(), &["run", "tiny.toml", "--workers", "1"], "");
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    (folder, said)
}

#[test]
fn mistakes_in_the_command_line() {
    assert_snapshot!(alone(&["rum"], "").error(), @r"
    2
    error: unrecognized subcommand 'rum'

      tip: some similar subcommands exist: 'run', 'resume'

    Usage: agrpo [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
    assert_snapshot!(alone(&["replay"], "").error(), @r"
    2
    error: the following required arguments were not provided:
      <HASH|--run <RUN>>

    Usage: agrpo replay <HASH|--run <RUN>>

    For more information, try '--help'.
    ");
    assert_snapshot!(alone(&["run", "x.toml", "--workers", "0"], "").error(), @r"
    2
    error: invalid value '0' for '--workers <N>': 0 is not in 1..=4096

    For more information, try '--help'.
    ");
    assert_snapshot!(alone(&["worker", "--threads", "0"], "").error(), @r"
    2
    error: invalid value '0' for '--threads <N>': 0 is not in 1..=4096

    For more information, try '--help'.
    ");
    assert_snapshot!(alone(&["run", "x.toml", "--seed", "-1"], "").error(), @r"
    2
    error: invalid value '-1' for '--seed <N>': expected a whole number from 0 to 2^63 - 1

    For more information, try '--help'.
    ");
}

#[test]
fn a_full_disk_behind_standard_output_is_code_4() {
    let (folder, _) = with_a_run();
    for arguments in [&["status"][..], &["show", "tiny", "--json"], &["--help"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_agrpo"));
        command.args(arguments).current_dir(folder.path()).env_clear().stdout(full);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{arguments:?}: {said}");
        assert!(said.starts_with("error: cannot write to standard output: No space"), "{said}");
    }
}

#[test]
fn mistakes_in_a_run_file() {
    assert_snapshot!(alone(&["run", "x.toml"], "").error(), @r"
    2
    error: cannot read x.toml: no such file or directory

    hint: jobs/runs/smoke.toml is a small run with every key explained
    ");
    let run = |from: &str, to: &str| alone(&["run", "-"], &tiny().replace(from, to)).error();
    assert_snapshot!(run("seed = 1", "sed = 1"), @r"
    2
    error: standard input: line 3, `sed = 1`: unknown key `sed`: did you mean `seed`?
    ");
    assert_snapshot!(run("seed = 1", "seed = -1"), @r"
    2
    error: standard input: line 3, `seed = -1`: expected a whole number from 0 to 2^63 - 1
    ");
    assert_snapshot!(run("group = 2", "group = 1"), @r"
    2
    error: standard input: rollout.group = 1: expected 2 to 4096 completions a prompt: a group of one has no spread, so nothing is learned
    ");
    assert_snapshot!(run("seed = 1", "seed = one"), @r"
    2
    error: standard input: line 3, `seed = one`: string values must be quoted, expected literal string
    ");
    assert_snapshot!(run("problems = 4", "problems = 100000"), @r"
    2
    error: standard input: task.countdown: 100000 held-out problems were asked for, 2133 were found and 20000 more draws brought no other: lower evaluation.problems, raise task.countdown.held_out, or widen the task
    ");
}

#[test]
fn questions_about_a_store_that_is_not_there() {
    assert_snapshot!(alone(&["status"], "").error(), @r"
    2
    error: no store at [folder]/.agrpo

    hint: agrpo run FILE creates it
    hint: if it is elsewhere: go to the folder where agrpo run was started, or name it with --store
    ");
    assert_snapshot!(alone(&["status", "--store", "ftp://x"], "").error(), @r"
    2
    error: `ftp://x` is not a store: expected file:///folder, a plain folder, s3://bucket/prefix or memory://
    ");
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("notes.txt"), "").unwrap();
    for verb in ["status", "verify", "gc"] {
        let said = agrpo(folder.path(), &[verb, "--store", "."], "").error();
        assert!(said.starts_with("2\nerror: no store at [folder]"), "{said}");
    }
    std::fs::remove_file(folder.path().join("notes.txt")).unwrap();
    assert_eq!(agrpo(folder.path(), &["verify", "--store", "."], "").code, Some(0), "an empty one");
    agrpo(folder.path(), &["status"], "");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "asking creates nothing");
}

#[test]
fn no_store_is_made_among_other_files() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("tiny.toml"), tiny()).unwrap();
    // Another program's, and a file.
    std::fs::create_dir_all(folder.path().join("runs/tensorboard")).unwrap();
    std::fs::write(folder.path().join("stages"), "").unwrap();
    for arguments in [&["run", "tiny.toml", "--store", "."][..], &["doctor", "--store", "."]] {
        let said = agrpo(folder.path(), arguments, "");
        let text = said.stdout + &said.stderr;
        assert!(text.contains("[folder] holds other files, and no store"), "{text}");
        assert!(said.code != Some(0) && text.contains("--store"), "{text}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "nothing is written");
    // Empty folders, those of file systems, and what an earlier version left are taken.
    for inside in ["lost+found", "runs"] {
        let store = TempDir::new().unwrap();
        std::fs::create_dir_all(store.path().join(inside)).unwrap();
        let arguments =
            ["run", "tiny.toml", "--workers", "1", "--store", store.path().to_str().unwrap()];
        let said = agrpo(folder.path(), &arguments, "");
        assert_eq!(said.code, Some(0), "{inside}: {}", said.stderr);
    }
}

#[test]
fn a_run_file_comes_from_a_pipe() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("tiny.toml"), tiny()).unwrap();
    let run = |command: &str| {
        let program = env!("CARGO_BIN_EXE_agrpo");
        let said = Command::new("bash")
            .args(["-c", command, program])
            .current_dir(folder.path())
            .env_clear()
            .output()
            .unwrap();
        assert!(said.status.success(), "{command}: {}", String::from_utf8_lossy(&said.stderr));
        let answer: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
        answer["run"].clone()
    };
    let expected = run("$0 run tiny.toml --json");
    assert_eq!(run("$0 run <(/bin/cat tiny.toml) --json"), expected);
    assert_eq!(run("/bin/cat tiny.toml | $0 run /dev/stdin --json"), expected);
    assert_eq!(run("/bin/cat tiny.toml | $0 run - --json"), expected);
}

#[test]
fn an_unreachable_redis_is_code_4_and_names_the_place() {
    let said = alone(&["worker", "--redis", "redis://user@127.0.0.1:1"], "");
    assert_eq!(said.code, Some(4));
    assert!(said.stderr.contains("127.0.0.1:1"), "{}", said.stderr);
}

#[test]
fn a_run_from_its_first_line_to_its_replay() {
    let (folder, said) = with_a_run();
    let folder = folder.path();
    assert_snapshot!(said.stdout.lines().next().unwrap(), @r"run       9a4bacb6be8d8156e05d090cb1370012ab35185f97d5ca8969ac204e4f552c58");
    for part in ["state     done: iteration 1 of 1, 7 stages computed, 0 reused", "  agrpo replay "]
    {
        assert!(said.stdout.contains(part), "{}", said.stdout);
    }
    assert!(said.stderr.contains("iteration 1/1  accuracy "), "{}", said.stderr);

    let again = agrpo(folder, &["run", "tiny.toml", "--json"], "");
    let again: serde_json::Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!((&again["stages"]["computed"], &again["stages"]["reused"]), (&0.into(), &7.into()));

    let policy = again["policy"].as_str().unwrap();
    let status = agrpo(folder, &["status"], "").stdout.replace(&policy[..12], "[policy]");
    assert_snapshot!(status, @r"
    run           name  state  iteration  accuracy      stages  failed  policy
    9a4bacb6be8d  tiny  done   1/1        0.0% -> 0.0%  7       0       [policy]
    ");

    let replayed = agrpo(folder, &["replay", "--run", "tiny"], "");
    assert_eq!(replayed.code, Some(0), "{}{}", replayed.stdout, replayed.stderr);
    assert!(replayed.stdout.ends_with("\nidentical: 7 stages\n"), "{}", replayed.stdout);
}

#[test]
fn every_part_of_a_run_can_be_shown() {
    let (folder, _) = with_a_run();
    let folder = folder.path();
    let json = |hash: &str| -> serde_json::Value {
        serde_json::from_str(&agrpo(folder, &["show", hash, "--json"], "").stdout).unwrap()
    };
    let run = json("tiny");
    let rollout = run["stages"]["rollout-000001-00"].as_str().unwrap();
    let stage = agrpo(folder, &["show", rollout], "").stdout;
    assert!(stage.contains("\ncompletions (the first 4):\n"), "{stage}");
    let policy = json(rollout)["spec"]["rollout"]["policy"].as_str().unwrap().to_owned();
    let policy = agrpo(folder, &["show", &policy[..12]], "").stdout;
    assert!(policy.contains("model.safetensors"), "{policy}");
    assert_snapshot!(agrpo(folder, &["show", "nothing"], "").error(), @r"
    2
    error: `nothing` is no run, stage or artifact that can be shown

    hint: no run in file://[folder]/.agrpo has the name `nothing` or an id that begins with it; `agrpo status` lists all runs
    ");
    let other = agrpo(folder, &["run", "tiny.toml", "--seed", "2"], "");
    assert_eq!(other.code, Some(0), "{}", other.stderr);
    for verb in ["show", "status"] {
        let said = agrpo(folder, &[verb, "tiny"], "").error();
        assert!(said.starts_with("2\nerror: `tiny` fits several of the runs in "), "{said}");
        assert!(said.ends_with("; give more of the id\n"), "{said}");
    }
    // A run's name that several stages begin with.
    let first_digits = |part: &str| -> Vec<String> {
        let names = std::fs::read_dir(folder.join(".agrpo").join(part)).unwrap();
        names.map(|name| name.unwrap().file_name().to_string_lossy()[..1].to_owned()).collect()
    };
    let (runs, stages) = (first_digits("runs"), first_digits("stages"));
    let is_shared = |digit: &&String| {
        !runs.contains(digit) && stages.iter().filter(|other| other == digit).count() > 1
    };
    let digit = stages.iter().find(is_shared).expect("two stages with one first digit");
    let named = tiny().replace("\"tiny\"", &format!("\"{digit}\""));
    std::fs::write(folder.join("named.toml"), named).unwrap();
    assert_eq!(agrpo(folder, &["run", "named.toml"], "").code, Some(0));
    let said = agrpo(folder, &["show", digit], "").error();
    assert!(
        said.starts_with(&format!("2\nerror: `{digit}` fits several of the stages in ")),
        "{said}"
    );
}

#[test]
fn a_flipped_byte_is_found_by_replay() {
    let (folder, _) = with_a_run();
    let folder = folder.path();
    let run: serde_json::Value =
        serde_json::from_str(&agrpo(folder, &["show", "tiny", "--json"], "").stdout).unwrap();
    let reward = run["stages"]["reward-000001-00"].as_str().unwrap();
    let manifest: serde_json::Value =
        serde_json::from_str(&agrpo(folder, &["show", reward, "--json"], "").stdout).unwrap();
    let trajectories = manifest["spec"]["reward"]["trajectories"].as_str().unwrap();
    let blob = folder.join(".agrpo/cas").join(trajectories);
    let mut bytes = std::fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let said = agrpo(folder, &["replay", reward], "");
    assert_eq!(said.code, Some(5), "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains(trajectories), "{}", said.stderr);
}

#[test]
fn completions_are_graded_one_a_line() {
    let rows = "{\"ground_truth\": [[3, 7, 8], 29], \"completion\": \"7*3+8\", \"id\": 5}\n\n\
                {\"ground_truth\": [[3, 7, 8], 29], \"completion\": \"7*3\"}\n";
    let said = alone(&["score", "--task", "countdown", "-"], rows);
    assert_snapshot!(format!("{}{}", said.stdout, said.stderr), @r#"
    {"completion":"7*3+8","correct":true,"extracted":"7*3+8","ground_truth":[[3,7,8],29],"id":5,"parts":{"correct":1.0},"reward":1.0}
    {"completion":"7*3","correct":false,"extracted":"7*3","ground_truth":[[3,7,8],29],"parts":{"correct":0.0},"reward":0.0}
    2 rows  reward 0.5000  correct 50.0% (1 of 2)
    "#);
    let said = alone(&["score", "--task", "sudoku", "-"], "{\"completion\": 3}");
    assert_snapshot!(said.error(), @r"
    2
    error: standard input, line 1: completion = 3: expected a string
    ");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (folder, _) = with_a_run();
    let mut child = Command::new(env!("CARGO_BIN_EXE_agrpo"))
        .args(["show", "tiny"])
        .current_dir(folder.path())
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
}
