//! The guide (`docs/guide`): every `sh` block is run, and every `text,output` block is compared with the output of the
//! block above it.
//!
//! A chapter is one shell in one scratch copy of the checkout's files, with `agrpo` on the path and its
//! store in that folder. The first chapter begins with nothing; the others where the first one ended.
//! `CHAPTER=name` runs that one alone (after the first), `GUIDE=write` writes the output into the
//! document instead of comparing. Other blocks are for reading; a language that is not known is refused.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use regex::Regex;
use tempfile::TempDir;

use crate::support::markdown::{Block, Document, files, read, root};

const GUIDE: &str = "docs/guide";
const CONTENTS: &str = "docs/SUMMARY.md";
/// What is run, and what is compared.
const RUN: &str = "sh";
const OUTPUT: &str = "text,output";
/// What is only read.
const READ: [&str; 6] = ["text", "toml", "json", "jsonl", "python", "html"];
/// Separates the output of one block from the next.
const MARK: char = '\u{1e}';
/// A chapter that takes longer is ended.
const LONGEST_SECONDS: &str = "400";

/// A chapter by its file's name, without ending.
struct Chapter {
    name: String,
    text: String,
    document: Document,
}

impl Chapter {
    fn read(name: &str) -> Self {
        let path = root().join(GUIDE).join(format!("{name}.md"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        let document = read(&text);
        Self { name: name.to_owned(), text, document }
    }

    fn path(&self) -> PathBuf {
        root().join(GUIDE).join(format!("{}.md", self.name))
    }

    /// Every block that is run, and what is compared with what it says.
    fn steps(&self) -> Vec<(&Block, Option<&Block>)> {
        let blocks = &self.document.blocks;
        let next = |at: usize| blocks.get(at + 1).filter(|block| block.language == OUTPUT);
        let runnable = blocks.iter().enumerate().filter(|(_, block)| block.language == RUN);
        runnable.map(|(at, block)| (block, next(at))).collect()
    }

    /// Blocks of an unknown language.
    fn misfits(&self) -> Vec<String> {
        let mut before = "";
        let mut found = vec![];
        for block in &self.document.blocks {
            let known =
                READ.contains(&&*block.language) || [RUN, OUTPUT].contains(&&*block.language);
            let at = format!("{}.md:{}", self.name, block.line);
            if !block.is_fenced || !known {
                found.push(format!("{at}: `{}` is no language of the guide's", block.language));
            } else if block.language == OUTPUT && before != RUN {
                found.push(format!("{at}: `{OUTPUT}` follows no `{RUN}` block"));
            }
            before = &block.language;
        }
        found
    }
}

/// The chapters in the order of the table of contents.
fn chapters() -> Vec<String> {
    let contents = std::fs::read_to_string(root().join(CONTENTS)).unwrap();
    let links = read(&contents).links;
    let of_guide = links.iter().filter_map(|link| link.strip_prefix("guide/")?.strip_suffix(".md"));
    of_guide.map(str::to_owned).collect()
}

fn asked(variable: &str) -> Option<String> {
    std::env::vars().find_map(|(name, value)| (name == variable).then_some(value))
}

/// A folder like a reader's: the checkout's files, and the program on the path.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        let scratch = Self(tempfile::tempdir().unwrap());
        for folder in ["checkout", "home", "bin"] {
            std::fs::create_dir(scratch.0.path().join(folder)).unwrap();
        }
        let program = scratch.0.path().join("bin/agrpo");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_agrpo"), program).unwrap();
        scratch
    }

    fn checkout(&self) -> PathBuf {
        self.0.path().join("checkout")
    }

    fn of_files() -> Self {
        let scratch = Self::new();
        for file in files() {
            let copy = scratch.checkout().join(&file);
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            std::fs::copy(root().join(&file), copy).unwrap();
        }
        scratch
    }

    fn of(other: &Self) -> Self {
        let scratch = Self::new();
        let copied = Command::new("cp")
            .arg("-a")
            .arg(other.checkout().join("."))
            .arg(scratch.checkout())
            .status();
        assert!(copied.unwrap().success());
        scratch
    }

    /// Runs blocks in one shell; returns the output of each, or an error.
    fn run(&self, name: &str, blocks: &[&Block]) -> Result<Vec<String>, String> {
        let mut script = String::new();
        for block in blocks {
            script.push_str("printf '\\036'\n");
            script.push_str(&block.text);
        }
        let (file, log) = (self.0.path().join("script"), self.0.path().join("log"));
        std::fs::write(&file, script).unwrap();
        let out = std::fs::File::create(&log).unwrap();
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.0.path().join("bin").display());
        let ended = Command::new("timeout")
            .args([LONGEST_SECONDS, "bash", "-euo", "pipefail"])
            .arg(&file)
            .current_dir(self.checkout())
            .env_clear()
            .envs([("PATH", &*path), ("LANG", "C.UTF-8"), ("USER", "you")])
            .env("HOME", self.0.path().join("home"))
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .status()
            .unwrap();
        let mut text = String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
        for (folder, shown) in [("checkout", "/home/you/agrpo"), ("home", "/home/you")] {
            let folder = self.0.path().join(folder);
            text = text.replace(folder.canonicalize().unwrap().to_str().unwrap(), shown);
            text = text.replace(folder.to_str().unwrap(), shown);
        }
        let said: Vec<String> = text.split(MARK).skip(1).map(str::to_owned).collect();
        if ended.success() {
            return Ok(said);
        }
        let (line, last) = match said.len().checked_sub(1) {
            Some(last) => (blocks[last].line, &*said[last]),
            None => (0, &*text),
        };
        Err(format!("{name}.md:{line} ended with {ended}:\n{last}"))
    }
}

