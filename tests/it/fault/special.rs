//! Faults whose promise is more than the same bytes: a stage that kills its worker every time, a stage
//! given to two workers, a disk that is full.

use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

use super::judge::REFERENCE;
use super::kinds::Fault;
use super::scene::{Ending, PROGRAM, Scene, may_mount, run_text};
use super::schedule::{At, Schedule};
use super::{hold, say, setting};
use crate::support::program::Program;

fn calm(name: &str) -> Schedule {
    Schedule::calm(name, setting("SEED", 1))
}

/// Computed by both, recorded once.
#[test]
#[ignore = "make fault"]
fn stage_given_twice() {
    let mut schedule = calm("stage_given_twice");
    let stage = &REFERENCE.index["rollout-000003-01"];
    // The worker that gets it first, and the other one.
    let slow = format!("stage::in-compute::{stage}=1*sleep(6000)->off");
    for worker in 0..2 {
        let point = slow.clone();
        schedule.faults.push((At { stages: 0, ms: 0 }, Fault::Arm { worker, point }));
    }
    schedule.faults.push((At { stages: 1, ms: 0 }, Fault::SameStage { ms: 1500 }));
    let row = hold(&schedule);
    assert!(row.extra > 0, "no stage was computed twice: the test tests nothing");
}

/// Another worker has its stage when it continues.
#[test]
#[ignore = "make fault"]
fn worker_stopped() {
    let row = hold(&Schedule::alone("worker_stopped", setting("SEED", 1)));
    assert!(row.extra > 0, "it stopped without a stage: the test tests nothing");
}

/// What is lost is computed again, and the run counts it: as recomputed, or as computed twice if its worker died before
/// it wrote the record.
#[test]
#[ignore = "make fault"]
fn blob_deleted() {
    let row = hold(&Schedule::alone("blob_deleted", setting("SEED", 1)));
    assert!(row.recomputed + row.twice > 0, "no stage needed the blob: the test tests nothing");
}

#[test]
#[ignore = "make fault"]
fn blob_flipped() {
    let row = hold(&Schedule::alone("blob_flipped", setting("SEED", 1)));
    assert!(row.recomputed + row.twice > 0, "no stage needed the blob: the test tests nothing");
}

/// A body with a flipped bit is requested again: no sound object is moved or computed again.
#[test]
#[ignore = "make fault"]
fn s3_reads_badly() {
    let row = hold(&Schedule::alone("s3_reads_badly", setting("SEED", 1)));
    assert_eq!((row.aside, row.recomputed, row.twice, row.extra), (0, 0, 0, 0), "{row}");
}

/// A server that refuses checksums always will: workers do not end with 4, after which systemd would restart them.
#[test]
#[ignore = "make fault"]
fn s3_knows_no_checksums() {
    let row = hold(&Schedule::alone("s3_knows_no_checksums", setting("SEED", 1)));
    assert!(!row.codes.is_empty() && row.codes.iter().all(|&code| code == 2), "{:?}", row.codes);
}

/// A policy whose file is read in windows, in three iterations' worth of a second each.
fn large_run() -> String {
    let changes = [
        ("d_model = 32", "d_model = 768"),
        ("n_layers = 2", "n_layers = 3"),
        ("n_heads = 2", "n_heads = 4"),
        ("mlp_hidden_size = 64", "mlp_hidden_size = 1664"),
        ("steps = 100", "steps = 2"),
        ("batch = 32", "batch = 4"),
        ("micro_batch = 32", "micro_batch = 4"),
        ("steps_per_stage = 50", "steps_per_stage = 2"),
        ("prompts = 8", "prompts = 2"),
        ("group = 8", "group = 4"),
        ("k = 4", "k = 1"),
        ("iterations = 8", "iterations = 1"),
        ("problems = 32", "problems = 4"),
        ("every = 2", "every = 1"),
    ];
    changes.iter().fold(run_text(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    })
}

/// A byte of the base changes on the disk after it was checked and before it is used; length and times stay.
#[test]
#[ignore = "make fault"]
fn large_blob_flipped_after_its_first_look() {
    let run = large_run();
    let program = Program::new(&[]).using(&PROGRAM);
    std::fs::write(program.folder().join("run.toml"), &run).unwrap();
    let undisturbed = program.json(&["run", "run.toml", "--json"]);

    let mut schedule = calm("large_blob_flipped_after_its_first_look");
    (schedule.folder, schedule.workers) = (true, 1);
    let slow = "stage::in-compute::rollout=1*sleep(4000)->off".to_owned();
    let mut scene = Scene::set_with(&schedule, &[slow], &run);
    let limit = Duration::from_secs(150);
    let begin = Instant::now();
    while !scene.ledger().begun.iter().any(|begun| begun.kind == "rollout") {
        assert!(begin.elapsed() < limit, "no rollout begins{}", scene.last_words());
        std::thread::sleep(Duration::from_millis(20));
    }
    let blobs = std::fs::read_dir(scene.program.store().join("cas")).unwrap();
    let size = |path: &std::path::PathBuf| path.metadata().map_or(0, |found| found.len());
    // The policy; the state of its optimizer is larger.
    let large = blobs.map(|blob| blob.unwrap().path()).filter(|blob| size(blob) > 64 << 20);
    let policy = large.min_by_key(size).expect("a policy that is read in windows");
    flip(&policy);
    // In use when it was flipped: the stage that had looked at it had read nothing yet.
    assert!(scene.ledger().ended.iter().all(|end| end.kind != "rollout"), "it came too late");
    assert_eq!(scene.await_end(limit), Ending::Done, "{}", scene.last_words());
    scene.retire();
    let status = scene.program.json(&["status", &scene.run, "--json"]);
    assert_eq!(status["runs"][0]["policy"], undisturbed["policy"]);
    let recomputed = status["runs"][0]["stages"]["rewound"].as_u64().unwrap_or_default();
    assert!(recomputed > 0, "no stage found it: the test tests nothing");
    assert_eq!(scene.program.run(&["verify", &scene.run]).code, Some(0));
    say(&format!(
        "{}: {:.1} s, a bit of {} bytes turned in use, {recomputed} stages computed again",
        schedule.name,
        begin.elapsed().as_secs_f64(),
        size(&policy)
    ));
}

