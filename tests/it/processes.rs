//! Processes that share a local store: one of them computes a run, and the others say so.

use std::process::Child;

use crate::support::program::{Program, Said};
use crate::support::wait::wait_for;

/// A process that has stages of a long run, and its store.
fn computing() -> (Program, Child) {
    let program = Program::new(&[]);
    program.change("iterations = 4", "iterations = 400");
    let child = program.start(&["run", "run.toml", "--workers", "1"]);
    wait_for("a stage of the run", || {
        let said = program.run(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&said.stdout).ok()?;
        (status["runs"][0]["stages"]["done"].as_u64()? > 0).then_some(())
    });
    (program, child)
}

/// The error of a command that is refused at once.
fn refused(program: &Program, arguments: &[&str]) -> String {
    let Said { code, stderr, .. } = program.run(arguments);
    assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
    stderr
}

#[test]
fn a_run_is_computed_and_not_forgotten_while_another_process_computes_it() {
    let (program, mut child) = computing();
    for arguments in [
        &["run", "run.toml", "--workers", "1"][..],
        &["run", "run.toml", "--repair"],
        &["forget", "bytes"],
        &["forget", "bytes", "--force"],
    ] {
        let said = refused(&program, arguments);
        assert!(said.contains("being computed by another process"), "{arguments:?}: {said}");
        assert!(!said.contains("computed before"), "nothing is computed: {said}");
    }
    // Commands that only read are not refused.
    for arguments in [
        &["status"][..],
        &["show", "bytes"],
        &["verify"],
        &["forget", "bytes", "--force", "--dry-run"],
    ] {
        let said = program.run(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.stderr);
    }
    assert!(child.try_wait().unwrap().is_none());
    // Nothing is left of a process that is killed.
    child.kill().unwrap();
    child.wait().unwrap();
    let said = program.run(&["forget", "bytes", "--force"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}

#[test]
fn a_killed_run_goes_on_at_once() {
    let (program, mut child) = computing();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut next = program.start(&["run", "run.toml", "--workers", "1"]);
    let before = program.json(&["status", "--json"])["runs"][0]["stages"]["done"].as_u64();
    wait_for("a stage of the next process", || {
        let now = program.json(&["status", "--json"])["runs"][0]["stages"]["done"].as_u64();
        (now > before).then_some(())
    });
    next.kill().unwrap();
    next.wait().unwrap();
}
