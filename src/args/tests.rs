//! The command line's definition, walked as a tree: nothing of it can be left out of help, snapshots and
//! documents by forgetting it. What the program prints is tested in `tests/it/help.rs`.

use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::Cli;

/// The tree with everything that is inherited in place, as wide as help is at most.
fn tree() -> Command {
    let mut tree = Cli::command().term_width(100);
    tree.build();
    tree
}

/// Every verb with the words that name it, hidden ones and those below others too.
fn verbs(command: &Command) -> Vec<(String, Command)> {
    let mut found = vec![];
    for verb in command.get_subcommands() {
        let name = verb.get_bin_name().unwrap().trim_start_matches("agrpo ").to_owned();
        found.push((name, verb.clone()));
        found.extend(verbs(verb));
    }
    found
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_of_every_verb() {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        let all = verbs(&tree());
        assert!(all.iter().any(|(name, _)| name == "bench-gpu"), "hidden verbs count");
        for (name, mut verb) in all {
            let help = verb.render_long_help().to_string();
            insta::assert_snapshot!(format!("help-{}", name.replace(' ', "-")), help);
        }
    });
}

#[test]
fn help_is_asked_for_as_a_verb_too() {
    let said = |line: &str| {
        let read = Cli::read(line.split(' ').map(Into::into));
        read.unwrap_err().to_string()
    };
    for (asked, same) in [
        ("agrpo help", "agrpo --help"),
        ("agrpo help help", "agrpo --help"),
        ("agrpo help run", "agrpo run --help"),
        ("agrpo help rum", "agrpo rum --help"),
    ] {
        assert_eq!(said(asked), said(same));
    }
    assert!(said("agrpo help run").contains("Usage: agrpo run"));
}

/// Clap's own advice, `-- -1`, works for no option.
#[test]
fn a_negative_number_after_an_option_is_refused_by_what_the_option_expects() {
    for (name, verb) in verbs(&tree()) {
        for long in verb.get_opts().filter_map(clap::Arg::get_long) {
            let line = format!("agrpo {name} --{long} -1");
            let read = Cli::read(line.split(' ').map(Into::into));
            let said = read.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!said.contains("unexpected argument"), "{name} --{long}: {said}");
        }
    }
}

#[test]
fn every_help_fits_and_shows_an_example() {
    for (name, mut verb) in verbs(&tree()) {
        let help = verb.render_long_help().to_string();
        let wide = help.lines().find(|line| line.chars().count() > 100);
        assert_eq!(wide, None, "{name}: a line of its help is wider than 100 columns");
        assert!(verb.get_about().is_some(), "{name} does not say what it does");
        let takes_verbs = verb.get_subcommands().next().is_some();
        let examples = help.split("\nExample").nth(1).unwrap_or_default();
        assert!(
            takes_verbs || verb.is_hide_set() || examples.contains(&format!("  agrpo {name}")),
            "{name} shows no example of itself"
        );
        let asks = |id: &str| verb.get_arguments().any(|argument| argument.get_id() == id);
        assert!(!asks("store") || help.contains("AGRPO_STORE"), "{name}: which store?");
    }
}

/// The code of a document: its spans, and the lines of its blocks, continued lines joined.
fn code(text: &str) -> Vec<String> {
    let (mut found, mut block) = (vec![], None::<String>);
    for event in Parser::new_ext(text, Options::all()) {
        match event {
            Event::Start(Tag::CodeBlock(_)) => block = Some(String::new()),
            Event::End(TagEnd::CodeBlock) => {
                let text = block.take().unwrap_or_default().replace("\\\n", " ");
                found.extend(text.lines().map(|line| line.trim().to_owned()));
            }
            Event::Text(text) => {
                if let Some(block) = &mut block {
                    block.push_str(&text);
                }
            }
            Event::Code(text) => found.push(text.to_string()),
            _ => {}
        }
    }
    found
}

/// What is wrong with a line of code that calls the program; nothing of any other.
fn trouble(line: &str, all: &[(String, Command)]) -> Option<String> {
    let command = ["agrpo ", "target/release/agrpo ", "exec agrpo ", "$(agrpo "].iter().find_map(
        |start| {
            line.strip_prefix(start)
                .or_else(|| Some(line.split_once(start)?.1).filter(|_| *start == "$(agrpo "))
        },
    )?;
    let end = command.find(['#', '|', '>', '&', ';', ')']).unwrap_or(command.len());
    let words: Vec<&str> = command[..end].split_whitespace().collect();
    let first = words.iter().find(|word| !word.starts_with('-'))?;
    // COMMAND and the like stand for any, and some commands are mistakes to learn from.
    let is_word = first.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    if !is_word || line.contains("|| echo \"exit code") {
        return None;
    }
    let fits = |name: &String| {
        let mut parts = name.split(' ');
        words.iter().skip_while(|word| word.starts_with('-')).zip(&mut parts).all(|(a, b)| *a == b)
            && parts.next().is_none()
    };
    let verb = all.iter().filter(|(name, _)| fits(name)).max_by_key(|(name, _)| name.len());
    let Some((name, verb)) = verb else { return Some(format!("there is no verb `{first}`")) };
    let unknown = words.iter().find(|word| {
        let word = word.split('=').next().unwrap_or_default();
        let word = word.trim_end_matches([',', '.', '`', '\'', '"', ']']).trim_start_matches('[');
        let known = |argument: &clap::Arg| match word.strip_prefix("--") {
            Some(long) => argument.get_long() == Some(long),
            None => argument.get_short().map(|short| format!("-{short}")).as_deref() == Some(word),
        };
        word.len() > 1 && word.starts_with('-') && !verb.get_arguments().any(known)
    });
    unknown.map(|word| format!("`agrpo {name}` has no option {word}"))
}

fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            documents(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
}

#[test]
fn every_option_that_a_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
            .map(|n| root.join(n))
            .into();
    for folder in ["docs", "infra", "fuzz"] {
        documents(&root.join(folder), &mut pages);
    }
    let (all, mut wrong) = (verbs(&tree()), vec![]);
    for page in pages {
        for line in code(&std::fs::read_to_string(&page).unwrap()) {
            let trouble = trouble(&line, &all);
            wrong.extend(trouble.map(|trouble| format!("{}: {line}: {trouble}", page.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_document_that_names_what_is_not_there_is_refused() {
    let all = verbs(&tree());
    let of = |line| trouble(line, &all);
    assert_eq!(of("agrpo run FILE --dry-run | head --lines 3"), None);
    assert_eq!(of("x=$(agrpo show smoke --json)"), None);
    assert_eq!(of("user agrpo on >PASSWORD"), None);
    assert_eq!(of("agrpo COMMAND --help"), None);
    assert_eq!(of("agrpo rum || echo \"exit code $?\""), None);
    assert_eq!(of("agrpo run FILE --dry"), Some("`agrpo run` has no option --dry".to_owned()));
    assert_eq!(of("agrpo rum FILE"), Some("there is no verb `rum`".to_owned()));
}
