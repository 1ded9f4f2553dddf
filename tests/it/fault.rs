//! The promise under faults: the run ends in the same bytes, or stops with a readable failure record; nothing is lost,
//! and no wrong result is accepted.
//!
//! `make fault` runs this, `make soak` the random schedules; docs/faults.md says what each fault does and
//! costs. Workers are processes of the real program, whose fail points are compiled in by the dev profile; Redis and
//! SeaweedFS are real. Every test is ignored, so that `cargo test` compiles the suite and does not run it.

mod fleet;
mod judge;
mod kinds;
mod ledger;
mod proxy;
mod scene;
mod schedule;
mod services;
mod soak;
mod special;
mod strike;
mod tampered;
mod witness;

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use judge::{REFERENCE, Row, judge};
use scene::Scene;
use schedule::Schedule;

/// A variable of `make fault` and `make soak` as a number.
fn setting(name: &str, default: u64) -> u64 {
    let value = std::env::vars().find(|(key, value)| key == name && !value.is_empty());
    value.map_or(default, |(_, value)| value.parse().expect("a number"))
}

/// The folder of the rows of schedules, and of the logs of broken ones.
fn folder() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_BIN_EXE_agrpo")).with_file_name("../fault");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Prints a line at once, and appends it to the log of the suite.
#[expect(clippy::print_stderr, reason = "the cost of a schedule is printed also where it held")]
fn say(line: &str) {
    eprintln!("{line}");
    let log = folder().join("last.log");
    let mut log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    log.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Plays a schedule to its end and judges it.
fn play(schedule: &Schedule) -> (Row, String) {
    // The reference comes first: its time is not the schedule's.
    assert!(!REFERENCE.run.is_empty());
    let mut scene = Scene::set(schedule);
    let begin = Instant::now();
    let limit = Duration::from_secs(150) + Duration::from_millis(schedule.lasting_ms());
    let ending = scene.play(schedule, limit);
    let wall = begin.elapsed();
    let words = scene.last_words();
    let deaths = scene.retire();
    let row = judge(&scene, schedule, &ending, &deaths, wall);
    if !row.complaints.is_empty() || setting("KEEP", 0) > 0 {
        scene.save_logs(&folder().join(format!("{}-{}", schedule.name, schedule.seed)));
    }
    (row, words)
}

/// Plays a schedule that has to hold.
fn hold(schedule: &Schedule) -> Row {
    say(&format!("begin    {schedule}"));
    let (row, words) = play(schedule);
    say(&row.to_string());
    assert!(row.complaints.is_empty(), "{schedule}\n{:?}{words}", row.complaints);
    row
}

macro_rules! alone {
    ($($name:ident)*) => {
        $(
            #[test]
            #[ignore = "make fault"]
            fn $name() {
                hold(&Schedule::alone(stringify!($name), setting("SEED", 1)));
            }
        )*
    };
}

alone! {
    worker_killed worker_cut_off_from_redis
    killed_in_compute killed_before_blobs killed_after_blobs killed_before_manifest
    killed_after_manifest killed_before_enqueue killed_after_enqueue killed_before_ack
    redis_killed_with_file redis_killed_without_file redis_emptied redis_stalled redis_absent_a_minute
    redis_clock_ahead redis_clock_behind redis_emptied_while_its_clock_was_ahead
    s3_answers_with_errors s3_slow s3_breaks_off s3_killed s3_answers_conflict
    redis_evicts_keys redis_has_a_foreign_key
    index_edited record_of_a_newer_program fifos_in_the_store metrics_fill_the_file_table
    clock_an_hour_ahead clock_an_hour_behind
    clock_an_hour_ahead_without_s3 clock_an_hour_behind_without_s3
}

macro_rules! mixes {
    ($($name:ident)*) => {
        $(
            #[test]
            #[ignore = "make fault"]
            fn $name() {
                hold(&Schedule::mix(stringify!($name), setting("SEED", 1), true));
            }
        )*
    };
}

mixes! { mix_a mix_b mix_c mix_d mix_e mix_f }
