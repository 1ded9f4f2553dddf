//! `agrpo compare`: variants of one run, over several seeds, side by side.
//!
//! Computes what the store lacks, run after run, as `agrpo run` would, and writes a table, its numbers
//! and curves into a folder. Variants, results and pages are those of `agrpo_lab::compare`.

use std::path::Path;
use std::time::Duration;

use agrpo_lab::compare::{self, Base, Comparison, ComparisonFile, Invalid, Results, Trace};
use agrpo_spec::{Run, StageKind};
use agrpo_store::{Store, regular};

use crate::args::{CompareArgs, PATIENCE};
use crate::commands::computing::{STOPPING, compute};
use crate::commands::files::{name_of, plain, read_text, try_writing};
use crate::commands::policies::{done_stages, recorded};
use crate::commands::run_file::check_run;
use crate::device::ComputeDevice;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::run_summary::RunSummary;
use crate::session::Session;
use crate::signals::stop_signal;

/// Computes and writes the comparison.
pub(super) fn compare(args: &CompareArgs, session: &Session) -> Result<Exit, Failure> {
    let comparison = read(&args.file)?;
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
        check_run(&member.run, problems, session)
            .map_err(|failure| failure.at(name_of(&args.file)))?;
    }
    let device = ComputeDevice::find(args.device.device, &session.settings)?;
    device.enter(&session.settings, comparison.numerics(), None)?;
    let results = session.block_on(computed(&comparison, args, &device, session))?;
    // The answer comes first: it is printed even if the folder went away meanwhile.
    output::line(compare::table(&results))?;
    write(&chart, &compare::chart(&comparison, &results)?)?;
    write(&numbers, &(output::json_text(&results)? + "\n"))?;
    write(&page, &compare::page(&comparison, &results))?;
    Ok(Exit::Done)
}

/// Reads the file and the run file that it names.
fn read(place: &Path) -> Result<Comparison, Failure> {
    if place == Path::new("-") {
        return Err(Failure::usage(
            "-: a comparison names a run file beside it, expected a file, not standard input",
        ));
    }
    let text = read_text(place)?;
    let at = |failure: Failure| failure.at(name_of(place));
    let refused = |error: Invalid| Failure::usage(error.to_string());
    let file = ComparisonFile::parse(&text).map_err(|error| at(refused(error)))?;
    let base_place = place.parent().unwrap_or(Path::new("")).join(file.run());
    let base_text = read_text(&base_place).map_err(|failure| at(failure.at("run")))?;
    let base = Base::parse(&base_text).map_err(|error| refused(error).at(name_of(&base_place)))?;
    Comparison::new(place, file, &base).map_err(|error| at(refused(error)))
}

/// Computes every member, and reads its results.
async fn computed(
    comparison: &Comparison,
    args: &CompareArgs,
    device: &ComputeDevice,
    session: &Session,
) -> Result<Results, Failure> {
    let stop = stop_signal(|| output::talk(STOPPING))?;
    let store = session.writable_store().await?;
    let store = store.with_retry_policy(Duration::from_secs(PATIENCE), stop.clone());
    let all = comparison.members.len();
    let mut results = Results::new(comparison);
    for (n, member) in comparison.members.iter().enumerate() {
        output::talk(format!("{}/{all}  {member}: run {}", n + 1, member.run.id()));
        let workers = (args.workers, false);
        let (outcome, _) =
            compute(&store, &member.run, device, workers, stop.clone(), RunSummary::default())
                .await;
        if !outcome?.done {
            let hint = "the same command goes on: finished stages are kept";
            let done = format!("stopped after {n} of {all} runs");
            return Err(Failure::new(Exit::Interrupted, done).hint(hint));
        }
        results.add(member, trace(&store, &member.run).await?);
    }
    Ok(results)
}

/// Reads a finished run's trace.
async fn trace(store: &Store, run: &Run) -> Result<Trace, Failure> {
    let (index, _) = done_stages(store, run).await?;
    let mut trace = Trace::new(run);
    for (key, stage) in index.into_iter().filter(|(key, _)| key.kind != StageKind::Sft) {
        trace.add(key, &recorded(store, key, stage).await?);
    }
    Ok(trace)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_file_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("c.toml");
        let text = "run = \"nowhere.toml\"\nseeds = [1]\n[[variant]]\nname = \"a\"\n";
        std::fs::write(&place, text).unwrap();
        let text = read(&place).map(|_| ()).unwrap_err().message().to_owned();
        let (_, text) = text.split_once("c.toml: ").unwrap();
        assert!(text.starts_with("run: cannot read ") && text.contains("nowhere.toml"), "{text}");
        let standard_input = read(Path::new("-")).map(|_| ()).unwrap_err();
        insta::assert_snapshot!(standard_input.message(), @"-: a comparison names a run file beside it, expected a file, not standard input");
    }
}
