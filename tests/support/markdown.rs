//! Links, headings and fenced blocks of documents, by the Markdown reader that mdBook uses. Does not interpret the
//! blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// A fenced or indented block of code.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// What stands behind the fence; empty of indented blocks and of bare fences.
    pub(crate) language: String,
    /// Whether there is a fence at all.
    pub(crate) is_fenced: bool,
    /// What is inside.
    pub(crate) text: String,
    /// Where that is, in bytes of the document.
    pub(crate) range: Range<usize>,
    /// Line of its beginning, counted from 1.
    pub(crate) line: usize,
}

/// A document, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Document {
    pub(crate) blocks: Vec<Block>,
    /// Code within sentences.
    pub(crate) spans: Vec<String>,
    /// Addresses as written, images included.
    pub(crate) links: Vec<String>,
    /// What a link into the document may name behind its `#`.
    pub(crate) anchors: BTreeSet<String>,
    /// Headings as text.
    pub(crate) headings: Vec<String>,
}

/// Takes a document apart.
pub(crate) fn read(text: &str) -> Document {
    let mut document = Document::default();
    let (mut block, mut heading): (Option<Block>, Option<String>) = (None, None);
    let mut times = BTreeMap::new();
    for (event, range) in Parser::new_ext(text, Options::all()).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                let (language, is_fenced) = match kind {
                    CodeBlockKind::Fenced(language) => (language.to_string(), true),
                    CodeBlockKind::Indented => (String::new(), false),
                };
                let line = text[..range.start].matches('\n').count() + 1;
                // An empty block has its inside behind the first line.
                let inside =
                    text[range.start..].find('\n').map_or(range.end, |n| range.start + n + 1);
                let range = inside..inside;
                block = Some(Block { language, is_fenced, text: String::new(), range, line });
            }
            Event::End(TagEnd::CodeBlock) => document.blocks.extend(block.take()),
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let title = heading.take().unwrap_or_default();
                let anchor = anchor(&title);
                let time: &mut u32 = times.entry(anchor.clone()).or_default();
                let suffix = if *time == 0 { String::new() } else { format!("-{time}") };
                *time += 1;
                document.anchors.insert(anchor + &suffix);
                document.headings.push(title);
            }
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                document.links.push(dest_url.to_string());
            }
            Event::Text(part) => {
                if let Some(block) = &mut block {
                    block.text.push_str(&part);
                    block.range.end = range.end;
                } else if let Some(heading) = &mut heading {
                    heading.push_str(&part);
                }
            }
            Event::Code(part) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&part);
                }
                document.spans.push(part.to_string());
            }
            _ => {}
        }
    }
    document
}

/// A heading's anchor: small letters, hyphens for spaces, nothing else but letters, digits, - and _.
fn anchor(title: &str) -> String {
    let letters = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    letters.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The folder of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files of the checkout that git knows or would take; without git, all that are no build or store.
pub(crate) fn files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    match listed {
        Ok(listed) if listed.status.success() && root().join(".git").exists() => {
            let text = String::from_utf8(listed.stdout).unwrap();
            let paths = text.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from);
            // What was deleted is listed until that is committed.
            paths.filter(|path| root().join(path).is_file()).collect::<BTreeSet<_>>()
        }
        _ => {
            let mut found = BTreeSet::new();
            walk(Path::new(""), &mut found);
            found
        }
    }
    .into_iter()
    .collect()
}

fn walk(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if ["target", ".git", ".agrpo"].iter().any(|name| path == Path::new(name)) {
            continue;
        }
        if kind.is_dir() {
            walk(&path, found);
        } else if kind.is_file() {
            found.insert(path);
        }
    }
}

/// Every Markdown file of the checkout, by path.
pub(crate) fn documents() -> BTreeMap<PathBuf, String> {
    let is_markdown = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "md");
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(root().join(&path)).unwrap();
        (path, text)
    };
    files().into_iter().filter(is_markdown).map(read).collect()
}
