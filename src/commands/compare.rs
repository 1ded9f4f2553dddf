//! `agrpo compare`: variants of one run, over several seeds, side by side.
//!
//! Computes what the store lacks, run after run, as `agrpo run` would, and writes a table, its numbers
//! and curves into a folder. What a variant changes is in `file.rs`, what the runs left in
//! `results.rs`, the page in `page.rs`. Judges nothing: every variant is reported.

mod file;
mod page;
mod results;

use std::path::Path;
use std::sync::Arc;

use agrpo_jobs::{Store, embedded};
use agrpo_spec::Run;
use tokio::sync::{mpsc, watch};

use self::file::{Comparison, Member};
use self::results::{Results, read};
use crate::cli::CompareArgs;
use crate::commands::{block_on, create_store, plain, stop_signal};
use crate::exit::{Exit, Failure};
use crate::machine;
use crate::numerics;
use crate::output;
use crate::progress::Progress;
use crate::settings::Settings;
use crate::tally::Tally;

const STOPPING: &str = "finishing the stages in hand; run the same command again to go on";

/// Computes and writes the comparison.
pub(super) fn compare(args: &CompareArgs, settings: &Settings) -> Result<Exit, Failure> {
    let comparison = Comparison::read(&args.file)?;
    if !args.output.is_dir() {
        let folder = args.output.display();
        return Err(Failure::usage(format!("--output {folder}: there is no such folder")));
    }
    numerics::enter(settings, comparison.numerics(), None)?;
    let workers = args.workers.map_or_else(machine::cores, usize::from);
    let results = block_on(async {
        let store = create_store(settings, args.store.store.as_deref()).await?;
        let stop = stop_signal(|| output::talk(STOPPING))?;
        let all = comparison.members.len();
        let mut results = Results::new(&comparison);
        for (n, member) in comparison.members.iter().enumerate() {
            output::talk(format!("{}/{all}  {member}: run {}", n + 1, member.run.id()));
            if !finish(&store, &member.run, workers, &stop).await? {
                let hint = "the same command goes on: finished stages are kept";
                let done = format!("stopped after {n} of {all} runs");
                return Err(Failure::new(Exit::Interrupted, done).hint(hint));
            }
            results.add(member, read(&store, &member.run).await?);
        }
        Ok(results)
    })?;
    let name = &comparison.name;
    let command =
        format!("agrpo compare {} --output {}", args.file.display(), args.output.display());
    write(&args.output, &format!("{name}.svg"), &page::chart(&comparison, &results)?)?;
    write(&args.output, &format!("{name}.json"), &page::numbers(&results)?)?;
    write(&args.output, &format!("{name}.md"), &page::page(&comparison, &results, &command))?;
    output::line(page::table(&results))?;
    Ok(Exit::Done)
}

/// Computes what a run lacks; false if it was stopped before its end.
async fn finish(
    store: &Store,
    run: &Run,
    workers: usize,
    stop: &watch::Receiver<bool>,
) -> Result<bool, Failure> {
    let (events, mut happened) = mpsc::unbounded_channel();
    let execute = Arc::new(agrpo_stages::execute);
    let (environment, clock) = (machine::environment(), machine::clock());
    let stop = stop.clone();
    let work =
        embedded::run(store, run.clone(), execute, workers, environment, clock, events, stop);
    let mut progress = Progress::new(run, Tally::default());
    let show = async {
        while let Some(event) = happened.recv().await {
            progress.handle(&event);
        }
    };
    let (outcome, ()) = tokio::join!(work, show);
    progress.finish();
    Ok(outcome?.done)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let place = folder.join(name);
    std::fs::write(&place, text).map_err(|error| {
        Failure::usage(format!("cannot write {}: {}", place.display(), plain(&error)))
    })?;
    output::talk(format!("wrote {}", place.display()));
    Ok(())
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, seed {}", self.variant, self.run.config().seed)
    }
}
