//! Files that a run file names: their location, and the digest that their bytes must have.
//!
//! ```toml
//! train = "9f86d0..."                                       # by content: the store has it
//! train = { from = "data/train.jsonl", sha256 = "9f86d0..." }  # from there, and nothing else
//! train = { from = "data/train.jsonl" }                     # from there, whatever it is
//! files = ["reward.py"]                                     # `[reward]`: from there, under that name
//! files = { "reward.py" = { from = "mine/reward.py" } }     # from elsewhere, likewise with sha256
//! ```
//! A run knows contents alone: the reader of a run file fetches what it names and puts the digests in
//! their place with [`with_digests`], before [`super::Run::parse`] sees it. Nothing is fetched here.

use std::collections::BTreeMap;

use toml_edit::{InlineTable, Item, TableLike, Value};

use super::error::{RunError, setting};
use super::reader::read_document;
use crate::digest::ArtifactDigest;

/// The keys that name a file or a folder.
const KEYS: [&str; 5] = [
    "task.benchmark.train",
    "task.benchmark.test",
    "task.dataset.train",
    "task.dataset.test",
    CHECKPOINT,
];

/// The files of a reward program: names alone, or names with their locations.
const PROGRAM: &str = "reward.files";

/// Bytes of the longest path or address, and of the longest name.
const LONGEST: usize = 4096;
const LONGEST_NAME: usize = 255;

/// The key of the only folder.
pub const CHECKPOINT: &str = "checkpoint.folder";

/// A file, or folder, that a run file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The key, with its section; of a program's file with its name, as in `reward.files.reward.py`.
    pub key: String,
    /// A path, an http(s) or an s3 address; none where only the content is named.
    pub from: Option<String>,
    /// The digest that it must have; none where any content is accepted.
    pub sha256: Option<ArtifactDigest>,
}

/// Every file and folder that a run file names: task, checkpoint, program; none for a text that is not TOML.
pub fn sources(text: &str) -> Result<Vec<Source>, RunError> {
    // `Run::parse` reports what is no TOML, with the line.
    let Ok(document) = read_document(text) else { return Ok(vec![]) };
    let found = KEYS.iter().filter_map(|&key| Some((key, find(document.as_table(), key)?)));
    let mut all: Vec<_> = found.map(|(key, item)| source(key, item)).collect::<Result<_, _>>()?;
    if let Some(item) = find(document.as_table(), PROGRAM) {
        all.extend(program(item)?);
    }
    Ok(all)
}

/// The files of a program.
fn program(item: &Item) -> Result<Vec<Source>, RunError> {
    let key = |name: &str| -> Result<String, RunError> {
        let expected = format!("a name of {} bytes, expected at most {LONGEST_NAME}", name.len());
        setting(PROGRAM, format!("{name:?}")).ensure(name.len() <= LONGEST_NAME, expected)?;
        Ok(format!("{PROGRAM}.{name}"))
    };
    if let Some(names) = item.as_array() {
        let of_name = |value: &Value| {
            let name = value.as_str().ok_or_else(|| {
                let expected = "expected a file's name, as in [\"reward.py\"]";
                setting(PROGRAM, value.to_string().trim()).refused(expected)
            })?;
            Ok(Source { key: key(name)?, from: Some(name.to_owned()), sha256: None })
        };
        return names.iter().map(of_name).collect();
    }
    let table = item.as_table_like().ok_or_else(|| {
        let expected = "expected names of files, as in [\"reward.py\"]";
        setting(PROGRAM, item.to_string().trim()).refused(expected)
    })?;
    let of_name =
        |(name, item): (&str, &Item)| Ok(Source { key: key(name)?, ..source(PROGRAM, item)? });
    table.iter().map(of_name).collect()
}

/// The run file with digests in place of locations; its other lines are unchanged.
pub fn with_digests(
    text: &str,
    digests: &BTreeMap<String, ArtifactDigest>,
) -> Result<String, RunError> {
    if digests.is_empty() {
        return Ok(text.to_owned());
    }
    let mut document = read_document(text)?;
    let mut files = InlineTable::new();
    for (key, digest) in digests {
        if let Some(name) = key.strip_prefix(PROGRAM).and_then(|rest| rest.strip_prefix('.')) {
            files.insert(name, Value::from(digest.to_string()));
            continue;
        }
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let table = section
            .split('.')
            .try_fold(document.as_table_mut() as &mut dyn TableLike, |t, part| {
                t.get_mut(part).and_then(Item::as_table_like_mut)
            });
        if let Some(table) = table {
            table.insert(name, Item::Value(Value::from(digest.to_string())));
        }
    }
    if !files.is_empty()
        && let Some(table) = document.get_mut("reward").and_then(Item::as_table_like_mut)
    {
        table.insert("files", Item::Value(Value::InlineTable(files)));
    }
    Ok(document.to_string())
}

fn find<'a>(table: &'a dyn TableLike, key: &str) -> Option<&'a Item> {
    match key.split_once('.') {
        Some((section, rest)) => find(table.get(section)?.as_table_like()?, rest),
        None => table.get(key),
    }
}

