//! The one integration binary: a module a subject. Nothing here is skipped: a server that a test needs
//! and cannot find is a failure.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod base;
mod browser;
mod bytes;
mod checkpoint;
mod cli;
mod compare;
mod documents;
mod evaluate;
mod export;
mod families;
mod fault;
mod full_fine_tuning;
mod fused;
mod golden;
mod gpu;
mod gradient;
mod guide;
mod help;
mod infra;
mod listeners;
mod loading;
mod logs;
mod lora;
mod metrics;
mod odd_s3;
mod outputs;
mod own_task;
mod processes;
mod programs;
mod records;
mod replay;
mod report;
mod retention;
mod score;
mod secrets;
mod shards;
mod systemd;
mod tls;
mod tune;
mod unfit_redis;
mod workers;

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::Path;

/// A file that no module line names would be a test that never runs.
#[test]
fn every_file_is_a_module() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let this = include_str!("main.rs");
    let listed: BTreeSet<String> = this
        .lines()
        .filter_map(|line| Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned()))
        .filter(|name| name != "support")
        .collect();
    let present: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".rs").filter(|name| *name != "main").map(str::to_owned)
        })
        .collect();
    assert_eq!(listed, present);
}
