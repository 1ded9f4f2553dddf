//! The file of a comparison: a run file, and what each variant changes in it (`jobs/runs/compare/countdown.toml`).
//!
//! A variant goes through the checks of a run file. Refuses variants of one name, a seed twice, and changes of a
//! variant that give it another base or another evaluation.

use std::path::Path;

use agrpo_spec::{
    Appended, EvaluationConfig, Numerics, Run, RunConfig, RunError, Source, sources, toml_reason,
};
use serde::Deserialize;
use toml::{Table, Value};

/// Why a comparison is refused, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl From<RunError> for Invalid {
    fn from(error: RunError) -> Self {
        Self(error.to_string())
    }
}

/// A comparison, every run of it checked.
#[derive(Debug)]
pub struct Comparison {
    /// The file's name without its ending.
    pub name: String,
    /// The file's path; its name alone where the path is absolute, as the rest would describe this machine.
    pub file: String,
    /// The first lines of the file that are comments, as text.
    pub about: String,
    /// The variants' names, in the file's order.
    pub variants: Vec<String>,
    /// The seeds, in the file's order.
    pub seeds: Vec<u64>,
    /// Every variant with every seed.
    pub members: Vec<Member>,
}

/// One variant with one seed.
#[derive(Debug)]
pub struct Member {
    /// The variant's name.
    pub variant: String,
    /// Its run with the seed.
    pub run: Run,
}

/// The file of a comparison, before its run file is read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComparisonFile {
    run: String,
    seeds: Vec<u64>,
    #[serde(default)]
    set: Table,
    variant: Vec<Variant>,
    #[serde(skip)]
    about: String,
}

/// The run file that variants change.
#[derive(Debug)]
pub struct Base(Table);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    name: String,
    #[serde(default)]
    set: Table,
}

impl ComparisonFile {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let file: Self = toml::from_str(text).map_err(|error| Invalid(toml_reason(&error)))?;
        check_lists(&file)?;
        let comments = text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
        Ok(Self { about: comments.collect::<Vec<_>>().join("\n"), ..file })
    }

    /// The run file that it names, relative to the comparison's folder.
    pub fn run(&self) -> &Path {
        Path::new(&self.run)
    }
}

impl Base {
    /// Reads a run file's text, which has to be valid by itself.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let all = sources(text)?;
        if let Some(Source { key, .. }) = all.iter().find(|source| source.from.is_some()) {
            return Err(Invalid(format!(
                "{key}: expected the SHA-256 alone, as agrpo run prints it: a comparison names no paths"
            )));
        }
        Run::parse(text)?;
        toml::from_str(text).map(Self).map_err(|error| Invalid(toml_reason(&error)))
    }
}

impl Comparison {
    /// Every variant of a run with every seed; `path` is the comparison's file.
    pub fn new(path: &Path, file: ComparisonFile, base: &Base) -> Result<Self, Invalid> {
        let mut members: Vec<Member> = vec![];
        for &seed in &file.seeds {
            for variant in &file.variant {
                let run = member(&base.0, &file, variant, seed).and_then(|run| {
                    let first = members.first().map_or(&run, |member| &member.run);
                    check_base(first.config(), run.config()).map(|()| run)
                });
                let at = |Invalid(why)| Invalid(format!("variant {}: {why}", variant.name));
                let run = run.map_err(at)?;
                members.push(Member { variant: variant.name.clone(), run });
            }
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let shown = if path.is_absolute() { path.file_name().map(Path::new) } else { None };
        Ok(Self {
            name: stem,
            file: shown.unwrap_or(path).display().to_string(),
            about: file.about,
            variants: file.variant.iter().map(|variant| variant.name.clone()).collect(),
            seeds: file.seeds,
            members,
        })
    }

    /// The numerics class, which all members share.
    pub fn numerics(&self) -> Numerics {
        self.members[0].run.config().numerics
    }
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, seed {}", self.variant, self.run.config().seed)
    }
}

/// Refuses lists in which something is missing or twice, and a seed beside the list of seeds.
fn check_lists(file: &ComparisonFile) -> Result<(), Invalid> {
    let wrong = |why: String| Err(Invalid(why));
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
fn check_base(first: &RunConfig, variant: &RunConfig) -> Result<(), Invalid> {
    let evaluation = |config: &RunConfig| EvaluationConfig {
        every: 1,
        // They share the work; see docs/guide/determinism.md.
        shards: Appended::default(),
        block_tokens: Some(config.evaluation_block_tokens()),
        ..config.evaluation.clone()
    };
    let tokens = |config: &RunConfig| config.rollout.completion_tokens;
    let changed = [
        ("numerics", first.numerics != variant.numerics),
        ("task", first.task != variant.task),
        ("model", first.model != variant.model),
        ("sft", first.sft != variant.sft),
        ("checkpoint", first.checkpoint != variant.checkpoint),
        ("rollout.completion_tokens", tokens(first) != tokens(variant)),
        ("evaluation", evaluation(first) != evaluation(variant)),
    ];
    match changed.iter().find(|(_, is_changed)| *is_changed) {
        None => Ok(()),
        Some((key, _)) => Err(Invalid(format!(
            "{key} differs from the first variant's, expected one base and one evaluation; set it for all above the variants"
        ))),
    }
}

/// The run of a variant: the run file with the changes for all, then the variant's, the seed and a name.
fn member(base: &Table, file: &ComparisonFile, item: &Variant, seed: u64) -> Result<Run, Invalid> {
    let mut table = base.clone();
    overlay(&mut table, &file.set);
    overlay(&mut table, &item.set);
    let name = table.get("name").and_then(Value::as_str).unwrap_or("run");
    let name = format!("{name}-{}", item.name);
    table.insert("name".to_owned(), Value::String(name));
    let seed = i64::try_from(seed).map_err(|_| Invalid("seeds: expected below 2^63".to_owned()))?;
    table.insert("seed".to_owned(), Value::Integer(seed));
    // Not through text, as errors would name lines of a text that the user did not write.
    let config = RunConfig::from_table(table).map_err(|error| Invalid(toml_reason(&error)))?;
    Ok(Run::resolve(config)?)
}

/// Values replace values; tables are merged.
fn overlay(table: &mut Table, changes: &Table) {
    for (key, change) in changes {
        match (table.get_mut(key), change) {
            (Some(Value::Table(inner)), Value::Table(changes)) => overlay(inner, changes),
            _ => drop(table.insert(key.clone(), change.clone())),
        }
    }
}

#[cfg(test)]
mod tests;
