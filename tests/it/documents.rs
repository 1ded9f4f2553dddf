//! The links of every document of the checkout: their files and anchors exist.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::support::markdown::{Document, documents, read, root};

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// What is wrong with a link; `None` if its target exists or is on the network.
fn trouble(link: &str, page: &Path, pages: &BTreeMap<PathBuf, Document>) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match file {
        "" => page.to_owned(),
        file => plain(&page.parent().unwrap().join(file)),
    };
    if !root().join(&target).exists() {
        return Some(format!("{}: {link}: there is no {}", page.display(), target.display()));
    }
    let anchors = pages.get(&target).map(|page| &page.anchors);
    let is_there = anchor.is_empty() || anchors.is_some_and(|anchors| anchors.contains(anchor));
    (!is_there).then(|| format!("{}: {link}: no heading of {file} has that anchor", page.display()))
}

#[test]
fn every_link_and_anchor_leads_somewhere() {
    let pages: BTreeMap<PathBuf, Document> =
        documents().into_iter().map(|(path, text)| (path, read(&text))).collect();
    let all = pages.iter().flat_map(|(path, page)| page.links.iter().map(move |link| (path, link)));
    let wrong: Vec<String> = all.filter_map(|(path, link)| trouble(link, path, &pages)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_link_that_leads_nowhere_is_reported() {
    let page = Path::new("docs/guide/first-run.md");
    let pages =
        BTreeMap::from([(page.to_owned(), read("# One thing, `two` things\n# One\n# One\n"))]);
    let trouble = |link| trouble(link, page, &pages);
    assert_eq!(trouble("#one-thing-two-things"), None);
    assert_eq!(trouble("#one-1"), None);
    assert_eq!(trouble("../../README.md"), None);
    assert_eq!(trouble("https://example.org/nowhere"), None);
    assert!(trouble("#one-2").is_some());
    assert!(trouble("nowhere.md").is_some());
}
