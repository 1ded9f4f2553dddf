//! GPU options on machines without a GPU: the errors, the restart that loads a CUDA build of libtorch, and the
//! benchmark on the processor.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use agrpo_spec::record::seal;
use agrpo_spec::{Numerics, Run, RunConfig};
use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::program::{Program, RUN, Said};
use crate::support::wait::wait_for;

/// No GPU is visible, whatever the machine has.
const BLIND: (&str, &str) = ("CUDA_VISIBLE_DEVICES", "-1");

fn error(said: &Said) -> String {
    assert_eq!(said.stdout, "", "an error leaves stdout empty");
    format!("{}\n{}", said.code.unwrap(), said.stderr)
}

#[test]
fn a_gpu_that_is_not_there_is_one_line_and_code_4() {
    let program = Program::new(&[BLIND]);
    let ran = error(&program.run(&["run", "run.toml", "--device", "cuda:0"]));
    assert_snapshot!(ran, @r"
    4
    error: cuda:0: CUDA_VISIBLE_DEVICES=-1 shows 0 GPUs, counted from 0

    hint: agrpo doctor --device cuda:0 says what is there
    ");
    assert_eq!(error(&program.run(&["worker", "--device", "cuda:0"])), ran);
    if !Path::new("/dev/nvidiactl").exists() {
        let said = Program::new(&[]).run(&["run", "run.toml", "--device", "cuda:0"]);
        assert!(
            error(&said).starts_with("4\nerror: cuda:0: no NVIDIA driver answers ("),
            "{}",
            said.stderr
        );
    }
    assert!(!program.store().exists(), "nothing was begun");
}

#[test]
fn a_class_of_gpus_says_what_to_type() {
    let program = Program::new(&[]);
    assert_snapshot!(error(&program.run(&["run", "run.toml", "--numerics", "cuda:90"])), @r"
    2
    error: numerics class cuda:90 is computed on a GPU, and the device is cpu

    hint: add --device cuda:0
    ");
    assert_snapshot!(error(&program.run(&["worker", "--numerics", "cuda:90"])), @r"
    2
    error: numerics class cuda:90 is computed on a GPU, and the device is cpu

    hint: add --device cuda:0
    ");
    assert_snapshot!(error(&program.run(&["run", "run.toml", "--numerics", "cuda"])), @r"
    2
    error: invalid value 'cuda' for '--numerics <CLASS>': `cuda` is no numerics class: expected `cpu-portable` or `cuda:SM`, as in `cuda:90`

    For more information, try '--help'.
    ");
    assert_snapshot!(error(&program.run(&["run", "run.toml", "--device", "gpu"])), @r"
    2
    error: invalid value 'gpu' for '--device <DEVICE>': `gpu` is no device: expected cpu, or cuda:N for the GPU number N, as in cuda:0

    For more information, try '--help'.
    ");
}

/// Another class is another run; the same class by another way is the same run.
#[test]
fn the_class_is_part_of_a_run_s_identity() {
    let program = Program::new(&[]);
    let run = |arguments: &[&str]| {
        let said = program.json(&[&["run", "run.toml", "--dry-run", "--json"], arguments].concat());
        said["run"].as_str().unwrap().to_owned()
    };
    let of_processor = run(&[]);
    assert_ne!(of_processor, run(&["--numerics", "cuda:90"]));
    assert_eq!(of_processor, run(&["--numerics", "cpu-portable", "--device", "cpu"]));
}

/// Earlier releases had a second class of the processor.
#[test]
fn a_class_that_is_gone_is_refused_by_what_to_do() {
    let program = Program::new(&[]);
    assert_snapshot!(error(&program.run(&["run", "run.toml", "--numerics", "cpu-native"])), @r"
    2
    error: invalid value 'cpu-native' for '--numerics <CLASS>': this class is gone: leave it out, cpu-portable is as fast

    For more information, try '--help'.
    ");
    let text = RUN.replace("seed = 7", "seed = 7\nnumerics = \"cpu-native\"");
    std::fs::write(program.folder().join("run.toml"), text).unwrap();
    let [run, enqueue] = ["run", "enqueue"].map(|verb| error(&program.run(&[verb, "run.toml"])));
    assert_snapshot!(run, @r#"
    2
    error: run.toml: numerics = "cpu-native": this class is gone: leave it out, cpu-portable is as fast
    "#);
    assert_eq!(enqueue, run);
    assert!(!program.store().exists(), "nothing was begun");
}

/// A run that an earlier release computed in that class: what it left is shown, and nothing is computed for it.
#[test]
fn a_run_of_a_class_that_is_gone_is_read() {
    let program = Program::new(&[]);
    let run = Run::parse(&RUN).unwrap();
    let config = RunConfig { numerics: Numerics::CpuNative, ..run.config().clone() };
    let id = Run::resolve(config.clone()).unwrap().id().to_string();
    let record = program.store().join("runs").join(&id).join("run.json");
    std::fs::create_dir_all(record.parent().unwrap()).unwrap();
    std::fs::write(record, seal(&config)).unwrap();
    let status = program.json(&["status", "--json"]);
    assert_eq!(status["runs"][0]["run"], id.as_str());
    assert_ne!(status["runs"][0]["state"], "unreadable");
    let shown = program.json(&["show", &id, "--json"]);
    assert_eq!(shown["config"]["numerics"], "cpu-native");
}

#[test]
fn doctor_notes_what_is_missing_and_objects_where_it_was_asked_for() {
    let program = Program::new(&[BLIND]);
    let gpu = |arguments: &[&str]| {
        let said = program.run(&[&["doctor", "--json"], arguments].concat());
        let answer: Value = serde_json::from_str(&said.stdout).unwrap();
        let checks = answer["checks"].as_array().unwrap().clone();
        let verdict = |name: &str| {
            let check = checks.iter().find(|check| check["name"] == name).unwrap();
            check["verdict"].as_str().unwrap().to_owned()
        };
        (said.code, verdict("gpu"), verdict("cuda"))
    };
    assert_eq!(gpu(&[]), (Some(0), "note".to_owned(), "note".to_owned()));
    assert_eq!(gpu(&["--device", "cuda:0"]), (Some(4), "bad".to_owned(), "bad".to_owned()));
}

/// A whole libtorch to the loader: the CPU half in use, and an empty CUDA half.
struct HollowBuild(tempfile::TempDir);

impl HollowBuild {
    fn new() -> Self {
        let build = Self(tempfile::tempdir().unwrap());
        let libraries = build.root().join("lib");
        std::fs::create_dir_all(&libraries).unwrap();
        let real = libtorch_cpu();
        let real = real.parent().unwrap();
        for name in ["libtorch_cpu.so", "libc10.so", "libgomp.so.1"] {
            if real.join(name).exists() {
                symlink(real.join(name), libraries.join(name)).unwrap();
            }
        }
        // The wheels' libraries find NVIDIA's relative to themselves.
        symlink(real.join("../../nvidia"), build.0.path().join("nvidia")).unwrap();
        std::fs::write(build.root().join("version.py"), "__version__ = '2.11.0+cu130'\n").unwrap();
        let empty = libraries.join("empty.c");
        std::fs::write(&empty, "").unwrap();
        let made = Command::new("cc")
            .args(["-shared", "-o"])
            .arg(libraries.join("libtorch_cuda.so"))
            .arg(&empty)
            .status();
        assert!(made.unwrap().success());
        build
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("torch")
    }
}

/// The library that this very process runs on.
fn libtorch_cpu() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so")).unwrap();
    PathBuf::from(&line[line.find('/').unwrap()..])
}

/// The restart puts a CUDA build in front, once, and libtorch is asked only then.
#[test]
fn a_cuda_build_is_loaded_by_one_restart() {
    let (build, golden) = (HollowBuild::new(), golden());
    let root = build.root();
    let program = Program::new(&[("AGRPO_LIBTORCH", root.to_str().unwrap()), BLIND]);
    let bench = ["bench-gpu", "--tiny", "--device", "cuda:0", "--numerics", "cuda:90"];
    let said = program.run(&[&bench[..], &["--golden", &golden, "--section", "parity"]].concat());
    let last = said.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or(&said.stderr);
    assert_snapshot!(last, @"error: cuda:0: libtorch 2.11.0+cu130 finds no GPU: the driver is absent, or older than it needs");
    assert_eq!(said.code, Some(4));
}

/// `make gpu` as on a machine with a GPU, on the processor.
#[test]
fn make_gpu_measures_every_section_and_writes_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("bench/gpu.json");
    let said = Command::new("make")
        .args(["gpu", "DEVICE=cpu", "ARGS=--tiny"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("GPU_BENCH", env!("CARGO_BIN_EXE_agrpo"))
        .env("GPU_JSON", &json)
        .env("AGRPO_STORE", folder.path().join("store"))
        .env_remove("MAKEFLAGS")
        .env_remove("AGRPO_LIBTORCH")
        .env_remove("AGRPO_REDIS")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{stderr}");
    assert_eq!(stderr.matches(": at most ").count(), 8, "each section says its limit: {stderr}");
    let document: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let section = |name: &str| {
        let all = document["sections"].as_array().unwrap();
        all.iter().find(|section| section["name"] == name).unwrap()
    };
    for name in ["doctor", "operations", "parity", "replay", "ratio", "model", "update"] {
        assert_eq!(section(name)["state"], "done", "{name}: {}", section(name));
    }
    check_rows(&|name| section(name)["rows"].as_array().unwrap());
    // Where Python has PyTorch, the same rows stand beside ours; else it says that it has none.
    let reference = section("reference");
    match reference["state"].as_str().unwrap() {
        "done" => assert_eq!(reference["rows"].as_array().unwrap().len(), 6, "{reference}"),
        state => {
            assert_eq!(state, "skipped", "{reference}");
            assert!(reference["error"].as_str().unwrap().starts_with("Python has no PyTorch"));
        }
    }
    let page = std::fs::read_to_string(json.with_extension("md")).unwrap();
    for heading in ["Failed\n\nNothing.", "Sections", "Parity", "The same bits again", "Speed"] {
        assert!(page.contains(&format!("\n## {heading}")), "{heading}: {page}");
    }
}

/// What holds on every processor.
fn check_rows<'d>(of: &dyn Fn(&str) -> &'d Vec<Value>) {
    let row = |section: &str, name: &str| {
        let found = of(section).iter().find(|row| row["name"] == name);
        &found.unwrap_or_else(|| panic!("{section}: {name}"))["result"]
    };
    for what in ["logits", "gradients of all weights", "gradients of adapters"] {
        assert_eq!(row("parity", &format!("{what}, f32"))["relative"], 0.0, "the same processor");
        let half = row("parity", &format!("{what}, bf16"))["relative"].as_f64().unwrap();
        assert!(half > 0.0 && half < 0.2, "{what}: {half}");
    }
    let stages = of("replay").iter().filter(|row| row["result"]["identical"] == true);
    assert_eq!(stages.count(), 7, "a row for each kind of stage");
    for precision in ["f32", "bf16"] {
        for states in [1, 4] {
            let name = format!("ratio, {states} states a pass, {precision}");
            assert_eq!(row("ratio", &name)["ratio_deviation"], 0.0, "{name}");
        }
    }
    for name in ["rollout of a block", "gradient, checkpointed", "gradient"] {
        assert_eq!(row("model", name)["repeats"], true, "{name}");
        assert!(row("model", name)["seconds"].as_f64().unwrap() > 0.0, "{name}");
    }
    let of_model = 2 * 512 * 32 + 32 + 2 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32);
    assert_eq!(row("model", "make")["parameters"], of_model);
    assert!(row("model", "forward")["share_of_peak"].is_null(), "a processor's peak is not known");
}

/// A section that fails, and one that the budget has no time for, leave the others alone.
#[test]
fn what_fails_is_in_the_document_and_the_rest_is_measured() {
    let program = Program::new(&[]);
    let golden = golden();
    let bench = ["bench-gpu", "--tiny", "--golden", &golden, "--python", "/nowhere/python"];
    let said = program.run(&[&bench[..], &["--only", "reference,ratio"]].concat());
    assert_eq!(said.code, Some(6), "{}", said.stderr);
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    let states = |document: &Value| {
        let sections = document["sections"].as_array().unwrap();
        let state = |section: &Value| [&section["name"], &section["state"]].map(Value::to_string);
        sections.iter().map(|section| state(section).join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(states(&document), [r#""ratio" "done""#, r#""reference" "failed""#]);
    assert!(
        said.stderr.contains("\nfailed: reference: /nowhere/python cannot be started: "),
        "{}",
        said.stderr
    );
    let short = program.run(&[&bench[..], &["--only", "model,update", "--budget", "1"]].concat());
    assert_eq!(short.code, Some(0), "{}", short.stderr);
    let document: Value = serde_json::from_str(&short.stdout).unwrap();
    assert_eq!(states(&document), [r#""model" "skipped""#, r#""update" "skipped""#]);
    let why = document["sections"][0]["error"].as_str().unwrap();
    assert_eq!(why, "1 s are left of the budget, and it takes about 50");
}

/// A killed benchmark must not leave a section behind that holds the device.
#[test]
fn a_section_ends_with_the_benchmark_that_started_it() {
    let program = Program::new(&[]);
    let golden = golden();
    // As much as takes minutes.
    let long = ["--sequences", "4096", "--layers", "1024", "--budget", "86400"];
    let bench = ["bench-gpu", "--tiny", "--golden", &golden, "--only", "model"];
    let mut killed = program.start(&[&bench[..], &long].concat());
    let parent = Pid::from_child(&killed);
    let children = format!("/proc/{parent}/task/{parent}/children");
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let section = wait_for("a section that computes", || {
        let section = read(&children).trim().parse().ok().and_then(Pid::from_raw)?;
        let stat = read(&format!("/proc/{section}/stat"));
        // User time, in hundredths of a second.
        let ticks: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(11)?.parse().ok()?;
        (ticks > 100).then_some(section)
    });
    kill_process(parent, Signal::KILL).unwrap();
    killed.wait().unwrap();
    // What has ended has no arguments.
    let is_gone = || read(&format!("/proc/{section}/cmdline")).is_empty();
    let pause = |_: &u32| std::thread::sleep(Duration::from_millis(10));
    let ended = (0..500u32).inspect(pause).any(|_| is_gone());
    if !ended {
        kill_process(section, Signal::KILL).unwrap();
    }
    assert!(ended, "the section went on without the benchmark");
}

fn golden() -> String {
    format!("{}/tests/golden/llada_tiny", env!("CARGO_MANIFEST_DIR"))
}
