//! Data that a run loses, data that retention deletes, and the verbs that maintain a store.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use agrpo_spec::ArtifactDigest;

use crate::support::program::{Program, RUN};
use crate::support::wait::wait_for;

/// The policy of an undisturbed run.
static UNDISTURBED: LazyLock<String> = LazyLock::new(|| {
    let program = Program::new(&[]);
    program.json(&["run", "run.toml", "--json"]);
    program.policy().0
});

/// The files of a folder, which has to be there.
fn files(folder: PathBuf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&folder);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

/// The folder of the only run's records.
fn record(program: &Program) -> PathBuf {
    std::fs::read_dir(program.store().join("runs")).unwrap().next().unwrap().unwrap().path()
}

/// The name of a stage of the only run.
fn stage(program: &Program, key: &str) -> String {
    let index = files(record(program).join("stages"));
    let names: BTreeSet<String> =
        index.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    let start = format!("{key}.");
    names.iter().find_map(|name| name.strip_prefix(&start)).unwrap().to_owned()
}

/// A run that was killed once its second update was stored.
fn killed_half_way() -> Program {
    let program = Program::new(&[]);
    let mut child = program.start(&["run", "run.toml", "--workers", "1"]);
    let runs = program.store().join("runs");
    // The folders appear while the run goes on.
    let entries = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_there = || {
        let stages = entries(runs.clone()).flat_map(|run| entries(run.path().join("stages")));
        stages
            .map(|stage| stage.file_name())
            .any(|name| name.to_string_lossy().starts_with("update-000002"))
    };
    while !is_there() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    program
}

fn flip(path: &PathBuf) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_run_whose_blobs_are_flipped_or_deleted_half_way_ends_in_the_same_bytes() {
    for delete in [false, true] {
        let program = killed_half_way();
        // Nothing in the store says whether a process is at work.
        let status = program.run(&["status"]).stdout;
        assert!(status.contains("  unfinished  "), "{status}");
        assert_eq!(program.policy().1, "running");
        let blobs = files(program.store().join("cas"));
        assert!(blobs.len() > 15);
        for blob in &blobs {
            if delete { std::fs::remove_file(blob).unwrap() } else { flip(blob) }
        }
        program.json(&["run", "run.toml", "--json"]);
        assert_eq!(program.policy(), (UNDISTURBED.clone(), "done".to_owned()));
        let status = program.json(&["status", "--json"]);
        let stages = &status["runs"][0]["stages"];
        let manifests = files(program.store().join("stages")).len();
        assert_eq!(stages["done"].as_u64().unwrap(), manifests as u64, "one record a stage");
        // Blobs that are missing when a run is opened are planned again; damaged ones are found by their readers.
        let folder = record(&program).join("rewound");
        let recomputed = if folder.is_dir() { files(folder) } else { vec![] };
        assert_eq!(stages["rewound"].as_u64().unwrap(), recomputed.len() as u64);
        assert_eq!(recomputed.is_empty(), delete);
        for path in recomputed {
            let text: serde_json::Value =
                serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            assert_eq!(text["why"], "corrupt");
            assert!(text["lost"].is_string() && text["needed_by"].is_string());
        }
    }
}

