//! Reads TOML, as a configuration or as a document that can be edited. Errors are one line: the place, what was
//! found, and the key that may have been meant.
//!
//! The known keys come from the reader's own errors, section by section, so no list of them is kept here. Only
//! names are compared: values are checked in `checks.rs`.

use std::ops::Range;

use toml_edit::{Document, DocumentMut, Item, TableLike, Value};

use super::{RunConfig, RunError};
use crate::message::Message;
use crate::text::{one_line, suggestion};

/// A key that no section has.
const PROBE: &str = "?";

/// The deepest nesting of tables and lists that TOML's readers follow.
const DEEPEST: u32 = 80;

/// Bytes of the longest run file: readers of TOML take a few hundred times as much memory.
const LONGEST: usize = 1 << 20;

fn check_length(text: &str) -> Result<(), RunError> {
    match text.len() {
        length if length > LONGEST => Err(RunError::Syntax(
            format!("{length} bytes, expected at most {LONGEST}: this is no run file").into(),
        )),
        _ => Ok(()),
    }
}

/// Reads a run file, unchecked.
pub(super) fn read_config(text: &str) -> Result<RunConfig, RunError> {
    check_length(text)?;
    let refused = |error| RunError::Syntax(Message::caused_by(explained(&error, text), error));
    let mut config: RunConfig = toml::from_str(text).map_err(refused)?;
    config.fill_in(&toml::from_str(text).map_err(refused)?);
    Ok(config)
}

/// Reads a run file with its comments and its layout.
pub(super) fn read_document(text: &str) -> Result<DocumentMut, RunError> {
    check_length(text)?;
    text.parse().map_err(|error: toml_edit::TomlError| {
        RunError::Syntax(Message::caused_by(plain(error.message()), error))
    })
}

/// A message of a reader of TOML as one line; where it met a bound, with the bound.
fn plain(message: &str) -> String {
    if message.contains("recursion limit") || message.contains("cannot recurse") {
        return format!("keys and values nest deeper than {DEEPEST}");
    }
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    one_line(&in_plain_words(&message).unwrap_or(message))
}

/// An error of Rust's readers about a key or a value, in the words of a run file; `None` for any other.
fn in_plain_words(message: &str) -> Option<String> {
    if let Some(key) = message.strip_prefix("missing field ") {
        return Some(format!("the key {key} is missing"));
    }
    let value = message.strip_prefix("invalid type: ").or(message.strip_prefix("invalid value: "));
    let expected = match message {
        "wanted string or table" => "text in quotes",
        _ if message.starts_with("wanted exactly 1 element") => "one section below it",
        _ => value?.rsplit_once(", expected ")?.1,
    };
    let (kind, section) = expected.split_at(expected.find(" in `").unwrap_or(expected.len()));
    let kind = match kind {
        "u32" => "a whole number from 0 to 4294967295",
        "u64" => "a whole number from 0 to 2^63 - 1",
        "f64" => "a number",
        "a string" => "text in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list in [ ]",
        _ if ["a map", "struct ", "internally tagged enum "]
            .iter()
            .any(|it| kind.starts_with(it)) =>
        {
            "a section"
        }
        _ => kind,
    };
    Some(format!("expected {kind}{section}"))
}

/// TOML's errors show an excerpt over several lines; ours are one line with the place in front.
fn explained(error: &toml::de::Error, text: &str) -> String {
    let message = error.message();
    // What is missing outside all sections has no place.
    let Some(span) = error.span().filter(|span| *span != (0..0)) else { return plain(message) };
    let before = &text[..span.start.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let source = text.lines().nth(line - 1).unwrap_or_default();
    let source = source.split(" #").next().unwrap_or_default().trim();
    let message = match Refused::read(message) {
        Some(refused) => refused.explained(&place(text, &span).unwrap_or_default(), true),
        None => plain(message),
    };
    format!("line {line}, `{}`: {message}", one_line(source))
}

/// What the reader refused: `unknown field` or `unknown variant`, the word, and the words it knows.
struct Refused<'a> {
    is_key: bool,
    word: &'a str,
    known: Vec<&'a str>,
}

impl<'a> Refused<'a> {
    fn read(message: &'a str) -> Option<Self> {
        let (is_key, rest) = match message.strip_prefix("unknown field ") {
            Some(rest) => (true, rest),
            None => (false, message.strip_prefix("unknown variant ")?),
        };
        let mut quoted = rest.split('`').skip(1).step_by(2);
        Some(Self { is_key, word: quoted.next()?, known: quoted.collect() })
    }

