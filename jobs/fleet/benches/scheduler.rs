//! What scheduling costs: runs of up to 200,000 stages whose stub computes nothing, by up to 1,000 workers.
//!
//! ```text
//! make simulate                                                  the table below, ten minutes
//! make simulate ARGS='--where s3 --stages 10000 --workers 100'   one row
//! ```
//! `local` is one process without services; `redis` is a real Redis beside a store in memory, and `s3` is
//! a real Redis and a real SeaweedFS (where AGRPO_WEED names one). All workers live in one process, each
//! with what a process of its own would have but the memory of the store's blobs. Every row runs in a fresh
//! process, which measures the memory of that row alone. Seconds depend on other load, processor time hardly does, so
//! cost is processor time: everything that the process did for a stage, the stub and the store included.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its table")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::process::{Command, ExitCode};

use measure::Row;

#[expect(dead_code, reason = "the tests start servers again as well")]
#[path = "../../../tests/support/redis.rs"]
mod redis_server;
#[expect(dead_code, reason = "the fault suite kills it")]
#[path = "../../../tests/support/s3.rs"]
mod s3_server;

#[path = "scheduler/measure.rs"]
mod measure;
#[path = "scheduler/stub.rs"]
mod stub;

/// Every row of the whole table: services, stages, workers.
const TABLE: [(&str, u64, usize); 12] = [
    ("local", 1_000, 10),
    ("local", 10_000, 1),
    ("local", 10_000, 10),
    ("local", 10_000, 100),
    ("local", 10_000, 1_000),
    ("local", 200_000, 10),
    ("files", 5_000, 10),
    ("redis", 1_000, 10),
    ("redis", 10_000, 100),
    ("redis", 10_000, 1_000),
    ("redis", 200_000, 100),
    ("s3", 10_000, 100),
];

fn value(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}

fn main() -> ExitCode {
    if let Some(services) = value("--where") {
        let number =
            |name, usual| value(name).map_or(usual, |text| text.parse().expect("a whole number"));
        let (stages, workers) = (number("--stages", 10_000), number("--workers", 10));
        let asked = Row { services, stages, workers: usize::try_from(workers).expect("few") };
        let seen = measure::simulate(&asked);
        if std::env::args().all(|argument| argument != "--bare") {
            println!("{}", measure::HEAD);
        }
        println!("{}", seen.shown(&asked));
        return ExitCode::SUCCESS;
    }
    println!("{}", measure::HEAD);
    let has_s3 = std::env::vars_os().any(|(name, _)| name == "AGRPO_WEED");
    let mut sound = true;
    for (services, stages, workers) in TABLE {
        if services == "s3" && !has_s3 {
            println!("s3         left out: AGRPO_WEED names no SeaweedFS");
            continue;
        }
        let status = Command::new(std::env::current_exe().expect("this program's own path"))
            .args(["--bare", "--where", services, "--stages", &stages.to_string()])
            .args(["--workers", &workers.to_string()])
            .status()
            .expect("this program starts");
        sound &= status.success();
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
