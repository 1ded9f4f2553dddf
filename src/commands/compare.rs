//! `agrpo compare`: variants of one run, over several seeds, side by side. Computes what the store lacks, run after
//! run, as `agrpo run` would, and writes a table, its numbers and curves into a folder. Variants, results and pages
//! are those of `agrpo_lab::compare`.

use std::path::Path;

use agrpo_lab::compare::{self, Base, Comparison, ComparisonFile, Results, Trace};
use agrpo_view::history::RunHistory;

use super::computing::{STOPPING, compute, find_device, retrying};
use super::files::{NUMBERS, PAGE, SVG, name_of, read_text, try_writing, write_and_report};
use super::prelude::{ComputeDevice, Exit, Failure, Result, Session, output};
use super::run_file::check_run;
use crate::args::{CompareArgs, RETRY_SECONDS};
use crate::{run_summary::RunSummary, signals::stop_signal};

pub(super) fn compare(args: &CompareArgs, session: &Session) -> Result<Exit> {
    let comparison = read(&args.file)?;
    let name = &comparison.name;
    let [page, chart, numbers] =
        ["md", "svg", "json"].map(|ending| args.output.join(format!("{name}.{ending}")));
    if !args.output.is_dir() {
        let folder = args.output.display();
        return Err(Failure::usage(format!("--output {folder}: there is no such folder")));
    }
    for (place, kind) in [(&page, &PAGE), (&chart, &SVG), (&numbers, &NUMBERS)] {
        try_writing(place, kind)?;
    }
    for member in &comparison.members {
        let problems = member.run.config().evaluation.problems;
        check_run(&member.run, problems, session)
            .map_err(|failure| failure.at(name_of(&args.file)))?;
    }
    let device = find_device(&args.compute, &session.settings)?;
    device.enter(&session.settings, comparison.numerics(), None)?;
    let results = session.block_on(computed(&comparison, args, &device, session))?;
    // The answer comes first: it is printed even if the folder went away meanwhile.
    output::line(compare::table(&results))?;
    write_and_report(&chart, &SVG, &compare::chart(&comparison, &results)?)?;
    write_and_report(&numbers, &NUMBERS, &(output::json_text(&results)? + "\n"))?;
    write_and_report(&page, &PAGE, &compare::page(&comparison, &results))?;
    Ok(Exit::Done)
}

/// Reads the file and the run file that it names.
fn read(place: &Path) -> Result<Comparison> {
    if place == Path::new("-") {
        return Err(Failure::usage(
            "-: a comparison names a run file beside it, expected a file, not standard input",
        ));
    }
    let text = read_text(place)?;
    let at = |failure: Failure| failure.at(name_of(place));
    let file = ComparisonFile::parse(&text).map_err(|error| at(Failure::refused(error)))?;
    let base_place = place.parent().unwrap_or(Path::new("")).join(file.run());
    let base_text = read_text(&base_place).map_err(|failure| at(failure.at("run")))?;
    let base = Base::parse(&base_text)
        .map_err(|error| Failure::refused(error).at(name_of(&base_place)))?;
    Comparison::new(place, file, &base).map_err(|error| at(Failure::refused(error)))
}

async fn computed(
    comparison: &Comparison,
    args: &CompareArgs,
    device: &ComputeDevice,
    session: &Session,
) -> Result<Results> {
    let stop = stop_signal(|| output::talk(STOPPING))?;
    let store = retrying(&session.writable_store().await?, RETRY_SECONDS, &stop);
    let all = comparison.members.len();
    let mut traces = vec![];
    for (n, member) in comparison.members.iter().enumerate() {
        output::talk(format!("{}/{all}  {member}: run {}", n + 1, member.run.id()));
        let (how, summary) = ((args.compute.workers, false), RunSummary::of(&member.run));
        let (outcome, _) = compute(&store, &member.run, device, how, stop.clone(), summary).await;
        if !outcome?.done {
            let hint = "the same command goes on: finished stages are kept";
            let done = format!("stopped after {n} of {}", output::count(all as u64, "run"));
            return Err(Failure::new(Exit::Interrupted, done).hint(hint));
        }
        let history = RunHistory::read(&store, member.run.id()).await?;
        if let Some(record) = history.unreadable_stages().next() {
            return Err(Failure::data(record.to_string())
                .hint("agrpo run FILE, from the run's file, computes it again"));
        }
        traces.push(Trace::of(&history));
    }
    Ok(Results::new(comparison, traces))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_file_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("c.toml");
        let text = "run = \"nowhere.toml\"\nseeds = [1]\n[[variant]]\nname = \"a\"\n";
        std::fs::write(&place, text).unwrap();
        let text = read(&place).map(|_| ()).unwrap_err().message.to_owned();
        let (_, text) = text.split_once("c.toml: ").unwrap();
        assert!(text.starts_with("run: cannot read ") && text.contains("nowhere.toml"), "{text}");
    }
}