/// What is the same on every machine: times and dates are not, nor how wide they make a column.
fn settled(text: &str) -> Vec<String> {
    let replace = |text: String, pattern: &str, with: &str| {
        Regex::new(pattern).unwrap().replace_all(&text, with).into_owned()
    };
    let line = |line: &str| {
        let line =
            replace(line.to_owned(), r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?", "[date]");
        let line = replace(line, r"\b\d+(\.\d+)? ?(us|µs|ms|s|min|h)\b", "[time]");
        let line = replace(line, r"\b\d+ tokens/s", "[speed]");
        let line = replace(line, r"\b\d+(\.\d+)? by the clock", "[time] by the clock");
        replace(line, r"\s+", " ").trim().to_owned()
    };
    text.trim().lines().map(line).collect()
}

/// Whether text is as written, where a line of three dots stands for any lines.
fn agrees(written: &[String], said: &[String]) -> bool {
    match written.split_first() {
        None => said.is_empty(),
        Some((dots, rest)) if dots == "..." => {
            (0..=said.len()).any(|skipped| agrees(rest, &said[skipped..]))
        }
        Some((line, rest)) => said.first() == Some(line) && agrees(rest, &said[1..]),
    }
}

/// Runs a chapter and compares; returns everything that is wrong.
#[expect(clippy::print_stderr, reason = "the cost of a chapter is printed also where it holds")]
fn check(chapter: &Chapter, scratch: &Scratch) -> Vec<String> {
    let begin = Instant::now();
    let steps = chapter.steps();
    let blocks: Vec<&Block> = steps.iter().map(|(block, _)| *block).collect();
    let said = match scratch.run(&chapter.name, &blocks) {
        Ok(said) => said,
        Err(trouble) => return vec![trouble],
    };
    eprintln!("{}: {} blocks, {:.1} s", chapter.name, blocks.len(), begin.elapsed().as_secs_f64());
    let differing: Vec<(&Block, &str)> = steps
        .iter()
        .zip(&said)
        .filter_map(|((_, output), said)| Some(((*output)?, said.trim_end())))
        .filter(|(output, said)| !agrees(&settled(&output.text), &settled(said)))
        .collect();
    if asked("GUIDE").as_deref() == Some("write") {
        let mut text = chapter.text.clone();
        for (output, said) in differing.iter().rev() {
            text.replace_range(
                output.range.clone(),
                &format!("{}\n", said.trim_start_matches('\n')),
            );
        }
        std::fs::write(chapter.path(), text).unwrap();
        return vec![];
    }
    let differs = |(output, said): &(&Block, &str)| {
        format!("{}.md:{} says\n{}\nbut it is\n{said}\n", chapter.name, output.line, output.text)
    };
    differing.iter().map(differs).collect()
}

#[test]
fn every_chapter_does_what_it_says() {
    let only = asked("CHAPTER");
    let all: Vec<Chapter> = chapters().iter().map(|name| Chapter::read(name)).collect();
    let mut wrong: Vec<String> = all.iter().flat_map(Chapter::misfits).collect();
    let mut runnable = all.iter().filter(|chapter| !chapter.steps().is_empty());
    let first = runnable.next().unwrap();
    let begun = Scratch::of_files();
    wrong.extend(check(first, &begun));
    let rest = runnable.filter(|chapter| only.as_ref().is_none_or(|only| *only == chapter.name));
    std::thread::scope(|scope| {
        let begun = &begun;
        let started: Vec<_> =
            rest.map(|chapter| scope.spawn(move || check(chapter, &Scratch::of(begun)))).collect();
        wrong.extend(started.into_iter().flat_map(|thread| thread.join().unwrap()));
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_of_contents_lists_every_page_once() {
    let contents = std::fs::read_to_string(root().join(CONTENTS)).unwrap();
    let mut listed: Vec<PathBuf> =
        read(&contents).links.iter().map(|link| Path::new("docs").join(link)).collect();
    listed.sort();
    let is_page = |path: &PathBuf| {
        path.starts_with("docs") && path.extension().is_some_and(|ending| ending == "md")
    };
    let mut present: Vec<PathBuf> = files().into_iter().filter(is_page).collect();
    present.retain(|path| path != Path::new(CONTENTS));
    assert_eq!(listed, present);
}

#[test]
fn dots_stand_for_lines_and_times_for_any_time() {
    let agrees = |written: &str, said: &str| agrees(&settled(written), &settled(said));
    assert!(agrees("a  1.5 s\n...\nb", "a 20 min\nx\ny\nb\n"));
    assert!(agrees("...", ""));
    assert!(!agrees("a\n...\nb", "a\nb\nc"));
    assert!(!agrees("22.8%", "22.9%"));
    assert!(!agrees("8 steps", "9 steps"));
}
