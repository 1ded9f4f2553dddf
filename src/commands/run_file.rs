//! A run file, from its text to a checked run whose files are in the store.
//!
//! Computes nothing. What the file names is fetched by `sources.rs`.

use agrpo_programs::Programs;
use agrpo_spec::{Base, Inputs, Run, RunConfig, Source};

use super::files::{name_of, read_text};
use super::sources;
use crate::args::RunFileArgs;
use crate::exit::Failure;
use crate::numerics;
use crate::session::Session;
use crate::settings::Settings;

/// A checked run, with another seed where one is given, and the text it came from, which a restart
/// hands over. The files that it names are in the store.
pub(super) fn read_run(asked: &RunFileArgs, session: &Session) -> Result<(Run, String), Failure> {
    let (named, text) = read_sources(asked, &session.settings)?;
    fetch_run(asked, (&named, text), session)
}

/// The run of a text, once the files that it names are in the store.
pub(super) fn fetch_run(
    asked: &RunFileArgs,
    (named, text): (&[Source], String),
    session: &Session,
) -> Result<(Run, String), Failure> {
    let text = match named {
        [] => text,
        named => session
            .block_on(sources::fetched(&text, named, session))
            .map_err(|failure| failure.at(name_of(&asked.file)))?,
    };
    let run = parse_run(&text, asked)?;
    // Before a restart it was checked already.
    if numerics::handed_over(&session.settings).is_none() {
        let problems = run.config().evaluation.problems;
        check_run(&run, problems, session)
            .map_err(|failure| sources::placed(failure, named).at(name_of(&asked.file)))?;
    }
    Ok((run, text))
}

/// The run file's text, and the files that it names.
pub(super) fn read_sources(
    asked: &RunFileArgs,
    settings: &Settings,
) -> Result<(Vec<Source>, String), Failure> {
    let text = match numerics::handed_over(settings) {
        Some(text) => return Ok((vec![], text.to_owned())),
        None => read_text(&asked.file).map_err(|failure| {
            failure.hint("jobs/runs/smoke.toml is a small run with every key explained")
        })?,
    };
    let named = sources::named(&text, &asked.file, &asked.sources);
    Ok((named.map_err(|failure| failure.at(name_of(&asked.file)))?, text))
}

/// The run that a text without addresses describes, with another seed or numerics class where one is
/// given.
pub(super) fn parse_run(text: &str, asked: &RunFileArgs) -> Result<Run, Failure> {
    let run = Run::parse(text).and_then(|run| {
        let config = run.config();
        let seed = asked.seed.unwrap_or(config.seed);
        let numerics = asked.numerics.unwrap_or(config.numerics);
        Run::resolve(RunConfig { seed, numerics, ..config.clone() })
    });
    run.map_err(|error| Failure::from(error).at(name_of(&asked.file)))
}

/// Refuses a run whose problems are too few or too long before anything is computed for it.
pub(super) fn check_run(run: &Run, problems: u32, session: &Session) -> Result<(), Failure> {
    let is_drawn = run.config().material().is_empty() && matches!(run.base(), Base::Scratch(..));
    let inputs = if is_drawn {
        Inputs::default()
    } else {
        let read = async { sources::material(run, &session.writable_store().await?).await };
        session.block_on(read)?
    };
    // The run file is wrong, or what it names is: nothing that was computed is.
    let programs = Programs::new(session.settings.path());
    agrpo_compute::check_run(run, problems, &inputs, &programs)
        .map_err(|error| Failure::usage(error.to_string()))
}
