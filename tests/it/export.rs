//! Exports and imports: Python's libraries read exports, imports read them back, equal runs give equal bytes, and what
//! cannot be exported is refused in one line.

mod large;
mod refused;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use agrpo_compute::model::ModelConfig;
use agrpo_compute::text::chat::ChatTokenizer;
use agrpo_spec::ArtifactDigest;
use insta::assert_snapshot;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};

use crate::checkpoint;
use crate::help::help_of;
use crate::support::not_run::not_run;
use crate::support::program::Program;

/// A run of a checkpoint in bf16 with an adapter, done.
fn words() -> Program {
    let program = checkpoint::program(&[]);
    halve(&program.folder().join("checkpoint/model.safetensors"));
    let said = program.run(&["run", "run.toml"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    program
}

/// Cuts f32 off to bf16, as LLaDA is published.
fn halve(path: &Path) {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let halves = |view: &TensorView<'_>| {
        let numbers = view.data().chunks(4);
        numbers.flat_map(|number| number[2..].to_vec()).collect::<Vec<u8>>()
    };
    let tensors: Vec<_> = file.iter().map(|(name, view)| (name, halves(&view), view)).collect();
    let views = tensors.iter().map(|(name, data, view)| {
        (*name, TensorView::new(Dtype::BF16, view.shape().to_vec(), data).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// A run of a small model of its own, done.
fn small() -> Program {
    let program = Program::new(&[]);
    let said = program.run(&["run", "run.toml"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    program
}

/// Every file of a folder by its name, or a single file.
fn files(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    if path.is_file() {
        return BTreeMap::from([(PathBuf::new(), fs::read(path).unwrap())]);
    }
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        (PathBuf::from(entry.file_name()), fs::read(entry.path()).unwrap())
    };
    fs::read_dir(path).unwrap().map(read).collect()
}

/// Python's readers, installed once below the build folder; or why they cannot be installed.
fn packages() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/export/requirements.txt");
    let wanted = fs::read(&source).unwrap();
    let python = |arguments: &[&OsStr]| {
        let output = Command::new("python3").args(arguments).output();
        output.map_err(|error| format!("python3: {error}"))
    };
    let version = python(&["--version".as_ref()])?.stdout;
    let digest = ArtifactDigest::of(&[wanted, version].concat()).short().to_string();
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = scratch.join(format!("python-{digest}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(scratch).unwrap();
    let fresh = tempfile::tempdir_in(scratch).unwrap();
    let pip = "-m pip install --quiet --no-deps --only-binary=:all: --disable-pip-version-check \
               --retries 1 --timeout 15 --target";
    let mut pip: Vec<&OsStr> = pip.split_whitespace().map(OsStr::new).collect();
    pip.extend([fresh.path().as_os_str(), "-r".as_ref(), source.as_os_str()]);
    let done = python(&pip)?;
    if !done.status.success() {
        let why = String::from_utf8_lossy(&done.stderr);
        return Err(why.lines().last().unwrap_or_default().to_owned());
    }
    // Another process may have been faster.
    let fresh = fresh.keep();
    if fs::rename(&fresh, &folder).is_err() {
        fs::remove_dir_all(fresh).unwrap();
    }
    Ok(folder)
}

/// Texts and the ids that this program gives them.
fn texts(folder: &Path) -> Value {
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let config = ModelConfig::from_json(&read("config.json")).unwrap();
    let tokenizer = ChatTokenizer::read(&read("tokenizer.json"), &config).unwrap();
    let texts = ["", "What is 2 + 2?", "<|startoftext|>\\boxed{8}<|eot_id|>", "größer \u{1F600}\n"];
    texts.map(|text| json!([text, tokenizer.plain_ids(text).unwrap()])).to_vec().into()
}

/// The small models' alphabet, in which a character is a token.
fn characters(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("tokenizer.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let id = |character: char| document["model"]["vocab"][character.to_string()].clone();
    let texts = ["", "   3,5:22", "(3+5)*7"];
    texts.map(|text| json!([text, text.chars().map(id).collect::<Vec<_>>()])).to_vec().into()
}

#[test]
fn python_s_own_readers_read_what_is_exported() {
    let (words, small) = (words(), small());
    let export = |program: &Program, format: &str, path: &str, more: &[&str]| {
        let (run, name) = if format == "hf" { ("bytes", path) } else { ("words", path) };
        let fixed = ["export", run, "--format", format, "-o", name, "--json"];
        program.json(&[&fixed, more].concat())
    };
    let whole = export(&small, "hf", "hf", &["--shard-size", "30000"]);
    for (format, path) in [("merged", "merged"), ("csv", "a.csv"), ("tensorboard", "tb")] {
        export(&words, format, path, &[]);
    }
    export(&words, "wandb", "a.jsonl", &[]);
    export(&words, "peft", "peft", &["--base", "made/up"]);
    let listing = small.json(&["show", whole["policy"].as_str().unwrap(), "--json"]);
    let stored = listing["files"]["model.safetensors"]["digest"].as_str().unwrap();

    let packages = match packages() {
        Ok(packages) => packages,
        Err(why) => {
            not_run(&format!("pip cannot install tests/it/export/requirements.txt: {why}"));
            return;
        }
    };
    let (of_words, of_small) = (words.folder(), small.folder());
    let hf = of_small.join("hf");
    let mut texts_by_file = serde_json::Map::new();
    let file = |folder: &Path| folder.join("tokenizer.json").display().to_string();
    texts_by_file.insert(file(&of_words.join("merged")), texts(&of_words.join("merged")));
    texts_by_file.insert(file(&hf), characters(&hf));
    let case = json!({
        "hf": hf, "stored": small.store().join("cas").join(stored), "texts": texts_by_file,
        "packages": packages, "base": of_words.join("checkpoint"), "base_name": "made/up",
        "peft": of_words.join("peft"), "merged": of_words.join("merged"), "steps": 8,
        "csv": of_words.join("a.csv"), "tensorboard": of_words.join("tb"),
        "wandb": of_words.join("a.jsonl"),
    });
    let path = of_words.join("case.json");
    fs::write(&path, case.to_string()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/export/read.py");
    let mut python = Command::new("python3");
    let said = python.arg(script).arg(path).env("PYTHONPATH", packages).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(said.status.success(), "{}{}", text(&said.stdout), text(&said.stderr));
    assert_eq!(text(&said.stdout).lines().count(), 5, "{}", text(&said.stdout));
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    let program = words();
    for format in ["merged", "peft", "tensorboard", "csv", "jsonl", "wandb"] {
        let [one, two] = ["one", "two"].map(|name| {
            let path = format!("{name}-{format}");
            let said = program.run(&["export", "words", "--format", format, "-o", &path]);
            assert_eq!(said.code, Some(0), "{}", said.stderr);
            files(&program.folder().join(path))
        });
        assert!(!one.is_empty());
        assert_eq!(one, two, "{format}");
    }
    let left = fs::read_dir(program.folder()).unwrap();
    let hidden = left.filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".agrpo-")
    });
    assert_eq!(hidden.count(), 0, "nothing is left over");
    let rows = program.run(&["export", "words", "--format", "jsonl", "-o", "-"]);
    assert_eq!(rows.stdout.into_bytes(), files(&program.folder().join("one-jsonl"))[Path::new("")]);

    // A policy's folder does not depend on who computed the run, and when.
    let elsewhere = words();
    for format in ["merged", "peft"] {
        let path = format!("one-{format}");
        elsewhere.json(&["export", "words", "--format", format, "-o", &path, "--json"]);
        let [ours, theirs] = [&program, &elsewhere].map(|one| files(&one.folder().join(&path)));
        assert_eq!(ours, theirs, "{format}");
    }
}

/// The checkpoint of a run, exported and imported, is the same weights; a merged policy is a base that a run
/// starts from.
#[test]
fn what_is_exported_can_be_imported_and_trained_on() {
    let program = words();
    let base = program.json(&[
        "export",
        "words",
        "--iteration",
        "base",
        "--format",
        "hf",
        "-o",
        "base",
        "--json",
    ]);
    let imported = program.json(&["import", "base", "--json"]);
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        assert_eq!(imported["files"][name], base["files"][name], "{name}");
    }
    assert_eq!(imported["left_out"], json!(["README.md", "agrpo.json", "run.toml"]));
    assert_eq!((&imported["precision"], &imported["dtypes"]), (&json!("bf16"), &json!(["BF16"])));

    program.json(&["export", "words", "--format", "merged", "-o", "merged", "--json"]);
    let section = program.run(&["import", "merged"]);
    assert_eq!(section.code, Some(0), "{}", section.stderr);
    let run = checkpoint::RUN.replace("name = \"words\"", "name = \"again\"");
    let (before, rest) = run.split_once("[checkpoint]\n").unwrap();
    let (_, after) = rest.split_once("[lora]").unwrap();
    let text = format!("{before}{}\n[lora]{after}", section.stdout);
    fs::write(program.folder().join("again.toml"), text).unwrap();
    let said = program.run(&["run", "again.toml"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);

    // Files that the store has are not read again.
    fs::remove_dir_all(program.folder().join("merged")).unwrap();
    let said = program.json(&["run", "again.toml", "--json"]);
    assert_eq!(said["stages"]["computed"], 0);
}

/// A folder says which run it came from; its run file is that run.
#[test]
fn an_exported_folder_knows_where_it_comes_from() {
    let program = small();
    let said = program.run(&["export", "bytes", "--format", "hf", "-o", "out/hf"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let answer = said.stdout.lines().map(|line| line.split_whitespace().next().unwrap());
    assert_eq!(answer.take(3).collect::<Vec<_>>(), ["wrote", "run", "policy"]);
    let folder = program.folder().join("out/hf");
    let record: Value =
        serde_json::from_slice(&fs::read(folder.join("agrpo.json")).unwrap()).unwrap();
    for (name, entry) in record["files"].as_object().unwrap() {
        let digest = ArtifactDigest::of(&fs::read(folder.join(name)).unwrap());
        assert_eq!(entry["digest"], digest.to_string(), "{name}");
    }
    let names: Vec<_> = files(&folder).into_keys().map(|name| name.display().to_string()).collect();
    assert_eq!(names.len(), record["files"].as_object().unwrap().len() + 1, "{names:?}");
    let again = program.json(&["run", "out/hf/run.toml", "--json"]);
    assert_eq!(again["run"], record["run"]);
    assert_eq!(again["stages"]["computed"], 0);
    let policy = program.policy().0;
    assert_eq!(record["policy"], policy);
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(readme.contains(&policy) && readme.contains("| iteration 4 | 32 | 8 |"), "{readme}");

    // Other ways to name the same policy.
    let by_hash =
        program.json(&["export", &policy[..12], "--format", "hf", "-o", "hash", "--json"]);
    assert_eq!(by_hash["files"]["model.safetensors"], record["files"]["model.safetensors"]);
}

#[test]
fn help_of_export() {
    assert_snapshot!(help_of("export"), @r#"
    Write a policy or a run's metrics for other programs

    A policy as Hugging Face's tools, PEFT or safetensors read it, or a run's metrics for TensorBoard,
    W&B, spreadsheets and scripts. Every byte is checked against its digest as it is read. The same run
    gives the same files; what is there already is only replaced with --force.

    Usage: agrpo export [OPTIONS] --format <FORMAT> --output <PATH> <RUN|HASH>

    Arguments:
      <RUN|HASH>
              Run, by the start of its id or by its name; for a policy also the start of its digest, or
              of the stage that made it

    Options:
          --format <FORMAT>
              What to write

              Possible values:
              - hf:          Folder of a whole model: configuration, weights, tokenizer, README
              - peft:        Folder of an adapter, in PEFT's format
              - merged:      Folder of the base with the adapter in its weights, in the base's type and
                files
              - tensorboard: Folder with a file of events: scalars by iteration
              - csv:         File with a line for each iteration
              - jsonl:       File with a JSON object for each iteration
              - wandb:       The same with the keys of W&B's history

      -o, --output <PATH>
              Folder or file to write; - writes csv, jsonl and wandb to standard output

          --iteration <POLICY>
              Which of the run's policies: latest, base, or the number of an iteration [default: latest]

          --base <NAME>
              What the base is called elsewhere, as in GSAI-ML/LLaDA-8B-Instruct; for
              adapter_config.json and the README

          --shard-size <BYTES>
              Most bytes of tensors in a file of format hf [default: 5GB]

          --force
              Replace the file, or the folder of an earlier export, that is there

    [common options]

    Examples:
      agrpo export countdown --format hf -o countdown-hf
      agrpo export 3f2a --format peft --iteration 120 -o adapter
      agrpo export countdown --format csv -o countdown.csv
      agrpo export countdown --format tensorboard -o logs/countdown
    "#);
}

#[test]
fn help_of_import() {
    assert_snapshot!(help_of("import"), @r#"
    Take a base from a Hugging Face folder into the store

    Checks configuration, tokenizer and every tensor, stores the files by content, and prints the
    section `checkpoint` of a run file, with digests and sizes. The folder stays as it is. Doing it
    again is harmless.

    Usage: agrpo import [OPTIONS] <FOLDER>

    Arguments:
      <FOLDER>
              Folder with config.json, tokenizer.json and *.safetensors

    Options:
    [common options]

    Examples:
      agrpo import /models/LLaDA-8B-Instruct
      agrpo import countdown-hf >> run.toml
    "#);
}
