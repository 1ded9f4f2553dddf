//! What cannot be exported or imported: one line of error, nothing written and nothing lost.

use std::fs;
use std::path::Path;
use std::process::Command;

use agrpo_spec::ArtifactDigest;
use insta::assert_snapshot;
use serde_json::json;

use super::{files, small};
use crate::checkpoint;
use crate::support::program::{Program, Said};

fn error(said: &Said, program: &Program) -> String {
    assert_eq!(said.stdout, "", "an error leaves stdout empty");
    let folder = program.folder().canonicalize().unwrap().display().to_string();
    let text = said.stderr.replace(&folder, "[folder]");
    format!("{} {text}", said.code.unwrap())
}

#[test]
fn what_cannot_be_exported_is_reported_in_one_line() {
    let program = small();
    let folder = program.folder();
    let rollout =
        crate::lora::manifests(&program, "rollout")[0]["stage"].as_str().unwrap().to_owned();
    fs::create_dir_all(folder.join("full")).unwrap();
    fs::write(folder.join("full/notes.txt"), "mine").unwrap();
    fs::write(folder.join("a.csv"), "mine").unwrap();
    let attempt = |what: &str, format: &str, path: &str, more: &[&str]| {
        let fixed = ["export", what, "--format", format, "-o", path];
        error(&program.run(&[&fixed, more].concat()), &program)
    };
    let all = [
        attempt("nothing", "csv", "b.csv", &[]),
        attempt(&rollout[..12], "hf", "hf", &[]),
        attempt("bytes", "peft", "peft", &[]),
        attempt("bytes", "merged", "merged", &[]),
        attempt("bytes", "hf", "hf", &["--iteration", "9"]),
        attempt("bytes", "hf", "full", &[]),
        attempt("bytes", "hf", "full", &["--force"]),
        attempt("bytes", "hf", "a.csv", &[]),
        attempt("bytes", "csv", "a.csv", &[]),
        attempt("bytes", "csv", "full", &["--force"]),
        attempt("bytes", "csv", "a.csv/b.csv", &[]),
        attempt("bytes", "csv", "/dev/full", &["--force"]),
        attempt("bytes", "csv", "b.csv", &["--iteration", "1"]),
        attempt("bytes", "tensorboard", "-", &[]),
        attempt("bytes", "peft", "peft", &["--shard-size", "1GB"]),
    ];
    assert_eq!(fs::read(folder.join("full/notes.txt")).unwrap(), b"mine");
    assert_eq!(fs::read(folder.join("a.csv")).unwrap(), b"mine");
    let all = all
        .concat()
        .replace(&rollout[..12], "[rollout]")
        .replace(&program.policy().0[..12], "[policy]");
    assert_snapshot!(all, @r#"
    2 error: no run in file://[folder]/.agrpo has the name `nothing` or an id that begins with it; `agrpo status` lists all runs
    2 error: [rollout] is a stage of kind rollout, which makes no policy: expected a run, a policy, or a stage of sft or update

    hint: agrpo show RUN lists the policies of a run
    2 error: --format peft: policy [policy] has no adapter: all of its weights are its own; expected --format hf
    2 error: --format merged: policy [policy] has no adapter: all of its weights are its own; expected --format hf
    2 error: --iteration 9: run e03beda09e2b (bytes) has come to iteration 4; expected base, latest or 0 to 4
    2 error: full is there already; name another place, or replace it with --force
    2 error: full: --force would delete notes.txt, which no export wrote there; move it away, or name another folder
    2 error: a.csv is no folder; name one that is not there yet
    2 error: a.csv is there already; name another place, or replace it with --force
    2 error: full is a folder; name a file, or - for standard output
    2 error: a.csv/b.csv: cannot write there: not a directory; name another place
    2 error: /dev/full is no plain file; name a file, or - for standard output
    2 error: --iteration does not go with --format csv: every iteration has its row
    2 error: --output - does not go with --format tensorboard: name a folder
    2 error: --shard-size does not go with --format peft: it is for hf
    "#);
}

/// A listing names files: one with a path outside the folder is corrupt, whichever program wrote it.
#[test]
fn no_file_is_written_beside_the_folder() {
    let program = small();
    let policy = program.policy().0;
    let listing = fs::read_to_string(program.store().join("cas").join(policy)).unwrap();
    let wrong = listing.replace("\"tokenizer.json\"", "\"../tokenizer.json\"");
    assert_ne!(wrong, listing);
    let digest = ArtifactDigest::of(wrong.as_bytes()).to_string();
    fs::write(program.store().join("cas").join(&digest), wrong).unwrap();
    let said = program.run(&["export", &digest, "--format", "hf", "-o", "out/hf"]);
    assert_snapshot!(error(&said, &program), @r#"5 error: a folder in the store has a file called "../tokenizer.json", which is no name"#);
    assert_eq!(fs::read_dir(program.folder().join("out")).unwrap().count(), 0);
}

/// A run of which nothing is done, and one of which a record is lost.
#[test]
fn what_is_not_there_is_not_left_out_silently() {
    let program = small();
    let run = program.json(&["status", "--json"])["runs"][0]["run"].as_str().unwrap().to_owned();
    let index = program.store().join("runs").join(&run).join("stages");
    let gradient = &crate::lora::manifests(&program, "gradient")[0];
    let record = program.store().join("stages").join(gradient["stage"].as_str().unwrap());
    fs::rename(&record, program.folder().join("aside")).unwrap();
    let lost = program.run(&["export", "bytes", "--format", "csv", "-o", "a.csv"]);
    let newer = agrpo_spec::record::seal_as(agrpo_spec::record::FORMAT + 1, gradient);
    fs::write(&record, newer).unwrap();
    let incompatible = program.run(&["export", "bytes", "--format", "csv", "-o", "a.csv"]);
    fs::rename(program.folder().join("aside"), &record).unwrap();

    let whole = program.json(&["export", "bytes", "--format", "hf", "-o", "hf", "--json"]);
    let weights = whole["files"]["model.safetensors"]["digest"].as_str().unwrap();
    let blob = program.store().join("cas").join(weights);
    let mut bytes = fs::read(&blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let found = ArtifactDigest::of(&bytes).to_string();
    fs::write(&blob, bytes).unwrap();
    let corrupt = program.run(&["export", "bytes", "--format", "hf", "-o", "damaged"]);
    assert!(!program.folder().join("damaged").exists());

    fs::remove_dir_all(index).unwrap();
    // Records count without an index.
    fs::remove_dir_all(program.store().join("stages")).unwrap();
    let begun = program.run(&["export", "bytes", "--format", "csv", "-o", "a.csv"]);
    let all = [lost, incompatible, corrupt, begun].map(|said| error(&said, &program)).concat();
    assert!(!program.folder().join("a.csv").exists());
    let all =
        all.replace(&run[..12], "[run]").replace(weights, "[weights]").replace(&found, "[other]");
    assert_snapshot!(all, @r#"
    5 error: run [run] (bytes): 1 record is missing or corrupt in file://[folder]/.agrpo; an export would be incomplete

    hint: agrpo verify [run] lists them
    hint: agrpo run FILE --repair, with the run's file, computes them again
    5 error: run [run] (bytes): 1 record is of another version of agrpo in file://[folder]/.agrpo; an export would be incomplete

    hint: agrpo verify [run] lists them
    hint: use the newest version of agrpo that works on this store
    5 error: cas/[weights] in file://[folder]/.agrpo is corrupt: its 90888 bytes have the SHA-256 [other]; agrpo run FILE --repair, with the run's file, makes it again, and so does agrpo replay --rewind
    2 error: run [run] (bytes) has no policy yet, so there is nothing to export

    hint: agrpo run FILE computes it, from the run's file
    "#);
}

/// A limit on the size of files stands in for a disk without room: writing fails in the midst of a file.
#[test]
fn a_full_disk_is_reported_and_leaves_nothing() {
    let program = small();
    let old = program.json(&[
        "export",
        "bytes",
        "--iteration",
        "1",
        "--format",
        "hf",
        "-o",
        "hf",
        "--json",
    ]);
    let agrpo = env!("CARGO_BIN_EXE_agrpo");
    let limited = |format: &str, path: &str| {
        let mut shell = Command::new("bash");
        let script = "trap '' XFSZ; ulimit -f \"$1\"; shift; exec \"$@\"";
        let blocks = if format == "hf" { "40" } else { "0" };
        shell.args(["-c", script, "bash", blocks, agrpo, "export", "bytes", "--format", format]);
        shell.args(["--force", "-o", path]).current_dir(program.folder()).env_clear();
        let said = shell.output().unwrap();
        assert_eq!(said.status.code(), Some(4), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stderr).unwrap()
    };
    assert_snapshot!([limited("hf", "hf"), limited("csv", "a.csv")].concat(), @r#"
    error: hf/model.safetensors: cannot write it: file too large; make room there, or name another place
    error: a.csv: cannot write it: file too large; make room there, or name another place
    "#);
    assert_eq!(
        program.json(&["import", "hf", "--json"])["files"]["model.safetensors"],
        old["files"]["model.safetensors"]
    );
    let names = fs::read_dir(program.folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, [".agrpo", "hf", "run.toml"]);
}

#[test]
fn only_an_earlier_export_is_replaced() {
    let program = small();
    let export = |iteration: &str, more: &[&str]| {
        let fixed = ["export", "bytes", "--format", "hf", "-o", "hf", "--iteration", iteration];
        program.run(&[&fixed, more].concat()).code
    };
    let read = || fs::read(program.folder().join("hf/agrpo.json")).unwrap();
    assert_eq!(export("1", &[]), Some(0));
    let first = read();
    assert_eq!(export("2", &[]), Some(2));
    assert_eq!(read(), first);
    assert_eq!(export("2", &["--force"]), Some(0));
    assert_ne!(read(), first);
    let mine = program.folder().join("hf/notes.txt");
    fs::write(&mine, "mine").unwrap();
    assert_eq!(export("1", &["--force"]), Some(2));
    assert_eq!(fs::read(mine).unwrap(), b"mine");
}

/// The error of an import from a copy of the checkpoint with this change.
fn refused(program: &Program, change: &dyn Fn(&Path)) -> String {
    let copy = program.folder().join("copy");
    fs::create_dir_all(&copy).unwrap();
    for (name, bytes) in files(&program.folder().join("checkpoint")) {
        fs::write(copy.join(name), bytes).unwrap();
    }
    change(&copy);
    let said = program.run(&["import", "copy"]);
    fs::remove_dir_all(copy).ok();
    error(&said, program)
}

/// Every way in which a folder is no base, each in one line; the store stays empty.
#[test]
fn a_folder_that_is_no_base_is_refused() {
    let program = checkpoint::program(&[]);
    let refused = |change: &dyn Fn(&Path)| refused(&program, change);
    let remove =
        |name: &'static str| move |folder: &Path| fs::remove_file(folder.join(name)).unwrap();
    let edit = |name: &'static str, from: &'static str, to: &'static str| {
        move |folder: &Path| {
            let text = fs::read_to_string(folder.join(name)).unwrap();
            assert!(text.contains(from));
            fs::write(folder.join(name), text.replace(from, to)).unwrap();
        }
    };
    let rename = |from: &'static str, to: &'static str| {
        move |folder: &Path| fs::rename(folder.join(from), folder.join(to)).unwrap()
    };
    let all = [
        refused(&|folder| fs::remove_dir_all(folder).unwrap()),
        refused(&remove("config.json")),
        refused(&rename("config.json", "adapter_config.json")),
        refused(&remove("model.safetensors")),
        refused(&rename("model.safetensors", "pytorch_model.bin")),
        refused(&remove("tokenizer.json")),
        refused(&|folder| fs::write(folder.join("adapter_model.safetensors"), "").unwrap()),
        refused(&edit("config.json", "\"llada\"", "\"qwen2\"")),
        refused(&edit("config.json", "\"n_layers\": 2", "\"n_layers\": 3")),
        refused(&edit("config.json", "\"mask_token_id\": 264", "\"mask_token_id\": 9")),
        refused(&|folder| {
            let index = json!({ "weight_map": { "model.transformer.wte.weight": "model-00002-of-00002.safetensors" } });
            fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
        }),
        refused(&|folder| {
            // As many bytes, of another type.
            let path = folder.join("model.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            let at = bytes.windows(5).position(|five| five == b"\"F32\"").unwrap();
            bytes[at..at + 5].copy_from_slice(b"\"I32\"");
            fs::write(path, bytes).unwrap();
        }),
        refused(&|folder| {
            let path = folder.join("model.safetensors");
            let bytes = fs::read(&path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 7]).unwrap();
        }),
    ];
    assert!(!program.store().join("cas").exists(), "nothing is stored of what is refused");
    assert_snapshot!(all.concat(), @r#"
    2 error: cannot read copy: no such file or directory
    2 error: copy: the folder has no config.json; expected a model as Hugging Face's tools save it
    2 error: copy: the folder has an adapter and no base; expected a whole model: agrpo export RUN --format merged makes one
    2 error: copy: the folder has no *.safetensors; expected the model's weights
    2 error: copy: the folder has pytorch_model.bin and no *.safetensors; save the model again with save_pretrained(.., safe_serialization=True)
    2 error: copy: the folder has no tokenizer.json; a run needs it to read and write text
    2 error: copy: the folder has an adapter beside its base; expected the base alone, or merged
    2 error: copy: config.json: model_type = "qwen2": expected "llada" (LLaDA), "Dream" (Dream), "sdar" (SDAR), "llama" (Llama) or "lladamoe" (LLaDA-MoE), the families that are computed here; an autoregressive model knows no mask and looks back only
    2 error: copy: the checkpoint lacks model.transformer.blocks.2.attn_norm.weight: it is not in model.safetensors
    2 error: copy: tokenizer.json: <|mdm_mask|> is token 264, but config.json has mask_token_id = 9: tokenizer and model are not of one checkpoint
    2 error: copy: model.safetensors.index.json: model.transformer.wte.weight is said to lie in model-00002-of-00002.safetensors, which the folder lacks
    2 error: copy: model.safetensors: model.transformer.blocks.0.attn_norm.weight is Int, expected bf16, f16 or f32
    2 error: copy: model.safetensors is not a sound safetensors file: 139897 bytes of tensors, expected 139904 by its header
    "#);
}