#[test]
fn a_run_with_retention_ends_in_the_same_bytes_and_can_be_replayed() {
    let program = Program::new(&[]);
    let text = format!(
        "{}\n[retention]\nkeep_policies = 4\ngradients = \"drop-after-update\"\n\
         trajectories = \"drop-after-update\"\n",
        *RUN
    );
    std::fs::write(program.folder().join("run.toml"), text).unwrap();
    program.json(&["run", "run.toml", "--json"]);
    assert_eq!(program.policy().0, *UNDISTURBED);
    let verified = program.json(&["verify", "--json"]);
    assert!(verified["dropped"]["objects"].as_u64().unwrap() > 10, "{verified}");
    assert_eq!(verified["orphaned"]["objects"], 0);
    let again = program.json(&["run", "run.toml", "--json"]);
    assert_eq!(again["stages"]["computed"], 0);

    // Nothing is lost, and nothing is reported as lost.
    let repaired = program.run(&["run", "run.toml", "--repair"]);
    assert_eq!(repaired.code, Some(0), "{}", repaired.stderr);
    assert!(!repaired.stderr.contains("missing or truncated"), "{}", repaired.stderr);
    let run = record(&program).file_name().unwrap().to_str().unwrap()[..12].to_owned();
    let deleted = format!(": the retention of run {run} deleted it\n");
    let rollout = stage(&program, "rollout-000002-00");
    for arguments in [
        &["replay", "--run", "bytes"][..],
        &["show", &rollout, "--sample", "0"],
        &["export", "bytes", "--iteration", "1", "--format", "hf", "-o", "out"],
    ] {
        let said = program.run(arguments);
        assert_eq!(said.code, Some(5), "{}", said.stderr);
        assert!(said.stderr.contains(&deleted), "{}", said.stderr);
        assert!(said.stderr.contains(" --rewind computes "), "{}", said.stderr);
        assert!(!said.stderr.contains("--repair"), "{}", said.stderr);
    }

    let update = stage(&program, "update-000002");
    let said = program.run(&["replay", &update]);
    assert_eq!((said.code, &*said.stdout), (Some(5), ""), "{}", said.stderr);
    let hint = format!("agrpo replay {} --rewind computes ", &update[..12]);
    assert!(said.stderr.contains(&hint), "{}", said.stderr);
    assert!(said.stderr.contains(" stages again, from rollout-000001-0"), "{}", said.stderr);
    let said = program.run(&["replay", &update, "--rewind"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stdout.ends_with("\nidentical\n"), "{}", said.stdout);
}

#[test]
fn a_lost_part_of_the_index_yields_no_older_policy() {
    let program = Program::new(&[]);
    let run = program.json(&["run", "run.toml", "--json"]);
    let entries = files(record(&program).join("stages"));
    let late =
        |path: &&PathBuf| ["-000003", "-000004"].iter().any(|n| path.to_str().unwrap().contains(n));
    for entry in entries.iter().filter(late) {
        std::fs::remove_file(entry).unwrap();
    }
    assert_eq!(program.policy(), (UNDISTURBED.clone(), "done".to_owned()));
    let exported = program.json(&["export", "bytes", "--format", "hf", "-o", "out", "--json"]);
    assert_eq!((&exported["policy"], &exported["iteration"]), (&run["policy"], &4.into()));
    let shown = program.json(&["show", "bytes", "--json"]);
    assert_eq!(shown["stages"].as_object().unwrap().len(), entries.len());
    let evaluated = program.run(&["evaluate", "bytes"]);
    assert!(evaluated.stdout.contains("iteration 4"), "{}", evaluated.stdout);
}

#[test]
fn verify_finds_what_is_wrong_and_names_it() {
    let program = Program::new(&[]);
    program.json(&["run", "run.toml", "--json"]);
    let said = program.run(&["verify", "bytes"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let [first, second] = &files(program.store().join("cas"))[..2] else { unreachable!() };
    flip(first);
    std::fs::remove_file(second).unwrap();
    let said = program.run(&["verify"]);
    assert_eq!(said.code, Some(5), "{}", said.stderr);
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(said.stdout.contains(&format!("corrupt  cas/{}", name(first))), "{}", said.stdout);
    assert!(said.stdout.contains(&format!("missing  cas/{}", name(second))), "{}", said.stdout);
    // A policy that nothing reads, a record before the newest update, and the run's own record.
    let update = stage(&program, "update-000004");
    let manifest = std::fs::read(program.store().join("stages").join(update)).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let weights = manifest["outputs"]["policy/model.safetensors"]["digest"].as_str().unwrap();
    flip(&program.store().join("cas").join(weights));
    flip(&program.store().join("stages").join(stage(&program, "rollout-000001-00")));
    flip(&record(&program).join("run.json"));
    let said = program.run(&["gc"]);
    assert_eq!(said.code, Some(5), "{}", said.stderr);
    let advice = "agrpo run FILE, with the run's file, writes it again; nothing was swept";
    assert!(said.stderr.contains(advice), "{}", said.stderr);
    // One pass through the suggested commands repairs everything.
    let said = program.run(&["verify"]);
    assert_eq!(said.code, Some(5), "{}", said.stderr);
    let (_, next) = said.stdout.split_once("\nnext:\n").unwrap();
    let run = record(&program).file_name().unwrap().to_str().unwrap()[..12].to_owned();
    insta::assert_snapshot!(next.replace(&run, "[run]"), @r"
      agrpo run FILE --repair, with the run's file, computes again what is missing or corrupt
      agrpo forget [run] --force, if its file is lost, gives that run up
    ");
    program.json(&["run", "run.toml", "--repair", "--json"]);
    let said = program.run(&["verify"]);
    assert_eq!(said.code, Some(0), "{}", said.stdout);
    assert_eq!(program.policy(), (UNDISTURBED.clone(), "done".to_owned()));
    assert_eq!(program.run(&["gc"]).code, Some(0));
}

/// The run file's source is read again although the digest is pinned.
#[test]
fn a_dataset_that_is_damaged_or_lost_is_fetched_again() {
    let program = crate::own_task::letters();
    let digest = ArtifactDigest::of(&std::fs::read(program.folder().join("train.jsonl")).unwrap());
    let pinned = format!("train = {{ from = \"train.jsonl\", sha256 = \"{digest}\" }}");
    program.change("train = { from = \"train.jsonl\" }", &pinned);
    let policy = program.json(&["run", "run.toml", "--json"])["policy"].clone();
    let blob = program.store().join(format!("cas/{digest}"));
    for is_lost in [false, true] {
        if is_lost {
            std::fs::remove_file(&blob).unwrap();
        } else {
            flip(&blob);
        }
        let said = program.run(&["verify"]);
        assert_eq!(said.code, Some(5), "{}", said.stdout);
        let (_, next) = said.stdout.split_once("\nnext:\n").unwrap();
        insta::allow_duplicates! {
            insta::assert_snapshot!(next, @"  agrpo run FILE fetches again what the run's file names, and agrpo import FOLDER stores a model again");
        }
        assert_eq!(program.json(&["run", "run.toml", "--json"])["policy"], policy);
        assert_eq!(program.run(&["verify"]).code, Some(0));
    }
}

/// `gc` and `forget` name the command that removes a run whose record is not a regular file.
#[test]
fn a_run_whose_record_is_no_file_can_be_forgotten() {
    for is_fifo in [false, true] {
        let program = Program::new(&[]);
        program.json(&["run", "run.toml", "--json"]);
        let path = record(&program).join("run.json");
        std::fs::remove_file(&path).unwrap();
        if is_fifo {
            fifo(&path);
        } else {
            std::fs::create_dir(&path).unwrap();
        }
        let run = record(&program).file_name().unwrap().to_str().unwrap().to_owned();
        let said = program.run(&["gc"]);
        assert_eq!(said.code, Some(5), "{}", said.stderr);
        let advice = format!("agrpo forget {} --force gives the run up", &run[..12]);
        assert!(said.stderr.contains("move it away"), "{}", said.stderr);
        assert!(said.stderr.contains(&advice), "{}", said.stderr);
        let said = program.run(&["forget", &run[..12]]);
        assert_eq!(said.code, Some(5), "{}", said.stderr);
        assert!(said.stderr.contains(&format!("{} --force", &run[..12])), "{}", said.stderr);
        let said = program.run(&["forget", &run[..12], "--force"]);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        assert!(!program.store().join("runs").join(run).exists());
        assert_eq!(program.run(&["gc", "--grace", "0s"]).code, Some(0));
        assert_eq!(program.run(&["verify"]).code, Some(0));
    }
}

fn fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

/// Ends by itself with this code.
fn assert_ends(program: &Program, arguments: &[&str], code: i32) {
    let mut child = program.start(arguments);
    let ended = wait_for("the end of a verb at a FIFO", || child.try_wait().unwrap()).code();
    assert_eq!(ended, Some(code), "{arguments:?}: {}", program.run(arguments).stderr);
}

#[test]
fn no_verb_waits_for_a_fifo() {
    let program = Program::new(&[]);
    program.json(&["run", "run.toml", "--json"]);
    let reward = stage(&program, "reward-000002-00");
    let blob = files(program.store().join("cas")).remove(0);
    let cases = [
        program.store().join("stages").join(&reward),
        record(&program).join("policies/update-000002"),
        blob.clone(),
        program.store().join("cas"),
    ];
    let blob = blob.file_name().unwrap().to_str().unwrap();
    for (case, path) in cases.iter().enumerate() {
        let aside = program.folder().join("aside");
        std::fs::rename(path, &aside).unwrap();
        fifo(path);
        let of_manifest = if case == 0 { 5 } else { 0 };
        for (arguments, code) in [
            (&["verify"][..], 5),
            (&["verify", "bytes"], 5),
            (&["status"], 0),
            (&["status", "bytes"], 0),
            (&["show", "bytes"], 0),
            (&["show", &reward], of_manifest),
            (&["show", &reward[..20]], of_manifest),
            (&["show", blob], if case < 2 { 0 } else { 5 }),
            (&["gc", "--dry-run"], if case % 3 == 0 { 5 } else { 0 }),
            (&["export", "bytes", "--format", "csv", "-o", "a.csv", "--force"], of_manifest),
            (&["replay", &reward], if [0, 3].contains(&case) { 5 } else { 0 }),
        ] {
            // The reward may or may not have read that blob, and a report of evaluations that are gone says so.
            if case < 2 || !["replay", "export"].contains(&arguments[0]) {
                assert_ends(&program, arguments, code);
            }
        }
        let said = program.run(&["verify"]).stdout;
        // No stage computes it, so the only suggestion is to move it away.
        assert!(said.contains("  move what is no regular file"), "{said}");
        assert!(!said.contains("--repair"), "{said}");
        if case == 0 {
            let export = ["export", "bytes", "--format", "csv", "-o", "a.csv", "--force"];
            let said = program.run(&export).stderr;
            assert!(said.contains("hint: move what is no") && !said.contains("--repair"), "{said}");
        }
        let name = path.strip_prefix(program.store()).unwrap().display().to_string();
        assert!(said.contains(&format!("corrupt  {name}  ")), "{said}");
        assert!(said.contains("is a FIFO") || said.contains("a FIFO, expected"), "{said}");
        std::fs::remove_file(path).unwrap();
        std::fs::rename(&aside, path).unwrap();
    }
    assert_eq!(program.run(&["verify"]).code, Some(0));
    // Nor does a verb write to one.
    let out = program.folder().join("out.svg");
    fifo(&out);
    for arguments in [
        &["report", "bytes", "-o", "out.svg"][..],
        &["export", "bytes", "--format", "csv", "-o", "out.svg", "--force"],
        &["export", "bytes", "--format", "hf", "-o", "out.svg", "--force"],
        &["init", "out.svg", "--force"],
        &["evaluate", "bytes", "--plot", "out.svg"],
        &["tune", "bytes", "--plot", "out.svg"],
    ] {
        assert_ends(&program, arguments, 2);
    }
}

#[test]
fn gc_deletes_a_forgotten_run_and_nothing_else() {
    let program = Program::new(&[]);
    program.json(&["run", "run.toml", "--json"]);
    let first_run: BTreeSet<PathBuf> = files(program.store().join("cas")).into_iter().collect();
    program.json(&["run", "run.toml", "--seed", "8", "--json"]);
    let runs = program.json(&["status", "--json"]);
    let ids: Vec<&str> =
        runs["runs"].as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap()).collect();
    let policy = UNDISTURBED.clone();
    let other = runs["runs"].as_array().unwrap().iter().position(|r| r["policy"] != *policy);
    let other = ids[other.unwrap()];
    let dry = program.json(&["forget", other, "--dry-run", "--json"]);
    assert!(dry["freed"]["objects"].as_u64().unwrap() > 20, "{dry}");
    program.json(&["forget", other, "--json"]);
    // Everything is younger than the default grace.
    let default = program.json(&["gc", "--json"]);
    assert_eq!(default["swept"], serde_json::json!({}));
    let counted = program.json(&["gc", "--grace", "0s", "--dry-run", "--json"]);
    let swept = program.json(&["gc", "--grace", "0s", "--json"]);
    assert_eq!(counted["swept"], swept["swept"]);
    let left: BTreeSet<PathBuf> = files(program.store().join("cas")).into_iter().collect();
    assert_eq!(left, first_run);
    assert_eq!(program.run(&["verify"]).code, Some(0));
    let said = program.run(&["gc", "--grace", "soon"]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("as in 90min"), "{}", said.stderr);
}
