//! `agrpo init`: writes a commented run file to start from: one of `jobs/runs` with the caller's name, seed and file
//! name in it. Refuses to overwrite a file without --force, and a name that no run may have.

use std::{fs::OpenOptions, io::Write, path::Path};

use agrpo_spec::Run;
use agrpo_store::regular;
use toml_edit::{DocumentMut, Value};

use super::files::{name_of, plain};
use super::prelude::{Exit, Failure, Result, Serialize, cannot, output};
use super::run_file;
use crate::args::{InitArgs, Template};
use crate::shell;

#[derive(Debug, Serialize)]
struct Answer {
    file: String,
    name: String,
    seed: u64,
}

pub(super) fn init(args: &InitArgs) -> Result<Exit> {
    let to_stdout = args.file == Path::new("-");
    let shown = if to_stdout { "run.toml".to_owned() } else { name_of(&args.file) };
    let (name, seed, text) = text(args, &shown)?;
    if to_stdout {
        return output::bytes(text.as_bytes()).map(|()| Exit::Done);
    }
    write(&args.file, &text, args.force)?;
    let answer = Answer { file: shown, name, seed };
    output::answer(args.json, &answer, || {
        let (Answer { file, name, .. }, path) = (&answer, shell::path(&args.file));
        format!("{file}: run {name}, seed {seed}\n\nnext:\n  agrpo run {path} --dry-run")
    })
}

/// The run's name, its seed, and the whole file.
fn text(args: &InitArgs, file: &str) -> Result<(String, u64, String)> {
    let Template { name: base, text } = args.task;
    let document = with_commands(text, base, file).parse::<DocumentMut>();
    let mut document = document.map_err(cannot(&format!("read jobs/runs/{base}.toml")))?;
    let stem = || Path::new(file).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = args.name.clone().or_else(stem).unwrap_or_default();
    set(&mut document, "name", name.as_str().into());
    if let Some(seed) = args.seed {
        let seed = i64::try_from(seed)
            .map_err(|_| Failure::usage(format!("--seed {seed}: expected at most 2^63 - 1")))?;
        set(&mut document, "seed", seed.into());
    }
    let text = document.to_string();
    // A run file is checked as if its files were fetched.
    let named = run_file::named(&text, Path::new(""), &[])?;
    let run = Run::parse(&run_file::unfetched(&text, &named)?)?;
    Ok((name, run.config().seed, text))
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
    let command = format!("agrpo run {}", shell::path(Path::new(file)));
    let line = |line: &str| {
        let line = line.replace(&format!("agrpo run jobs/runs/{base}.toml"), &command);
        let Some((before, rest)) = line.split_once(&format!("make run RUN={base}")) else {
            return line + "\n";
        };
        let rest = rest.strip_prefix(" ARGS='").map_or(rest.to_owned(), |rest| {
            let (inside, behind) = rest.split_once('\'').unwrap_or((rest, ""));
            format!(" {inside}{behind}")
        });
        format!("{before}{command}{rest}\n")
    };
    text.lines().map(line).collect()
}

fn write(file: &Path, text: &str, force: bool) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(force).truncate(force).create_new(!force);
    let written = regular::open_with(file, &mut options);
    let written = written.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        let is_there = error.kind() == std::io::ErrorKind::AlreadyExists;
        let why = if is_there { "it is there already".to_owned() } else { plain(&error) };
        Failure::usage(format!("cannot write {}: {why}", name_of(file)))
            .hint_if(is_there, "name another file, or write over it with --force")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::TEMPLATES;

    fn asked(task: Template) -> InitArgs {
        InitArgs {
            file: "mine.toml".into(),
            task,
            name: None,
            seed: Some(7),
            force: false,
            json: false,
        }
    }

    #[test]
    fn every_task_gives_a_run_of_that_name_and_seed_and_keeps_its_comments() {
        for (_, task, _) in TEMPLATES {
            let (name, seed, written) = text(&asked(*task), "mine.toml").unwrap();
            assert_eq!((&*name, seed), ("mine", 7));
            let (base, original) = (task.name, task.text);
            assert!(written.contains("agrpo run mine.toml"), "{base} says no command");
            assert!(!written.contains("make run") && !written.contains("ARGS="), "{base}");
            let comments = |text: &str| text.matches('#').count();
            assert_eq!(comments(&written), comments(original), "{base}");
        }
    }

    #[test]
    fn a_name_that_no_run_may_have_is_refused() {
        let args = InitArgs { name: Some("two words".to_owned()), ..asked(TEMPLATES[0].1) };
        let refused = text(&args, "mine.toml").unwrap_err();
        assert!(refused.message.starts_with("name = \"two words\": expected"), "{refused}");
    }
}
