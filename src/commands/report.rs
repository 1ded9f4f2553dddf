//! `agrpo report`: writes runs as one HTML file and as charts. Reads the store and changes nothing in it. The contents
//! of a report are defined in `agrpo-view`.

use std::{fs, path::Path, path::PathBuf};

use agrpo_view::report::{self, Subject};
use agrpo_view::{history::RunHistory, plot, timeline};

use super::files::{PNG, REPORT, SVG, try_writing, unwritable, write};
use super::prelude::{Exit, Failure, Result, Session, output};
use crate::{args::ReportArgs, machine::VERSION};

pub(super) fn report(args: &ReportArgs, session: &Session) -> Result<Exit> {
    let to_stdout = args.output == Path::new("-");
    if !to_stdout {
        try_writing(&args.output, &REPORT)?;
    }
    if let Some(folder) = &args.plots {
        fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    }
    // The run file with every default explicit.
    let file = |history: &RunHistory| toml::to_string(history.run().config()).unwrap_or_default();
    let mut subjects = session.on_store(async |store| {
        let mut subjects: Vec<Subject> = vec![];
        for name in &args.runs {
            let run = store.records.resolve_run(name).await?;
            if subjects.iter().any(|subject| subject.history.run().id() == run) {
                return Err(Failure::usage(format!("the run {} is named twice", run.short())));
            }
            subjects.push(Subject::read(&store, run, &file).await?);
        }
        Ok(subjects)
    })?;
    report::distinguish(&mut subjects);
    let html = report::report(&subjects, &format!("agrpo {VERSION}"))?;
    let charts = match &args.plots {
        Some(folder) => Some((charts(&subjects, folder)?, folder.display())),
        None => None,
    };
    if to_stdout {
        output::bytes(html.as_bytes())?;
    } else {
        write(&args.output, &REPORT, &html)?;
        let size = output::size(html.len() as u64);
        output::talk(format!("wrote {} ({size})", args.output.display()));
    }
    if let Some((charts, folder)) = charts {
        for (place, svg) in &charts {
            write(&place.with_extension("svg"), &SVG, svg)?;
            write(&place.with_extension("png"), &PNG, plot::png(svg)?)?;
        }
        let count = charts.len();
        output::talk(format!("wrote {count} charts into {folder}, each as SVG and as PNG"));
    }
    Ok(Exit::Done)
}

/// The charts as SVG and their places without an extension, none of which holds another program's file.
fn charts(subjects: &[Subject], folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut charts = vec![];
    for chart in report::charts(subjects) {
        charts.push((folder.join(chart.name), plot::svg(&chart.figure)?));
    }
    for subject in subjects {
        let Some(svg) = timeline::svg(&subject.history)? else { continue };
        let name = match subjects {
            [_] => "timeline".to_owned(),
            _ => format!("timeline-{}", subject.history.run().id().short()),
        };
        charts.push((folder.join(name), svg));
    }
    for (place, _) in &charts {
        try_writing(&place.with_extension("svg"), &SVG)?;
        try_writing(&place.with_extension("png"), &PNG)?;
    }
    Ok(charts)
}