    fn listed(&self) -> String {
        match self.known.as_slice() {
            [] => "none is known here".to_owned(),
            known => format!("expected one of {}", known.join(", ")),
        }
    }

    /// Describes the refused word and suggests what was meant; for a run file, from any section.
    fn explained(&self, place: &[String], is_run: bool) -> String {
        let known = self.known.iter().copied();
        let whole = one_line(&place.join("."));
        let word = one_line(self.word);
        if !self.is_key {
            let meant =
                suggestion(self.word, known).map(|meant| format!("did you mean `{meant}`? "));
            // A task's kind is the name of a section.
            let is_section = place.last().is_some_and(|last| last == self.word);
            let what = match (is_section, place) {
                (true, _) => format!("section `{whole}`"),
                (false, []) => format!("value `{word}`"),
                (false, _) => format!("value `{word}` of `{whole}`"),
            };
            return format!("unknown {what}: {}{}", meant.unwrap_or_default(), self.listed());
        }
        let section = place.split_last().map_or(&[][..], |(_, section)| section);
        let path = |name: &str| one_line(&[section, &[name.to_owned()]].concat().join("."));
        let unknown = format!("unknown key `{}`", path(self.word));
        if let Some(meant) = suggestion(self.word, known) {
            return format!("{unknown}: did you mean `{}`?", path(meant));
        }
        match is_run.then(|| elsewhere(self.word)).flatten() {
            Some(meant) => format!("{unknown}: did you mean {meant}?"),
            None => format!("{unknown}: {}", self.listed()),
        }
    }
}

/// An error of the TOML reader about another kind of file, as one line: the place, if it has one, and the message.
pub fn toml_reason(error: &toml::de::Error) -> String {
    let text = error.to_string();
    match text.strip_prefix("TOML parse error at ").and_then(|rest| rest.lines().next()) {
        Some(place) => format!("{place}: {}", with_suggestion(error.message())),
        None => with_suggestion(&text),
    }
}

/// A message of the TOML reader without a text, as one line with the key that may have been meant.
fn with_suggestion(message: &str) -> String {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    // Of values that came from no text, the reader names the section at the end.
    let (what, section) = message.rsplit_once(" in `").unwrap_or((&message, ""));
    let Some(refused) = Refused::read(what).filter(|refused| refused.is_key) else {
        let value =
            message.strip_prefix("invalid type: ").or(message.strip_prefix("invalid value: "));
        let value = value.and_then(|rest| Some(rest.rsplit_once(", expected ")?.0));
        let found = value.map(|value| format!(", found {}", one_line(value)));
        return plain(&message) + &found.unwrap_or_default();
    };
    let section = section.trim_end_matches('`').split('.').filter(|part| !part.is_empty());
    let place: Vec<String> = section.chain([refused.word]).map(str::to_owned).collect();
    refused.explained(&place, false)
}

/// The keys of any section that a word may have meant.
fn elsewhere(word: &str) -> Option<String> {
    let mut all = vec![];
    keys(&mut vec![], &mut all);
    let names = || all.iter().map(|path| path.rsplit('.').next().unwrap_or(path));
    let meant = suggestion(word, names())?;
    let fitting = all.iter().zip(names()).filter(|(_, name)| *name == meant);
    Some(fitting.map(|(path, _)| format!("`{path}`")).collect::<Vec<_>>().join(" or "))
}

/// Every key that a run file may have, with its section, in the order of the reader.
fn keys(section: &mut Vec<String>, found: &mut Vec<String>) {
    // No section of a run file lies deeper.
    if section.len() > 3 {
        return;
    }
    let head =
        if section.is_empty() { String::new() } else { format!("[{}]\n", section.join(".")) };
    let text = format!("{head}\"{PROBE}\" = 0");
    let Err(error) = toml::from_str::<RunConfig>(&text) else { return };
    let Some(refused) = Refused::read(error.message()).filter(|it| it.word == PROBE) else {
        return;
    };
    for name in &refused.known {
        section.push((*name).to_owned());
        if refused.is_key {
            found.push(section.join("."));
        }
        keys(section, found);
        section.pop();
    }
}