/// Turns a bit, and leaves length and times as they were.
fn flip(path: &std::path::Path) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let was = file.metadata().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, was.len() / 2).unwrap();
    byte[0] ^= 1;
    file.write_all_at(&byte, was.len() / 2).unwrap();
    file.set_modified(was.modified().unwrap()).unwrap();
}

/// A crash that does not repeat costs one more attempt.
#[test]
#[ignore = "make fault"]
fn stage_that_aborts_once() {
    let mut schedule = calm("stage_that_aborts_once");
    let stage = &REFERENCE.index["update-000003"];
    let point = format!("stage::in-compute::{stage}=1*return(abort)->off");
    for worker in 0..2 {
        let point = point.clone();
        schedule.faults.push((At { stages: 0, ms: 0 }, Fault::Arm { worker, point }));
    }
    let row = hold(&schedule);
    assert!(row.deaths > 0, "nothing aborted: the test tests nothing");
}

/// A crash that always repeats ends in a failure record, and another run goes on; once the cause is gone, new attempts
/// end the run in the same bytes.
#[test]
#[ignore = "make fault"]
fn stage_that_aborts_every_time() {
    let schedule = calm("stage_that_aborts_every_time");
    let stage = &REFERENCE.index["gradient-000002-01"];
    let point = format!("stage::in-compute::{stage}=return(abort)");
    let mut scene = Scene::set_with(&schedule, &[point], &run_text());
    let begin = Instant::now();
    let other = run_text().replace("seed = 7", "seed = 8");
    std::fs::write(scene.program.folder().join("other.toml"), other).unwrap();
    let other = scene.program.json(&["enqueue", "other.toml", "--json"]);
    let limit = Duration::from_secs(150);
    assert_eq!(scene.play(&schedule, limit), Ending::Failed, "{}", scene.last_words());
    let said = scene.program.run(&["status", &scene.run]);
    say(&said.stdout);
    assert!(said.stdout.contains("begun 3 times"), "{}", said.stdout);
    let aborted = scene.ledger().begun.iter().filter(|begun| begun.stage == *stage).count();
    assert_eq!(aborted, 3, "attempts before the run stopped");
    let other = other["run"].as_str().unwrap().to_owned();
    let own = std::mem::replace(&mut scene.run, other);
    assert_eq!(scene.await_end(limit), Ending::Done, "the other run{}", scene.last_words());
    scene.run = own;
    // Processes that have the fail point are replaced by ones without it.
    scene.slots.iter().for_each(|slot| slot.disarm());
    scene.slots.iter().for_each(|slot| _ = slot.signal(rustix::process::Signal::KILL));
    let again: &[&str] = match scene.program.run(&["retry", "--help"]).code {
        Some(0) => &["retry", &scene.run],
        _ => &["enqueue", "run.toml"],
    };
    let said = scene.program.run(again);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let ending = scene.await_done(limit);
    assert_eq!(ending, Ending::Done, "{}", scene.last_words());
    let wall = begin.elapsed();
    let status = scene.program.json(&["status", &scene.run, "--json"]);
    assert_eq!(status["runs"][0]["policy"], REFERENCE.policy.as_str());
    say(&format!("{}: {} s", schedule.name, wall.as_secs()));
}

/// The disk of a store in a folder is full for some writes: workers wait until there is room.
#[test]
#[ignore = "make fault"]
fn disk_full_under_workers() {
    let mut schedule = calm("disk_full_under_workers");
    schedule.folder = true;
    for worker in 0..2 {
        let point = format!("store::write={}*off->12*return->off", 40 + 30 * worker);
        schedule.faults.push((At { stages: 0, ms: 0 }, Fault::Arm { worker, point }));
    }
    let row = hold(&schedule);
    assert_eq!((row.deaths, row.extra), (0, 0), "nothing that was computed is given up");
}

/// A small file system that is really full: the program reports it, and goes on once there is room.
#[test]
#[ignore = "make fault"]
fn disk_full_under_a_run() {
    assert!(
        may_mount(),
        "unshare -rm may not mount here: run this suite where user namespaces are allowed"
    );
    let program = Program::new(&[]).using(&PROGRAM);
    std::fs::write(program.folder().join("run.toml"), run_text()).unwrap();
    let script = "mkdir disk && mount -t tmpfs -o size=1m none disk
        \"$0\" run run.toml --store disk/store --json 2> full; echo $? > code
        test -z \"$(find disk -name '.new-*')\"; echo $? > left
        mount -o remount,size=64m none disk
        \"$0\" run run.toml --store disk/store --json 2> /dev/null";
    let output = Command::new("unshare")
        .args(["-rm", "bash", "-c", script])
        .arg(&*PROGRAM)
        .current_dir(program.folder())
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap();
    let read = |name: &str| std::fs::read_to_string(program.folder().join(name)).unwrap();
    let (full, code) = (read("full"), read("code"));
    assert_eq!((code.trim(), read("left").trim()), ("4", "0"), "{full}");
    assert!(full.contains("no space left"), "{full}");
    let done: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(done["policy"], REFERENCE.policy.as_str());
    assert!(done["stages"]["reused"].as_u64().unwrap() > 0, "what was stored is used");
}
