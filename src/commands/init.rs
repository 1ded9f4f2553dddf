//! `agrpo init`: writes a commented run file to start from.
//!
//! The text is that of a file in `jobs/runs`, with the caller's name, seed and file name in it. Refuses to
//! overwrite a file without --force, and refuses a name that no run may have.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use agrpo_spec::Run;
use agrpo_store::regular;
use serde::Serialize;
use toml_edit::{DocumentMut, Value};

use crate::args::{InitArgs, InitTask};
use crate::commands::files::{name_of, plain};
use crate::commands::sources;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::shell;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Answer {
    file: String,
    name: String,
    seed: u64,
}

impl InitTask {
    /// The file's name in `jobs/runs`, without ending, and its text.
    fn run(self) -> (&'static str, &'static str) {
        macro_rules! of {
            ($name:literal) => {
                ($name, include_str!(concat!("../../jobs/runs/", $name, ".toml")))
            };
        }
        match self {
            Self::Smoke => of!("smoke"),
            Self::Countdown => of!("countdown"),
            Self::Sudoku => of!("sudoku"),
            Self::Gsm8k => of!("llada-8b-gsm8k"),
            Self::Math => of!("llada-8b-math"),
            Self::LladaCountdown => of!("llada-8b-countdown"),
            Self::LladaSudoku => of!("llada-8b-sudoku"),
        }
    }
}

/// Writes the file and says what to type next.
pub(super) fn init(args: &InitArgs) -> Result<Exit, Failure> {
    let to_stdout = args.file == Path::new("-");
    let shown = if to_stdout { "run.toml".to_owned() } else { name_of(&args.file) };
    let (name, seed, text) = text(args, &shown)?;
    if to_stdout {
        output::bytes(text.as_bytes())?;
        return Ok(Exit::Done);
    }
    write(&args.file, &text, args.force)?;
    if args.json.json {
        output::json(&Answer { file: shown, name, seed })?;
    } else {
        output::line(format!(
            "{shown}: run {name}, seed {seed}\n\nnext:\n  agrpo run {} --dry-run",
            shell::path(&args.file)
        ))?;
    }
    Ok(Exit::Done)
}

/// The run's name, its seed, and the whole file.
fn text(args: &InitArgs, file: &str) -> Result<(String, u64, String), Failure> {
    let (base, text) = args.task.run();
    let unfit = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Unexpected, format!("jobs/runs/{base}.toml: {error}"))
    };
    let mut document: DocumentMut =
        with_commands(text, base, file).parse().map_err(|e| unfit(&e))?;
    let stem = || Path::new(file).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = args.name.clone().or_else(stem).unwrap_or_default();
    set(&mut document, "name", name.as_str().into());
    if let Some(seed) = args.seed {
        let seed = i64::try_from(seed)
            .map_err(|_| Failure::usage(format!("--seed {seed}: expected at most 2^63 - 1")))?;
        set(&mut document, "seed", seed.into());
    }
    let text = document.to_string();
    let seed = check(&text)?;
    Ok((name, seed, text))
}

/// Replaces a value and keeps the comment beside it.
fn set(document: &mut DocumentMut, key: &str, mut value: Value) {
    if let Some(old) = document.get_mut(key).and_then(|item| item.as_value_mut()) {
        *value.decor_mut() = old.decor().clone();
        *old = value;
    }
}

/// Replaces the commands in the file's head by those for this file.
fn with_commands(text: &str, base: &str, file: &str) -> String {
    let file = shell::path(Path::new(file));
    let made = format!("make run RUN={base}");
    let line = |line: &str| match line.split_once(&made) {
        Some((before, after)) => {
            let arguments = after.strip_prefix(" ARGS='").map_or(after.to_owned(), |rest| {
                let (inside, behind) = rest.split_once('\'').unwrap_or((rest, ""));
                format!(" {inside}{behind}")
            });
            format!("{before}agrpo run {file}{arguments}")
        }
        None => {
            line.replace(&format!("agrpo run jobs/runs/{base}.toml"), &format!("agrpo run {file}"))
        }
    };
    text.lines().map(line).map(|line| line + "\n").collect()
}

/// Checks that the text is a valid run file, as if its files were fetched, and returns the seed.
fn check(text: &str) -> Result<u64, Failure> {
    let named = sources::named(text, Path::new(""), &[])?;
    Ok(Run::parse(&sources::unfetched(text, &named)?)?.config().seed)
}

fn write(file: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true);
    match force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let written = regular::open_with(file, &mut options);
    let written = written.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        let failure =
            |what: &str| Failure::usage(format!("cannot write {}: {what}", name_of(file)));
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => failure("it is there already")
                .hint("name another file, or write over it with --force"),
            _ => failure(&plain(&error)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    fn asked(task: InitTask) -> InitArgs {
        InitArgs {
            file: "mine.toml".into(),
            task,
            name: None,
            seed: Some(7),
            force: false,
            json: crate::args::options::JsonArgs { json: false },
        }
    }

    #[test]
    fn every_task_gives_a_run_of_that_name_and_seed_and_keeps_its_comments() {
        for task in InitTask::value_variants() {
            let (name, seed, written) = text(&asked(*task), "mine.toml").unwrap();
            assert_eq!((&*name, seed), ("mine", 7));
            let (base, original) = task.run();
            assert!(written.contains("agrpo run mine.toml"), "{base} says no command");
            assert!(!written.contains("make run") && !written.contains("ARGS="), "{base}");
            let comments = |text: &str| text.matches('#').count();
            assert_eq!(comments(&written), comments(original), "{base}");
        }
    }

    #[test]
    fn a_name_that_no_run_may_have_is_refused() {
        let args = InitArgs { name: Some("two words".to_owned()), ..asked(InitTask::Smoke) };
        let refused = text(&args, "mine.toml").unwrap_err();
        assert!(refused.message().starts_with("name = \"two words\": expected"), "{refused}");
    }
}
