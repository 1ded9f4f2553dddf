//! `agrpo show`: shows a run, a stage or an artifact, for people and as JSON.
//!
//! A digest may name any of the three. Reads the store and changes nothing.

mod artifact;
mod play;
mod stage;
mod whole_run;

use agrpo_spec::WINDOW;
use agrpo_store::Store;

use crate::args::ShowArgs;
use crate::commands::recovery;
use crate::commands::resolve::{Named, find};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::session::Session;

/// Shows one thing.
pub(super) fn show(args: &ShowArgs, session: &Session) -> Result<Exit, Failure> {
    session.block_on(async {
        let store = session.existing_store().await?;
        let shown = show_from(&store, args, session).await;
        recovery::explained(&store, session, shown).await
    })
}

async fn show_from(store: &Store, args: &ShowArgs, session: &Session) -> Result<Exit, Failure> {
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
        let has_colour = !session.settings.no_color();
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
