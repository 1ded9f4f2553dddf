//! A worker's log in JSON: every line an object, every line of a stage's work with its ids.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::program::Program;
use crate::support::redis::RedisServer;

const IDS: [&str; 4] = ["run", "stage", "key", "attempt"];

#[test]
fn every_line_of_a_stage_names_run_stage_key_and_attempt() {
    let redis = RedisServer::start(&[]);
    let url = redis.url();
    let program = Program::new(&[
        ("AGRPO_REDIS", &url),
        ("RUST_LOG", "warn,agrpo=trace,agrpo_store=trace,agrpo_fleet=trace,agrpo_compute=trace"),
    ]);
    let queued = program.json(&["enqueue", "run.toml", "--json"]);
    let said = program.run(&["--log-format", "json", "worker", "--exit-when-idle", "6"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    // How often each kind of line came, by stage.
    let mut lines = BTreeMap::<String, BTreeMap<String, u32>>::new();
    for line in said.stderr.lines() {
        let fields: BTreeMap<String, Value> =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for id in fields.keys() {
            let twice = line.matches(&format!("\"{id}\":")).count();
            assert_eq!(twice, 1, "{id} comes {twice} times: {line}");
        }
        let text = |name: &str| fields[name].as_str().unwrap();
        assert!(is_rfc_3339(text("timestamp")), "{line}");
        assert!(["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&text("level")), "{line}");
        let message = text("message").to_owned();
        let is_within = fields.contains_key("stage");
        assert_eq!(
            ["started", "computing", "finished"].contains(&message.as_str()),
            is_within && message != "run is done",
            "{line}"
        );
        if is_within {
            assert!(IDS.iter().all(|id| fields.contains_key(*id)), "{line}");
            assert_eq!((&fields["run"], &fields["attempt"]), (&queued["run"], &1.into()));
            *lines.entry(text("stage").to_owned()).or_default().entry(message).or_default() += 1;
        }
    }
    let stages = program.json(&["status", "--json"])["runs"][0]["stages"]["done"].as_u64();
    assert_eq!(Some(lines.len() as u64), stages);
    for (stage, messages) in lines {
        for message in ["started", "computing", "finished"] {
            assert_eq!(messages.get(message), Some(&1), "{stage}: {messages:?}");
        }
    }
}

#[test]
fn for_people_the_ids_are_short() {
    let program = Program::new(&[("RUST_LOG", "agrpo_fleet=debug")]);
    let said = program.run(&["run", "run.toml", "--json"]);
    let run: Value = serde_json::from_str(&said.stdout).unwrap();
    let run = run["run"].as_str().unwrap();
    let line = said.stderr.lines().find(|line| line.contains("computing")).unwrap();
    assert!(line.contains(&format!("run={} stage=", &run[..12])), "{line}");
    assert!(!line.contains(run) && line.contains("attempt=1"), "{line}");
}

/// As in `2026-01-02T03:04:05.678901Z`.
fn is_rfc_3339(text: &str) -> bool {
    let shape = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c });
    shape.collect::<String>() == "0000-00-00T00:00:00.000000Z"
}