/// The path of the key whose name or value covers this span of the text.
fn place(text: &str, span: &Range<usize>) -> Option<Vec<String>> {
    let document = Document::parse(text).ok()?;
    let mut path = vec![];
    find(document.as_table(), span, &mut path).then_some(path)
}

fn find(table: &dyn TableLike, span: &Range<usize>, path: &mut Vec<String>) -> bool {
    let is_here = |place: Option<Range<usize>>| place.is_some_and(|place| place == *span);
    for (name, item) in table.iter() {
        path.push(name.to_owned());
        let key = table.key(name).and_then(toml_edit::Key::span);
        if is_here(key) || is_here(item.span()) {
            return true;
        }
        let inside = match item {
            Item::Table(table) => Some(table as &dyn TableLike),
            Item::Value(Value::InlineTable(table)) => Some(table as &dyn TableLike),
            _ => None,
        };
        if inside.is_some_and(|inside| find(inside, span, path)) {
            return true;
        }
        path.pop();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_lists_its_keys() {
        let mut all = vec![];
        keys(&mut vec![], &mut all);
        for key in [
            "seed",
            "rollout.group",
            "sft.optimizer.learning_rate",
            "task.countdown.max_number",
            "checkpoint.shape.d_model",
            "retention.keep_policies",
        ] {
            assert!(all.iter().any(|known| known == key), "{key} is missing from {all:?}");
        }
    }

    fn said(text: &str) -> String {
        explained(&toml::from_str::<RunConfig>(text).unwrap_err(), text)
    }

    #[test]
    fn an_error_keeps_that_of_the_reader_as_its_source() {
        let error = crate::Run::parse("sed = 1").unwrap_err();
        assert!(std::error::Error::source(&error).is_some_and(|it| it.is::<toml::de::Error>()));
    }

    #[test]
    fn a_message_without_a_text_is_explained_too() {
        let list = "expected one of `kind`, `k` in `estimator`";
        assert_eq!(
            with_suggestion(&format!("unknown field `kk`, {list}\n")),
            "unknown key `estimator.kk`: did you mean `estimator.k`?"
        );
        assert_eq!(
            with_suggestion("unknown field `group`, expected `run` or `seeds`"),
            "unknown key `group`: expected one of run, seeds"
        );
        assert_eq!(with_suggestion("missing field\n`run`"), "the key `run` is missing");
        assert!(with_suggestion(&format!("invalid type: \"{}\"", "a".repeat(9000))).len() < 300);
    }

    #[test]
    fn a_wrong_value_is_refused_in_the_words_of_a_run_file() {
        insta::assert_snapshot!(said("name = \"x\"\nseed = \"one\""), @r#"line 2, `seed = "one"`: expected a whole number from 0 to 2^63 - 1"#);
        insta::assert_snapshot!(said("seed = -1"), @"line 1, `seed = -1`: expected a whole number from 0 to 2^63 - 1");
        insta::assert_snapshot!(said("name = 3"), @"line 1, `name = 3`: expected text in quotes");
        insta::assert_snapshot!(said("rollout = 3"), @"line 1, `rollout = 3`: expected a section");
        insta::assert_snapshot!(said("[rollout]\ngroup = 1.5"), @"line 2, `group = 1.5`: expected a whole number from 0 to 4294967295");
        insta::assert_snapshot!(said("[evaluation]\nsteps = 8"), @"line 2, `steps = 8`: expected a list in [ ]");
        insta::assert_snapshot!(said("[evaluation]\nsteps = [8, \"4\"]"), @r#"line 2, `steps = [8, "4"]`: expected a whole number from 0 to 4294967295"#);
        insta::assert_snapshot!(said("[optimizer]\nlearning_rate = \"fast\""), @r#"line 2, `learning_rate = "fast"`: expected a number"#);
        insta::assert_snapshot!(said("[estimator]\nk = true"), @r#"line 2, `k = true`: expected a number of samples or "all""#);
        insta::assert_snapshot!(said("[task]"), @"line 1, `[task]`: expected one section below it");
        insta::assert_snapshot!(said("numerics = 3"), @"line 1, `numerics = 3`: expected text in quotes");
        insta::assert_snapshot!(said("[training]"), @"line 1, `[training]`: the key `iterations` is missing");
        insta::assert_snapshot!(said("name = \"x\"\nseed = 1"), @"the key `task` is missing");
        assert_eq!(
            with_suggestion(
                "invalid type: string \"a, expected b\", expected u32 in `rollout.group`"
            ),
            "expected a whole number from 0 to 4294967295 in `rollout.group`, found string \"a, expected b\""
        );
    }

    #[test]
    fn a_message_is_short_whatever_the_file_holds() {
        let long = "a".repeat(200_000);
        for text in [
            format!("{long} = 1"),
            format!("name = {long}"),
            format!("seed = \"{long}\""),
            format!("name = \"{long}\"\nseed = 1\nsed = \"{long}\""),
            format!("[{long}]\nx = 1"),
            format!("[rollout]\n{long} = 1"),
            format!("[advantage]\nscale = \"{long}\""),
            format!("[task.{long}]\nx = 1"),
            format!("a.{} = 1", "b.".repeat(100_000) + "c"),
            format!("x = {}", "[".repeat(100_000)),
        ] {
            for message in [said(&text), crate::Run::parse(&text).unwrap_err().to_string()] {
                assert!(
                    message.len() < 1500 && !message.contains('\n'),
                    "{} bytes: {message:.300}",
                    message.len()
                );
            }
        }
        let value =
            crate::RunError::Value { key: "name".into(), found: long.clone(), expected: long };
        assert!(value.to_string().len() < 1000);
    }

    #[test]
    fn a_nest_that_is_too_deep_is_refused_with_the_bound() {
        let keys = |depth: usize| said(&format!("{}x = 1", "x.".repeat(depth - 1)));
        assert!(keys(79).contains("unknown key"), "{}", keys(79));
        let bound = format!("keys and values nest deeper than {DEEPEST}");
        assert!(keys(81).ends_with(&bound), "{}", keys(81));
        let list = said(&format!("name = {}", "[".repeat(100)));
        assert!(list.ends_with(&bound), "{list}");
    }

    #[test]
    fn a_misspelt_key_is_refused_with_a_suggestion() {
        insta::assert_snapshot!(said("name = \"x\"\nsed = 1"), @"line 2, `sed = 1`: unknown key `sed`: did you mean `seed`?");
        insta::assert_snapshot!(said("[rollout]\ngrop = 8"), @"line 2, `grop = 8`: unknown key `rollout.grop`: did you mean `rollout.group`?");
        insta::assert_snapshot!(said("[sft]\noptimizer = { learning-rate = 1.0 }"), @"line 2, `optimizer = { learning-rate = 1.0 }`: unknown key `sft.optimizer.learning-rate`: did you mean `sft.optimizer.learning_rate`?");
        insta::assert_snapshot!(said("[training]\ngroup = 8"), @"line 2, `group = 8`: unknown key `training.group`: did you mean `rollout.group`?");
        insta::assert_snapshot!(said("[training]\nbeta1 = 0.9"), @"line 2, `beta1 = 0.9`: unknown key `training.beta1`: did you mean `sft.optimizer.beta1` or `optimizer.beta1`?");
        insta::assert_snapshot!(said("[training]\nzebra = 1"), @"line 2, `zebra = 1`: unknown key `training.zebra`: expected one of iterations");
        insta::assert_snapshot!(said("[advantage]\nscale = \"batch_std\""), @r#"line 2, `scale = "batch_std"`: unknown value `batch_std` of `advantage.scale`: did you mean `batch-std`? expected one of none, group-std, batch-std"#);
        insta::assert_snapshot!(said("[advantage]\nscale = \"batch\" # a comment"), @r#"line 2, `scale = "batch"`: unknown value `batch` of `advantage.scale`: did you mean `batch-std`? expected one of none, group-std, batch-std"#);
        insta::assert_snapshot!(said("[advantage]\nscale = \"zebra\""), @r#"line 2, `scale = "zebra"`: unknown value `zebra` of `advantage.scale`: expected one of none, group-std, batch-std"#);
        insta::assert_snapshot!(said("[task.sudoko]\nseed = 1"), @"line 1, `[task.sudoko]`: unknown section `task.sudoko`: did you mean `sudoku`? expected one of countdown, sudoku, benchmark, dataset");
        insta::assert_snapshot!(said("[task]\ncountdwn = {}"), @"line 2, `countdwn = {}`: unknown section `task.countdwn`: did you mean `countdown`? expected one of countdown, sudoku, benchmark, dataset");
        insta::assert_snapshot!(said("[optimiser]\nbeta1 = 1.0"), @"line 1, `[optimiser]`: unknown key `optimiser`: did you mean `optimizer`?");
    }
}
