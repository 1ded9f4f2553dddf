//! `agrpo report`: writes runs as one HTML file and as charts. Reads the store and changes nothing in it. The contents
//! of a report are defined in `agrpo-view`.

use std::{fs, path::Path};

use agrpo_view::report::{self, Subject};
use agrpo_view::{history::RunHistory, plot, timeline};

use super::files::{try_writing, unwritable, write};
use super::prelude::{Exit, Failure, Session, output};
use crate::{args::ReportArgs, machine::VERSION};

pub(super) fn report(args: &ReportArgs, session: &Session) -> Result<Exit, Failure> {
    try_writing(&args.output)?;
    if let Some(folder) = &args.plots {
        fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    }
    // The run file with every default explicit.
    let file = |history: &RunHistory| toml::to_string(history.run().config()).unwrap_or_default();
    let mut subjects = session.block_on(async {
        let store = session.existing_store().await?;
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
    write(&args.output, &html)?;
    let size = output::size(html.len() as u64);
    output::talk(format!("wrote {} ({size})", args.output.display()));
    if let Some(folder) = &args.plots {
        write_charts(&subjects, folder)?;
    }
    Ok(Exit::Done)
}

fn write_charts(subjects: &[Subject], folder: &Path) -> Result<(), Failure> {
    let mut charts = vec![];
    for chart in report::charts(subjects) {
        charts.push((chart.name.to_owned(), plot::svg(&chart.figure)?));
    }
    for subject in subjects {
        let Some(svg) = timeline::svg(&subject.history)? else { continue };
        let name = match subjects {
            [_] => "timeline".to_owned(),
            _ => format!("timeline-{}", subject.history.run().id().short()),
        };
        charts.push((name, svg));
    }
    for (name, svg) in &charts {
        write(&folder.join(format!("{name}.svg")), svg)?;
        write(&folder.join(format!("{name}.png")), plot::png(svg)?)?;
    }
    let (count, folder) = (charts.len(), folder.display());
    output::talk(format!("wrote {count} charts into {folder}, each as SVG and as PNG"));
    Ok(())
}
