//! What a program takes together with all that it starts, how all of it ends, and what it may not read.

use std::process::{Command, Stdio};
use std::sync::Arc;

use super::*;
use crate::folder::{Folder, remove_orphans};
use crate::group::Groups;

#[path = "../../../../tests/support/not_run.rs"]
mod not_run;

/// Starts two more in sessions of their own, one of them an orphan without an environment, and returns all
/// three numbers.
const ESCAPES: &str = r#"
import json, os, subprocess, sys, time
def escape():
    child = subprocess.Popen(['sleep', '1000'], start_new_session=True)
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            os.execve('/bin/sleep', ['sleep', '1000'], {})
        os.write(write, str(pid).encode())
        os._exit(0)
    return f"{os.getpid()} {child.pid} {os.read(read, 20).decode()}"
"#;

/// The numbers that a program wrote last to stderr.
fn pids(error: &StageError) -> Vec<String> {
    let text = error.to_string();
    let (_, pids) = text.rsplit_once('"').and_then(|(rest, _)| rest.rsplit_once('"')).unwrap();
    pids.split(' ').map(str::to_owned).collect()
}

fn ask(text: &str, memory_mib: u64, seconds: f64) -> Result<Vec<Score>, StageError> {
    let (program, files) = python(text);
    let program = Program { memory: memory_mib << 20, timeout_seconds: seconds, ..program };
    programs().score(&program, &files, &[sample(1, "x")])
}

#[test]
fn memory_is_limited_for_all_processes_together() {
    let text = "import os, subprocess, sys, time\nhold = 'x = b\"x\" * (60 << 20); import time; time.sleep(1000)'\nall = [subprocess.Popen([sys.executable, '-c', hold], start_new_session=n % 2) for n in range(6)]\nprint(os.getpid(), *[child.pid for child in all], file=sys.stderr)\ntime.sleep(1000)\n";
    let error = ask(text, 200, 60.0).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("MiB of memory with what it started before it answered"), "{said}");
    assert!(said.contains("(it may take 200 MiB of memory, reward.memory_mib)"), "{said}");
    let pids = pids(&error);
    assert_eq!(pids.len(), 7, "{said}");
    assert!(!pids.iter().any(|pid| runs(pid)), "{said}");
}

#[test]
fn memory_that_processes_share_counts_once() {
    let text = "import json, os, sys, time\nx = b'x' * (100 << 20)\nfor n in range(6):\n    if os.fork() == 0:\n        time.sleep(1000)\nfor line in sys.stdin:\n    time.sleep(1)\n    print(json.dumps({'id': json.loads(line)['id'], 'reward': 1}))\n";
    assert_eq!(ask(text, 300, 20.0).unwrap().len(), 1);
}

#[test]
fn what_left_its_session_its_parent_and_its_environment_ends_too() {
    let hangs = format!("{ESCAPES}\nprint(escape(), file=sys.stderr)\ntime.sleep(1000)\n");
    let pids = pids(&ask(&hangs, 512, 1.5).unwrap_err());
    assert_eq!(pids.len(), 3);
    assert!(!pids.iter().any(|pid| runs(pid)), "{pids:?}");
    // A program that ends by itself, or waits for more, takes them along as well.
    let answers = format!(
        "{ESCAPES}\nfor line in sys.stdin:\n    print(json.dumps({{'id': escape(), 'reward': 1}}))\n"
    );
    let error = ask(&answers, 512, 20.0).unwrap_err().to_string();
    let (_, pids) = error.split_once("answered for id \"").unwrap();
    let pids: Vec<_> = pids.split('"').next().unwrap().split(' ').collect();
    assert_eq!(pids.len(), 3, "{error}");
    assert!(!pids.iter().any(|pid| runs(pid)), "{pids:?}");
}

#[test]
fn a_program_cannot_read_the_environment_of_its_caller() {
    let text = "import os, sys\nfor name in ['environ', 'mem', 'maps']:\n    try:\n        open(f'/proc/{os.getppid()}/{name}', 'rb').read(1)\n        print(name, 'was read', file=sys.stderr)\n    except OSError as error:\n        print(name, error.strerror, file=sys.stderr)\nsys.exit(1)\n";
    let said = ask(text, 512, 20.0).unwrap_err().to_string();
    assert!(!said.contains("was read"), "{said}");
    assert_eq!(said.matches("Permission denied").count(), 3, "{said}");
}

#[test]
fn what_a_dead_process_left_is_removed_and_what_lives_is_kept() {
    let below = tempfile::tempdir().unwrap();
    let alive = Folder::new(below.path()).unwrap();
    alive.write("reward.py", b"").unwrap();
    let dead = below.path().join("agrpo-reward-dead");
    let files = dead.join("files");
    std::fs::create_dir_all(&files).unwrap();
    let mark = alive.mark + 1;
    std::fs::write(dead.join("owner"), mark.to_string()).unwrap();
    std::fs::write(files.join("reward.py"), "").unwrap();
    let sleep = |mark: u64| {
        let mut command = Command::new("prlimit");
        command.args([&format!("--fsize={mark}"), "sleep", "1000"]).stdin(Stdio::null());
        command.spawn().unwrap()
    };
    let (mut left, mut other) = (sleep(mark), sleep(alive.mark));
    crate::family::until_none(|| command_line(&left).starts_with("sleep"));
    let strange = below.path().join("agrpo-reward-without-owner");
    std::fs::create_dir(&strange).unwrap();
    let link = below.path().join("agrpo-reward-link");
    std::os::unix::fs::symlink(&dead, &link).unwrap();
    remove_orphans(below.path());
    assert!(!dead.exists() && strange.is_dir() && link.is_symlink());
    assert!(alive.files().join("reward.py").exists());
    assert!(!runs(&left.id().to_string()) && runs(&other.id().to_string()));
    other.kill().unwrap();
    other.wait().unwrap();
    // The watch may have collected it already.
    let _status = left.wait();
}

fn command_line(child: &std::process::Child) -> String {
    std::fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap_or_default()
}

/// Needs a folder in which this user may make control groups: as root, or by delegation.
#[test]
fn a_control_group_ends_as_a_whole() {
    let folders = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(std::path::PathBuf::from);
    let top = folders.into_iter().find(|folder| folder.join("cgroup.subtree_control").exists());
    let top = top.map(|top| top.join(format!("agrpo-test-{}", std::process::id())));
    let Some(top) = top.filter(|top| std::fs::create_dir(top).is_ok()) else {
        return not_run::not_run("no control groups may be made here");
    };
    let group = Arc::new(Groups::at(top.clone()).make("one", 64 << 20).unwrap());
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 0.5; setsid sleep 1000 & sleep 1000"]).stdin(Stdio::null());
    let mut child = command.spawn().unwrap();
    group.add(child.id().try_into().unwrap()).unwrap();
    let members = || std::fs::read_to_string(top.join("one/cgroup.procs")).unwrap_or_default();
    crate::family::until_none(|| members().lines().count() >= 2);
    assert!(members().lines().count() >= 2, "{}", members());
    group.end();
    child.wait().unwrap();
    crate::family::until_none(|| members().is_empty());
    assert!(members().is_empty() && !group.ran_out_of_memory());
    drop(group);
    assert!(!top.join("one").exists());
    std::fs::remove_dir(top).unwrap();
}
