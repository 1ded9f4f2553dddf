//! Resolves what a person types to a full name: an unambiguous beginning of a digest, or a run's name.
//!
//! Does not guess: a text that fits nothing or several things is an error.

use std::{fmt::Display, str::FromStr};

use agrpo_spec::{ArtifactDigest, RunId, StageDigest};

use super::json::Records;
use crate::{JobsError, Result};

/// Hexadecimal digits of a full digest.
const DIGITS: usize = 64;
/// Names listed at most where several fit.
const LISTED: usize = 5;

fn is_prefix(text: &str) -> bool {
    !text.is_empty() && text.len() <= DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `a, b, c and 2 more`, the digests cut short.
fn listed(names: &[String]) -> String {
    let short = |name: &String| name.chars().take(12).collect::<String>();
    let shown: Vec<_> = names.iter().take(LISTED).map(short).collect();
    let more = names.len().saturating_sub(LISTED);
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{tail}", shown.join(", "))
}

impl Records {
    /// The one name in `folder` that begins with `prefix`.
    async fn resolve<T: FromStr<Err: Display>>(
        &self,
        what: &str,
        folder: &str,
        prefix: &str,
    ) -> Result<T> {
        let parse = |name: &str| {
            name.parse().map_err(|error| JobsError::data(format!("{folder}/{name}: {error}")))
        };
        let prefix = prefix.to_ascii_lowercase();
        if !is_prefix(&prefix) {
            return Err(JobsError::invalid(format!(
                "`{prefix}` names no {what}: expected 1 to {DIGITS} hexadecimal digits"
            )));
        }
        let url = self.objects.url();
        if prefix.len() == DIGITS {
            // Its reader reports what is wrong with it, if anything is.
            let name = format!("{folder}/{prefix}");
            return match self.objects.look(&name).await? {
                Some(_) => parse(&prefix),
                None => Err(self.missing(&name)),
            };
        }
        let mut names = self.objects.list(folder).await?;
        names.retain(|name| name.starts_with(&prefix));
        names.sort_unstable();
        match names.as_slice() {
            [name] => parse(name),
            [] => Err(JobsError::invalid(format!("no {what} in {url} begins with `{prefix}`"))),
            _ => Err(JobsError::ambiguous(format!(
                "`{prefix}` fits several of the {what}s in {url}: {}; give more digits",
                listed(&names)
            ))),
        }
    }

    /// The stage whose name begins with `prefix`. Invalid or ambiguous unless one does; data error if a full name has
    /// no record.
    pub async fn resolve_stage(&self, prefix: &str) -> Result<StageDigest> {
        self.resolve("stage", "stages", prefix).await
    }

    /// The blob whose name begins with `prefix`; errors as for stages.
    pub async fn resolve_blob(&self, prefix: &str) -> Result<ArtifactDigest> {
        self.resolve("blob", "cas", prefix).await
    }

    /// The one run whose id begins with `text` or that has this name. Invalid or ambiguous unless one does; data error
    /// if none does and a record cannot be read, which may be the one.
    pub async fn resolve_run(&self, text: &str) -> Result<RunId> {
        let prefix = text.to_ascii_lowercase();
        let runs = self.runs().await?;
        let (mut fitting, mut names): (Vec<RunId>, Vec<String>) = (vec![], vec![]);
        let mut unreadable = vec![];
        if is_prefix(&prefix) {
            fitting.extend(runs.iter().filter(|id| id.to_string().starts_with(&prefix)));
        }
        if prefix.len() < DIGITS {
            let others = runs.into_iter().filter(|id| !fitting.contains(id)).collect();
            let (others, damaged) = self.names(others).await?;
            unreadable = damaged;
            for (id, name) in others {
                if name == text {
                    fitting.push(id);
                } else {
                    names.push(name);
                }
            }
        }
        let url = self.objects.url();
        match fitting.as_slice() {
            [id] => Ok(*id),
            [] => {
                let kind = if unreadable.is_empty() { JobsError::Invalid } else { JobsError::Data };
                let maybe = unreadable.iter().map(|run| format!("; this may be the one: {run}"));
                let text = format!(
                    "no run in {url} has the name `{text}` or an id that begins with it; {}`agrpo status` \
                     lists all runs{}",
                    agrpo_spec::suggestion(text, names.iter().map(String::as_str))
                        .map(|name| format!("did you mean `{name}`? "))
                        .unwrap_or_default(),
                    maybe.take(1).collect::<String>()
                );
                Err(kind(text.into()))
            }
            _ => {
                let names: Vec<_> = fitting.iter().map(ToString::to_string).collect();
                Err(JobsError::ambiguous(format!(
                    "`{text}` fits several of the runs in {url}: {}; give more of the id",
                    listed(&names)
                )))
            }
        }
    }
}
