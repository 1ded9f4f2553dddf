//! `agrpo show`: a run, a stage or an artifact, for people and as JSON.
//!
//! Finds out by itself which of the three a digest names. Reads the store and changes nothing.

mod artifact;
mod play;
mod stage;
mod whole_run;

use agrpo_jobs::{JobsError, Store};
use agrpo_spec::{ArtifactDigest, RunId, StageDigest, WINDOW};

use crate::cli::ShowArgs;
use crate::commands::{block_on, lost, open_store};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::Settings;

/// So many digits are never shared by accident, so the first fit is the only one.
const CERTAIN_DIGITS: usize = 12;

/// What a digest names.
pub(super) enum Named {
    Run(RunId),
    Stage(StageDigest),
    Artifact(ArtifactDigest),
}

/// Shows one thing.
pub(super) fn show(args: &ShowArgs, settings: &Settings) -> Result<Exit, Failure> {
    block_on(async {
        let flag = args.store.store.as_deref();
        let store = open_store(settings, flag).await?;
        let shown = show_from(&store, args, settings).await;
        lost::explained(&store, flag, shown).await
    })
}

async fn show_from(store: &Store, args: &ShowArgs, settings: &Settings) -> Result<Exit, Failure> {
    let named = find(store, &args.hash).await?;
    if args.raw {
        let Named::Artifact(artifact) = named else {
            return Err(Failure::usage(format!(
                "{} is no artifact, so it has no raw bytes",
                args.hash
            ))
            .hint("without --raw it is shown; its outputs can be shown with --raw"));
        };
        let content = store.open_blob(artifact).await?;
        for range in content.ranges(WINDOW) {
            let lost = |error| Failure::new(Exit::Data, format!("cas/{artifact}: {error}"));
            output::bytes(&content.window(range).map_err(lost)?)?;
        }
        return Ok(Exit::Done);
    }
    if let Some(row) = args.sample {
        let Named::Stage(stage) = named else {
            return Err(Failure::usage(format!("--sample: {} is no rollout", args.hash))
                .hint("agrpo show RUN lists the stages of a run"));
        };
        let has_colour = !settings.no_color();
        play::show(store, stage, row, (args.json.json, args.play, has_colour)).await?;
        return Ok(Exit::Done);
    }
    match named {
        Named::Run(run) => whole_run::show(store, run, args.json.json).await,
        Named::Stage(stage) => stage::show(store, stage, args.json.json).await,
        Named::Artifact(artifact) => artifact::show(store, artifact, args.json.json).await,
    }?;
    Ok(Exit::Done)
}

/// The one thing that the text names.
pub(super) async fn find(store: &Store, text: &str) -> Result<Named, Failure> {
    let mut fitting = vec![];
    let (mut reasons, mut exit) = (vec![], Exit::Usage);
    let mut sort = |found: Result<Named, JobsError>| {
        match found {
            Ok(named) => fitting.push(named),
            Err(JobsError::Invalid(reason)) => reasons.push(reason),
            // A whole digest has nothing behind it, or the store is not what it should be.
            Err(JobsError::Data(reason)) => {
                exit = Exit::Data;
                reasons.push(reason);
            }
            Err(error) => return Err(error),
        }
        Ok(text.len() >= CERTAIN_DIGITS && !fitting.is_empty())
    };
    if !sort(store.resolve_run(text).await.map(Named::Run))?
        && !sort(store.resolve_stage(text).await.map(Named::Stage))?
    {
        sort(store.resolve_blob(text).await.map(Named::Artifact))?;
    }
    if fitting.len() > 1 {
        let names = fitting.iter().map(describe).collect::<Vec<_>>().join(" and ");
        return Err(Failure::usage(format!("`{text}` fits {names}; give more digits")));
    }
    fitting.pop().ok_or_else(|| {
        let told = format!("`{text}` is no run, stage or artifact that can be shown");
        let failure = Failure::new(exit, told);
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

/// Lines of a name and a value, the values in one column.
fn fields(rows: &[(&str, String)]) -> String {
    let rows = rows.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]);
    output::table(&rows.collect::<Vec<_>>())
}
