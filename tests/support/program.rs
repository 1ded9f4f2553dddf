//! The program itself, run as a user runs it: its own process, an explicit environment, a run file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use super::run_file::run_file;

/// A run of every stage kind in a second: two sft chunks, four iterations of two shards, with enough rewards for
/// non-zero gradients.
pub(crate) static RUN: LazyLock<String> = LazyLock::new(|| {
    run_file(&[
        ("name", "\"bytes\""),
        ("seed", "7"),
        ("task.countdown.numbers", "2"),
        ("task.countdown.max_target", "18"),
        ("task.countdown.prompt_tokens", "6"),
        ("model.d_model", "32"),
        ("model.n_layers", "2"),
        ("model.mlp_hidden_size", "64"),
        ("model.init_std", "0.06"),
        ("sft.steps", "100"),
        ("sft.batch", "32"),
        ("sft.steps_per_stage", "50"),
        ("sft.micro_batch", "32"),
        ("sft.optimizer", "{ learning_rate = 1e-2, beta2 = 0.98 }"),
        ("rollout.prompts", "8"),
        ("rollout.group", "8"),
        ("rollout.micro_batch", "32"),
        ("rollout.top_k", "12"),
        ("advantage.scale", "\"group-std\""),
        ("estimator.k", "4"),
        ("estimator.micro_batch", "32"),
        ("optimizer.learning_rate", "1e-3"),
        ("training.iterations", "4"),
        ("evaluation.problems", "32"),
        ("evaluation.micro_batch", "32"),
    ])
});

/// The folder and the environment of a program.
#[derive(Debug)]
pub(crate) struct Program {
    folder: tempfile::TempDir,
    binary: PathBuf,
    environment: Vec<(String, String)>,
}

/// The output and the exit code of a command.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    /// In an empty folder that holds `run.toml` alone.
    pub(crate) fn new(environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("run.toml"), &*RUN).unwrap();
        let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_agrpo"));
        Self { folder, binary, environment: environment.iter().map(own).collect() }
    }

    /// The same program from another file.
    pub(crate) fn using(self, binary: &Path) -> Self {
        Self { binary: binary.to_owned(), ..self }
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The default store.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder().join(".agrpo")
    }

    /// Starts the program; its output goes nowhere.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Starts the program with a limit of open files; its log goes into a file.
    pub(crate) fn start_within(&self, files: u32, arguments: &[&str], log: File) -> Child {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"ulimit -n "$0" && exec "$@""#, &files.to_string()]);
        command.arg(&self.binary).args(arguments).current_dir(self.folder()).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// Starts the program with this standard output.
    pub(crate) fn spawn(&self, arguments: &[&str], stdout: Stdio) -> Child {
        self.command(arguments).stdout(stdout).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Replaces a part of `run.toml`, which has to be there.
    pub(crate) fn change(&self, from: &str, to: &str) {
        let path = self.folder().join("run.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }

    /// Sets a variable for later commands.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Runs the program to its end and reads its answer, which has to be a success in JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.stderr);
        serde_json::from_str(&said.stdout).unwrap()
    }

    /// The newest policy of the only run in the store, and its state.
    pub(crate) fn policy(&self) -> (String, String) {
        let status = self.json(&["status", "--json"]);
        let text = |name: &str| status["runs"][0][name].as_str().unwrap_or_default().to_owned();
        (text("policy"), text("state"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).current_dir(self.folder()).env_clear().stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}