fn source(key: &str, item: &Item) -> Result<Source, RunError> {
    if let Some(text) = item.as_str() {
        return Ok(Source { key: key.to_owned(), from: None, sha256: Some(digest(key, text)?) });
    }
    let refused = |expected: &str| setting(key, item.to_string().trim()).refused(expected);
    let expected = "expected { from = \"path or address\", sha256 = \"64 hexadecimal digits\" }, \
                    or the digits alone";
    let malformed = || refused(expected);
    let table = item.as_table_like().ok_or_else(malformed)?;
    let text = |name: &str| match table.get(name) {
        Some(value) => value.as_str().map(Some).ok_or_else(malformed),
        None => Ok(None),
    };
    let is_known = |name: &str| name == "from" || name == "sha256";
    if table.is_empty() || !table.iter().all(|(name, _)| is_known(name)) {
        return Err(malformed());
    }
    let (from, sha256) = (text("from")?, text("sha256")?);
    let sha256 = sha256.map(|text| digest(key, text)).transpose()?;
    if from.is_some_and(|from| from.len() > LONGEST) {
        let expected = format!("expected a path or address of at most {LONGEST} bytes");
        return Err(refused(&expected));
    }
    Ok(Source { key: key.to_owned(), from: from.map(str::to_owned), sha256 })
}

fn digest(key: &str, text: &str) -> Result<ArtifactDigest, RunError> {
    let expected = "expected a SHA-256: 64 lower-case hexadecimal digits";
    text.parse().map_err(|_| setting(key, format!("{text:?}")).refused(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
name = "x"   # a name
[task.benchmark]
name = "gsm8k"
train = { from = "data/train.jsonl" } # where
test = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
[checkpoint]
folder = { from = "LLaDA", sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" }
"#;

    #[test]
    fn files_are_found_by_key_and_replaced_by_content() {
        let found = sources(FILE).unwrap();
        let abc = ArtifactDigest::of(b"abc");
        let source = |key: &str, from: Option<&str>, sha256| Source {
            key: key.to_owned(),
            from: from.map(str::to_owned),
            sha256,
        };
        assert_eq!(
            found,
            [
                source("task.benchmark.train", Some("data/train.jsonl"), None),
                source("task.benchmark.test", None, Some(abc)),
                source("checkpoint.folder", Some("LLaDA"), Some(abc)),
            ]
        );
        let digests = found.iter().map(|source| (source.key.clone(), abc));
        let digests = digests.chain([("checkpoint.tokenizer".to_owned(), abc)]);
        let text = with_digests(FILE, &digests.collect()).unwrap();
        assert!(text.contains("name = \"x\"   # a name"), "{text}");
        assert_eq!(text.matches(&abc.to_string()).count(), 4, "{text}");
        assert!(!text.contains("from"), "{text}");
    }

    #[test]
    fn the_files_of_a_program_keep_their_names() {
        for files in [
            "[\"reward.py\", \"lib/words.txt\"] # two",
            "{ \"reward.py\" = { from = \"reward.py\" }, \"lib/words.txt\" = { from = \"lib/words.txt\" } }",
        ] {
            let text = format!("[reward]\nfiles = {files}\ncommand = [\"python3\"]\n");
            let mut found = sources(&text).unwrap();
            found.sort_by(|one, other| one.key.cmp(&other.key));
            let keys: Vec<_> = found.iter().map(|source| source.key.as_str()).collect();
            assert_eq!(keys, ["reward.files.lib/words.txt", "reward.files.reward.py"]);
            assert_eq!(found[1].from.as_deref(), Some("reward.py"));
            let abc = ArtifactDigest::of(b"abc");
            let digests = found.into_iter().map(|source| (source.key, abc)).collect();
            let text = with_digests(&text, &digests).unwrap();
            assert_eq!(text.matches(&abc.to_string()).count(), 2, "{text}");
            // With digests alone it names the same files, and none has to be fetched.
            assert!(sources(&text).unwrap().iter().all(|source| source.sha256 == Some(abc)));
        }
        let refused = sources("[reward]\nfiles = \"reward.py\"\n").unwrap_err().to_string();
        assert!(refused.starts_with("reward.files = \"reward.py\": expected names"), "{refused}");
    }

    #[test]
    fn a_value_that_names_no_file_is_refused_with_its_key() {
        for (value, expected) in [
            ("7", "task.benchmark.train = 7: expected { from"),
            ("{ path = \"x\" }", "expected { from"),
            ("{}", "expected { from"),
            ("\"abc\"", "task.benchmark.train = \"abc\": expected a SHA-256"),
            ("{ from = \"x\", sha256 = \"ABC\" }", "expected a SHA-256"),
            (&format!("\"{}\"", "a".repeat(200_000)), "aaa\": expected a SHA-256"),
            (
                &format!("{{ from = \"{}\" }}", "a".repeat(5000)),
                "expected a path or address of at most 4096 bytes",
            ),
        ] {
            let text = format!("[task.benchmark]\ntrain = {value}\n");
            let refused = sources(&text).unwrap_err().to_string();
            assert!(refused.contains(expected) && refused.len() < 600, "{refused}");
        }
        let text = format!("[reward]\nfiles = [\"{}\"]\n", "a".repeat(200_000));
        let refused = sources(&text).unwrap_err().to_string();
        assert!(refused.ends_with("a name of 200000 bytes, expected at most 255"), "{refused}");
        assert_eq!(sources("name = \"x\"\n[task.countdown]\n").unwrap(), []);
    }
}
