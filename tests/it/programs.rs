//! Reward programs when the agrpo that started them ends in any way.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::own_task::letters;
use crate::support::wait::wait_for;

/// Grades one row; for the next it starts two processes in their own sessions, writes their numbers into its folder,
/// and hangs.
const HANGS: &str = r#"
import json, os, subprocess, sys, time
for n, line in enumerate(sys.stdin):
    if n == 1:
        start = lambda **more: subprocess.Popen(["sleep", "1000"], start_new_session=True, **more)
        pids = [os.getpid(), start().pid, start(env={}).pid]
        with open("pids.new", "w") as file:
            file.write(" ".join(map(str, pids)))
        os.rename("pids.new", "pids")
        time.sleep(1000)
    print(json.dumps({"id": json.loads(line)["id"], "reward": 1}))
"#;

const GOOD: &str = r#"
import json, sys
for line in sys.stdin:
    print(json.dumps({"id": json.loads(line)["id"], "reward": 1}))
"#;

fn runs(pid: &str) -> bool {
    !fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().is_empty()
}

fn folders(below: &Path) -> Vec<PathBuf> {
    fs::read_dir(below).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn the_next_start_removes_what_a_killed_one_left() {
    let mut program = letters();
    let below = program.folder().join("temporary");
    fs::create_dir(&below).unwrap();
    program.set("TMPDIR", below.to_str().unwrap());
    fs::write(program.folder().join("reward.py"), HANGS).unwrap();
    let mut killed = program.start(&["run", "run.toml", "--workers", "1"]);
    let pids = wait_for("the program that hangs", || {
        let files = folders(&below).into_iter().map(|folder| folder.join("files/pids"));
        files.filter_map(|file| fs::read_to_string(file).ok()).next()
    });
    let pids: Vec<_> = pids.split(' ').collect();
    assert!(pids.len() == 3 && pids.iter().all(|pid| runs(pid)), "{pids:?}");

    // A folder whose owner lives is not removed, whichever process starts meanwhile.
    let rows = program.folder().join("rows.jsonl");
    fs::write(&rows, "{\"word\": \"cab\", \"completion\": \"abc\"}\n").unwrap();
    fs::write(program.folder().join("reward.py"), GOOD).unwrap();
    let score = ["score", "--run", "run.toml", rows.to_str().unwrap()];
    let said = program.run(&score);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(pids.iter().all(|pid| runs(pid)), "{pids:?}");
    assert_eq!(folders(&below).len(), 1);

    let agrpo = Pid::from_child(&killed);
    kill_process(agrpo, Signal::KILL).unwrap();
    killed.wait().unwrap();
    wait_for("the end of the program itself", || (!runs(pids[0])).then_some(()));
    assert!(pids[1..].iter().all(|pid| runs(pid)), "nothing was left: the test tests nothing");
    let said = program.run(&score);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(!pids.iter().any(|pid| runs(pid)), "{pids:?}");
    assert_eq!(folders(&below), Vec::<PathBuf>::new());
}

#[test]
fn a_second_signal_leaves_nothing() {
    let mut program = letters();
    let below = program.folder().join("temporary");
    fs::create_dir(&below).unwrap();
    program.set("TMPDIR", below.to_str().unwrap());
    fs::write(program.folder().join("reward.py"), HANGS).unwrap();
    let mut stopped = program.start(&["run", "run.toml", "--workers", "1"]);
    let pids = wait_for("the program that hangs", || {
        let files = folders(&below).into_iter().map(|folder| folder.join("files/pids"));
        files.filter_map(|file| fs::read_to_string(file).ok()).next()
    });
    for _ in 0..2 {
        kill_process(Pid::from_child(&stopped), Signal::TERM).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(stopped.wait().unwrap().code(), Some(130));
    assert!(!pids.split(' ').any(runs), "{pids}");
    assert_eq!(folders(&below), Vec::<PathBuf>::new());
}
