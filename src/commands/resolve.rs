//! Which run, stage or artifact a text on the command line names.
//!
//! Reads the store and changes nothing. A text that fits two of them is refused.

use agrpo_spec::{ArtifactDigest, RunId, StageDigest};
use agrpo_store::{JobsError, Store};

use crate::exit::{Exit, Failure};

/// Two digests never share this many digits by accident, so the first match is the only one.
const CERTAIN_DIGITS: usize = 12;

/// What a digest names.
pub(super) enum Named {
    Run(RunId),
    Stage(StageDigest),
    Artifact(ArtifactDigest),
}

/// The one thing that the text names.
pub(super) async fn find(store: &Store, text: &str) -> Result<Named, Failure> {
    let mut matches = vec![];
    let (mut reasons, mut exit) = (vec![], Exit::Usage);
    let mut sort = |found: Result<Named, JobsError>| {
        match found {
            Ok(named) => matches.push(named),
            Err(JobsError::Invalid(reason)) => reasons.push(reason),
            // A whole digest names nothing, or the store is damaged.
            Err(JobsError::Data(reason)) => {
                exit = Exit::Data;
                reasons.push(reason);
            }
            Err(error) => return Err(error),
        }
        Ok(text.len() >= CERTAIN_DIGITS && !matches.is_empty())
    };
    if !sort(store.resolve_run(text).await.map(Named::Run))?
        && !sort(store.resolve_stage(text).await.map(Named::Stage))?
    {
        sort(store.resolve_blob(text).await.map(Named::Artifact))?;
    }
    if matches.len() > 1 {
        let names = matches.iter().map(describe).collect::<Vec<_>>().join(" and ");
        return Err(Failure::usage(format!("`{text}` fits {names}; give more digits")));
    }
    matches.pop().ok_or_else(|| {
        let message = format!("`{text}` is no run, stage or artifact that can be shown");
        let failure = Failure::new(exit, message);
        reasons.into_iter().fold(failure, Failure::hint)
    })
}

fn describe(named: &Named) -> String {
    match named {
        Named::Run(run) => format!("the run {}", run.short()),
        Named::Stage(stage) => format!("the stage {}", stage.short()),
        Named::Artifact(artifact) => format!("the artifact {}", artifact.short()),
    }
}
