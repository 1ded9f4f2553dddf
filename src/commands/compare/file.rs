//! The file of a comparison: a run file, and what each variant changes in it.
//!
//! ```toml
//! run = "../countdown.toml"         # beside this file
//! seeds = [1, 2, 3]
//! set.rollout.prompts = 64          # for all variants
//! [[variant]]
//! name = "agrpo"
//! set.estimator.k = 4               # for this one
//! ```
//!
//! A variant goes through the same checks as a run file. Refused is what would not be side by side:
//! variants of one name, a seed twice, and changes of a variant that give it another base or another
//! evaluation.

use std::path::Path;

use agrpo_spec::{EvaluationConfig, Numerics, Run, RunConfig, Source, sources};
use serde::Deserialize;
use toml::{Table, Value};

use crate::commands::{name_of, read_text};
use crate::exit::Failure;

/// A comparison, every run of it checked.
pub(super) struct Comparison {
    /// The file's name without its ending.
    pub(super) name: String,
    /// Where the file is: its name alone where the rest says how this machine is laid out.
    pub(super) file: String,
    /// The first lines of the file that are comments, as text.
    pub(super) about: String,
    /// The variants' names, in the file's order.
    pub(super) variants: Vec<String>,
    pub(super) seeds: Vec<u64>,
    /// Every variant with every seed.
    pub(super) members: Vec<Member>,
}

/// One variant with one seed.
pub(super) struct Member {
    pub(super) variant: String,
    pub(super) run: Run,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    run: String,
    seeds: Vec<u64>,
    #[serde(default)]
    set: Table,
    variant: Vec<Variant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    name: String,
    #[serde(default)]
    set: Table,
}

impl Comparison {
    /// Reads the file and the run file that it names.
    pub(super) fn read(place: &Path) -> Result<Self, Failure> {
        if place == Path::new("-") {
            return Err(Failure::usage(
                "-: a comparison names a run file beside it, expected a file, not standard input",
            ));
        }
        let text = read_text(place)?;
        let at = |failure: Failure| failure.at(name_of(place));
        let file: File =
            toml::from_str(&text).map_err(|error| at(Failure::usage(one_line(&error))))?;
        check_lists(&file).map_err(at)?;
        let base_place = place.parent().unwrap_or(Path::new("")).join(&file.run);
        let base_text = read_text(&base_place).map_err(|failure| at(failure.at("run")))?;
        let base = table(&base_text).map_err(|failure| failure.at(name_of(&base_place)))?;
        let mut members: Vec<Member> = vec![];
        for &seed in &file.seeds {
            for variant in &file.variant {
                let run = member(&base, &file, variant, seed).and_then(|run| {
                    let first = members.first().map_or(&run, |member| &member.run);
                    check_base(first.config(), run.config()).map(|()| run)
                });
                let run =
                    run.map_err(|failure| at(failure.at(format!("variant {}", variant.name))))?;
                members.push(Member { variant: variant.name.clone(), run });
            }
        }
        let stem = place.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let shown = if place.is_absolute() { place.file_name().map(Path::new) } else { None };
        let comments = text.lines().map_while(|line| line.strip_prefix('#'));
        Ok(Self {
            name: stem,
            file: shown.unwrap_or(place).display().to_string(),
            about: comments.map(str::trim).collect::<Vec<_>>().join("\n"),
            variants: file.variant.iter().map(|variant| variant.name.clone()).collect(),
            seeds: file.seeds,
            members,
        })
    }

    pub(super) fn numerics(&self) -> Numerics {
        self.members[0].run.config().numerics
    }
}

/// The text of a run file, which has to be a good one by itself.
fn table(text: &str) -> Result<Table, Failure> {
    if let Some(Source { key, .. }) = sources(text)?.iter().find(|source| source.from.is_some()) {
        return Err(Failure::usage(format!(
            "{key}: expected the SHA-256 alone, as agrpo run says it: what is compared names no place"
        )));
    }
    Run::parse(text)?;
    toml::from_str(text).map_err(|error| Failure::usage(one_line(&error)))
}

