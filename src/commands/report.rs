//! `agrpo report`: writes runs as one HTML file and as charts.
//!
//! Reads the store and changes nothing in it. The contents of a report are defined in `agrpo-view`.

use std::fs;
use std::path::Path;

use agrpo_store::regular;
use agrpo_view::report::{self, Subject};
use agrpo_view::{history::RunHistory, plot, png, timeline};

use crate::args::ReportArgs;
use crate::commands::files::{plain, try_writing};
use crate::exit::{Exit, Failure};
use crate::machine::VERSION;
use crate::output;
use crate::session::Session;

/// Writes the report, and with --plots the charts.
pub(super) fn report(args: &ReportArgs, session: &Session) -> Result<Exit, Failure> {
    try_writing(&args.output).map_err(|error| unwritable(&args.output, &error))?;
    if let Some(folder) = &args.plots {
        fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    }
    let mut subjects = session.block_on(async {
        let store = session.existing_store().await?;
        let mut subjects: Vec<Subject> = vec![];
        for name in &args.runs {
            let run = store.resolve_run(name).await?;
            if subjects.iter().any(|subject| subject.history().run().id() == run) {
                return Err(Failure::usage(format!("the run {} is named twice", run.short())));
            }
            subjects.push(Subject::read(&store, run, run_file).await?);
        }
        Ok(subjects)
    })?;
    report::tell_apart(&mut subjects);
    let html = report::report(&subjects, &format!("agrpo {VERSION}"))?;
    write(&args.output, html.as_bytes())?;
    let size = output::size(html.len() as u64);
    output::talk(format!("wrote {} ({size})", args.output.display()));
    if let Some(folder) = &args.plots {
        write_charts(&subjects, folder)?;
    }
    Ok(Exit::Done)
}

/// The run file with every default explicit.
fn run_file(story: &RunHistory) -> String {
    toml::to_string(story.run().config()).unwrap_or_default()
}

fn write_charts(subjects: &[Subject], folder: &Path) -> Result<(), Failure> {
    let mut charts = vec![];
    for chart in report::charts(subjects) {
        charts.push((chart.name.to_owned(), plot::svg(&chart.figure)?));
    }
    for subject in subjects {
        let Some(svg) = timeline::svg(subject.history())? else { continue };
        let name = match subjects {
            [_] => "timeline".to_owned(),
            _ => format!("timeline-{}", subject.history().run().id().short()),
        };
        charts.push((name, svg));
    }
    for (name, svg) in &charts {
        write(&folder.join(format!("{name}.svg")), svg.as_bytes())?;
        write(&folder.join(format!("{name}.png")), &png::png(svg)?)?;
    }
    let (count, folder) = (charts.len(), folder.display());
    output::talk(format!("wrote {count} charts into {folder}, each as SVG and as PNG"));
    Ok(())
}

fn write(place: &Path, bytes: &[u8]) -> Result<(), Failure> {
    regular::write(place, bytes).map_err(|error| unwritable(place, &error))
}

fn unwritable(place: &Path, error: &std::io::Error) -> Failure {
    let (place, why) = (place.display(), plain(error));
    Failure::usage(format!("{place}: cannot write there: {why}; name another place"))
}
