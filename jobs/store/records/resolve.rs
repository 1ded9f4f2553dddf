//! Resolves what a person types to a full name: an unambiguous beginning of a digest, or a run's name.
//!
//! Refuses to guess: what fits nothing or several things is an error that says so.

use agrpo_spec::{ArtifactDigest, RunId, StageDigest};
use futures::StreamExt;

use crate::error::JobsError;
use crate::store::Store;

/// Hexadecimal digits of a full digest.
const DIGITS: usize = 64;
/// Names listed at most where several fit.
const LISTED: usize = 5;
/// Run records read at the same time.
const READS: usize = 16;

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

impl Store {
    /// The one name in `folder` that begins with `prefix`.
    async fn resolve(&self, what: &str, folder: &str, prefix: &str) -> Result<String, JobsError> {
        let prefix = prefix.to_ascii_lowercase();
        if !is_prefix(&prefix) {
            return Err(JobsError::Invalid(format!(
                "`{prefix}` names no {what}: expected 1 to {DIGITS} hexadecimal digits"
            )));
        }
        let url = self.url();
        if prefix.len() == DIGITS {
            // Whatever is there: who reads it tells what is wrong with it.
            return match self.backend.look(&format!("{folder}/{prefix}")).await? {
                Some(_) => Ok(prefix),
                None => Err(JobsError::Data(format!("{folder}/{prefix} is missing in {url}"))),
            };
        }
        let mut names = self.backend.list(folder).await?;
        names.retain(|name| name.starts_with(&prefix));
        names.sort_unstable();
        match names.as_slice() {
            [name] => Ok(name.clone()),
            [] => Err(JobsError::Invalid(format!("no {what} in {url} begins with `{prefix}`"))),
            _ => Err(JobsError::Invalid(format!(
                "`{prefix}` fits several of the {what}s in {url}: {}; give more digits",
                listed(&names)
            ))),
        }
    }

    /// The stage whose name begins with `prefix`. Invalid error if none or several do; data error if
    /// a full name has no record.
    pub async fn resolve_stage(&self, prefix: &str) -> Result<StageDigest, JobsError> {
        let name = self.resolve("stage", "stages", prefix).await?;
        name.parse().map_err(|error| JobsError::Data(format!("stages/{name}: {error}")))
    }

    /// The blob whose name begins with `prefix`; errors as for stages.
    pub async fn resolve_blob(&self, prefix: &str) -> Result<ArtifactDigest, JobsError> {
        let name = self.resolve("blob", "cas", prefix).await?;
        name.parse().map_err(|error| JobsError::Data(format!("cas/{name}: {error}")))
    }

    /// The one run whose id begins with `text` or that has this name. Invalid error if none or several
    /// fit.
    pub async fn resolve_run(&self, text: &str) -> Result<RunId, JobsError> {
        let prefix = text.to_ascii_lowercase();
        let runs = self.runs().await?;
        let (mut fitting, mut names): (Vec<RunId>, Vec<String>) = (vec![], vec![]);
        if is_prefix(&prefix) {
            fitting.extend(runs.iter().filter(|id| id.to_string().starts_with(&prefix)));
        }
        if prefix.len() < DIGITS {
            let others = runs.into_iter().filter(|id| !fitting.contains(id)).collect::<Vec<_>>();
            let mut reads = futures::stream::iter(others)
                .map(|id| async move { (id, self.run(id).await) })
                .buffered(READS);
            while let Some((id, run)) = reads.next().await {
                // A damaged record must not hide the other runs.
                match run {
                    Ok(run) if run.config().name == text => fitting.push(id),
                    Ok(run) => names.push(run.config().name.clone()),
                    Err(error @ (JobsError::Unavailable(_) | JobsError::Invalid(_))) => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
        }
        let url = self.url();
        match fitting.as_slice() {
            [id] => Ok(*id),
            [] => Err(JobsError::Invalid(format!(
                "no run in {url} has the name `{text}` or an id that begins with it; {}`agrpo status` \
                 lists all runs",
                agrpo_spec::nearest(text, names.iter().map(String::as_str))
                    .map(|name| format!("did you mean `{name}`? "))
                    .unwrap_or_default()
            ))),
            _ => {
                let names: Vec<_> = fitting.iter().map(ToString::to_string).collect();
                Err(JobsError::Invalid(format!(
                    "`{text}` fits several of the runs in {url}: {}; give more of the id",
                    listed(&names)
                )))
            }
        }
    }
}