/// Refuses lists in which something is missing or twice, and a seed beside the list of seeds.
fn check_lists(file: &File) -> Result<(), Failure> {
    let wrong = |why: String| Err(Failure::usage(why));
    if file.seeds.is_empty() || file.variant.is_empty() {
        return wrong("expected at least one seed and one [[variant]]".to_owned());
    }
    for (n, seed) in file.seeds.iter().enumerate() {
        if file.seeds[..n].contains(seed) {
            return wrong(format!("seeds: {seed} is there twice, expected different seeds"));
        }
    }
    for (n, Variant { name, .. }) in file.variant.iter().enumerate() {
        if file.variant[..n].iter().any(|other| other.name == *name) {
            return wrong(format!("two variants have the name `{name}`, expected different names"));
        }
    }
    let sets = file.variant.iter().map(|variant| &variant.set).chain([&file.set]);
    match sets.into_iter().find_map(|set| set.get("seed")) {
        Some(seed) => wrong(format!("set.seed = {seed}: expected no such key; list it in seeds")),
        None => Ok(()),
    }
}

/// Refuses a variant that starts from another base than the first, or is measured otherwise.
fn check_base(first: &RunConfig, own: &RunConfig) -> Result<(), Failure> {
    let evaluation = |config: &RunConfig| EvaluationConfig {
        every: 1,
        block_tokens: Some(config.evaluation_block_tokens()),
        ..config.evaluation.clone()
    };
    let tokens = |config: &RunConfig| config.rollout.completion_tokens;
    let changed = [
        ("numerics", first.numerics != own.numerics),
        ("task", first.task != own.task),
        ("model", first.model != own.model),
        ("sft", first.sft != own.sft),
        ("checkpoint", first.checkpoint != own.checkpoint),
        ("rollout.completion_tokens", tokens(first) != tokens(own)),
        ("evaluation", evaluation(first) != evaluation(own)),
    ];
    match changed.iter().find(|(_, is_changed)| *is_changed) {
        None => Ok(()),
        Some((key, _)) => Err(Failure::usage(format!(
            "{key} differs from the first variant's, expected one base and one evaluation; set it for all above the variants"
        ))),
    }
}

/// The run of a variant: the run file with the changes for all, then its own, the seed and a name.
fn member(base: &Table, file: &File, variant: &Variant, seed: u64) -> Result<Run, Failure> {
    let mut table = base.clone();
    overlay(&mut table, &file.set);
    overlay(&mut table, &variant.set);
    let name = table.get("name").and_then(Value::as_str).unwrap_or("run");
    let name = format!("{name}-{}", variant.name);
    table.insert("name".to_owned(), Value::String(name));
    let seed = i64::try_from(seed).map_err(|_| Failure::usage("seeds: expected below 2^63"))?;
    table.insert("seed".to_owned(), Value::Integer(seed));
    // Not through text, whose lines nobody sees.
    let config = table.try_into().map_err(|error| Failure::usage(one_line(&error)))?;
    Ok(Run::resolve(config)?)
}

/// Values replace values; tables are gone into.
fn overlay(table: &mut Table, changes: &Table) {
    for (key, change) in changes {
        match (table.get_mut(key), change) {
            (Some(Value::Table(inner)), Value::Table(changes)) => overlay(inner, changes),
            _ => drop(table.insert(key.clone(), change.clone())),
        }
    }
}

/// TOML's errors show an excerpt over several lines; ours are one line with the place in front.
fn one_line(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let message = agrpo_spec::without_slips;
    match text.strip_prefix("TOML parse error at ").and_then(|rest| rest.lines().next()) {
        Some(place) => format!("{place}: {}", message(error.message())),
        None => message(&text),
    }
}

#[cfg(test)]
mod tests;
