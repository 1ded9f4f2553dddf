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
//! A variant goes through the same checks as a run file. All have one numerics class.

use std::path::Path;

use agrpo_spec::{Numerics, Run};
use serde::Deserialize;
use toml::{Table, Value};

use crate::commands::{name_of, read_text};
use crate::exit::Failure;

/// A comparison, every run of it checked.
pub(super) struct Comparison {
    /// The file's name without its ending.
    pub(super) name: String,
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
        let text = read_text(place)?;
        let at = |failure: Failure| failure.at(name_of(place));
        let file: File =
            toml::from_str(&text).map_err(|error| at(Failure::usage(one_line(&error))))?;
        if file.seeds.is_empty() || file.variant.is_empty() {
            return Err(at(Failure::usage("expected at least one seed and one [[variant]]")));
        }
        let base_place = place.parent().unwrap_or(Path::new("")).join(&file.run);
        let base: Table = toml::from_str(&read_text(&base_place)?)
            .map_err(|error| Failure::usage(one_line(&error)).at(name_of(&base_place)))?;
        let mut members = vec![];
        for &seed in &file.seeds {
            for variant in &file.variant {
                let run = member(&base, &file, variant, seed);
                let run =
                    run.map_err(|failure| at(failure.at(format!("variant {}", variant.name))))?;
                members.push(Member { variant: variant.name.clone(), run });
            }
        }
        let class = |member: &Member| member.run.config().numerics;
        if members.iter().any(|member| class(member) != class(&members[0])) {
            return Err(at(Failure::usage("the variants differ in numerics, expected one class")));
        }
        let stem = place.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let comments = text.lines().map_while(|line| line.strip_prefix('#'));
        Ok(Self {
            name: stem,
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
    Ok(Run::parse(&table.to_string())?)
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

fn one_line(error: &toml::de::Error) -> String {
    error.message().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_reach_single_keys() {
        let mut table: Table = toml::from_str("a = 1\n[b]\nc = 2\nd = 3").unwrap();
        overlay(&mut table, &toml::from_str("b.c = 4\ne.f = 5").unwrap());
        let expected: Table = toml::from_str("a = 1\nb = { c = 4, d = 3 }\ne.f = 5").unwrap();
        assert_eq!(table, expected);
    }
}
