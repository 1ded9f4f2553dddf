//! What an export wrote: its source, and its files with their digests.

use std::collections::BTreeMap;

use agrpo_spec::{ArtifactDigest, FolderEntry, RunId};
use serde::Serialize;

use crate::output;

/// What was written.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) format: String,
    pub(super) output: String,
    pub(super) run: Option<RunId>,
    pub(super) name: Option<String>,
    pub(super) iteration: Option<u32>,
    pub(super) policy: Option<ArtifactDigest>,
    /// Iterations that have a row.
    pub(super) rows: Option<usize>,
    pub(super) files: BTreeMap<String, FolderEntry>,
}

impl Summary {
    /// The summary for people.
    pub(super) fn describe(&self) -> String {
        let mut head = vec![vec!["wrote".to_owned(), format!("{} ({})", self.output, self.format)]];
        let mut row = |name: &str, value: String| head.push(vec![name.to_owned(), value]);
        if let (Some(run), Some(name)) = (self.run, &self.name) {
            row("run", format!("{run} ({name})"));
        }
        if let Some(policy) = self.policy {
            let iteration = self.iteration.map(|n| match n {
                0 => " (base)".to_owned(),
                n => format!(" (iteration {n})"),
            });
            row("policy", format!("{policy}{}", iteration.unwrap_or_default()));
        }
        if let Some(rows) = self.rows {
            row("rows", rows.to_string());
        }
        let file = |(name, entry): (&String, &FolderEntry)| {
            vec![entry.digest.to_string(), name.clone(), output::size(entry.size)]
        };
        let files: Vec<_> = self.files.iter().map(file).collect();
        format!("{}\n{}", output::table(&head), output::table(&files))
    }
}
