//! `agrpo compare`: variants of one run, over several seeds, side by side.
//!
//! Computes what the store lacks, run after run, as `agrpo run` would, and writes a table, its numbers
//! and curves into a folder. What a variant changes is in `file.rs`, what the runs left in
//! `results.rs`, the page in `page.rs`. Judges nothing: every variant is reported.

mod file;
mod page;
mod results;

use std::path::Path;
use std::time::Duration;

use agrpo_jobs::regular;

use self::file::{Comparison, Member};
use self::results::{Results, read};
use crate::cli::{CompareArgs, PATIENCE};
use crate::commands::computing::{STOPPING, compute};
use crate::commands::{
    block_on, check_run, create_store, name_of, plain, stop_signal, try_writing,
};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::place::Place;
use crate::settings::Settings;
use crate::tally::Tally;

/// Computes and writes the comparison.
pub(super) fn compare(args: &CompareArgs, settings: &Settings) -> Result<Exit, Failure> {
    let comparison = Comparison::read(&args.file)?;
    let name = &comparison.name;
    let [page, chart, numbers] =
        ["md", "svg", "json"].map(|ending| args.output.join(format!("{name}.{ending}")));
    if !args.output.is_dir() {
        let folder = args.output.display();
        return Err(Failure::usage(format!("--output {folder}: there is no such folder")));
    }
    for place in [&page, &chart, &numbers] {
        try_writing(place).map_err(|error| unwritable(place, &error))?;
    }
    for member in &comparison.members {
        let problems = member.run.config().evaluation.problems;
        check_run(&member.run, problems, settings, args.store.store.as_deref())
            .map_err(|failure| failure.at(name_of(&args.file)))?;
    }
    let place = Place::find(args.device.device, settings)?;
    place.enter(settings, comparison.numerics(), None)?;
    let results = block_on(async {
        let stop = stop_signal(|| output::talk(STOPPING))?;
        let store = create_store(settings, args.store.store.as_deref()).await?;
        let store = store.with_patience(Duration::from_secs(PATIENCE), stop.clone());
        let all = comparison.members.len();
        let mut results = Results::new(&comparison);
        for (n, member) in comparison.members.iter().enumerate() {
            output::talk(format!("{}/{all}  {member}: run {}", n + 1, member.run.id()));
            let stop = stop.clone();
            let (outcome, _) =
                compute(&store, &member.run, &place, (args.workers, false), stop, Tally::default())
                    .await;
            if !outcome?.done {
                let hint = "the same command goes on: finished stages are kept";
                let done = format!("stopped after {n} of {all} runs");
                return Err(Failure::new(Exit::Interrupted, done).hint(hint));
            }
            results.add(member, read(&store, &member.run).await?);
        }
        Ok(results)
    })?;
    // First of all the answer: it outlives a folder that went away.
    output::line(page::table(&results))?;
    write(&chart, &page::chart(&comparison, &results)?)?;
    write(&numbers, &page::numbers(&results)?)?;
    write(&page, &page::page(&comparison, &results))?;
    Ok(Exit::Done)
}

fn write(place: &Path, text: &str) -> Result<(), Failure> {
    regular::write(place, text.as_bytes()).map_err(|error| unwritable(place, &error))?;
    output::talk(format!("wrote {}", place.display()));
    Ok(())
}

fn unwritable(place: &Path, error: &std::io::Error) -> Failure {
    let (place, why) = (place.display(), plain(error));
    Failure::usage(format!("cannot write {place}: {why}; name another folder with --output"))
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, seed {}", self.variant, self.run.config().seed)
    }
}
