//! `agrpo verify`: reads every byte and compares it with its name.
//!
//! Lists what is missing or corrupt, and reports it in the exit code. Repairs nothing.

use std::collections::BTreeSet;

use agrpo_fleet::verify::{self, Cure, Finding, VerifyReport};

use crate::args::VerifyArgs;
use crate::commands::recovery::move_away;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::session::Session;

/// Checks a run or the store.
pub(super) fn verify(args: &VerifyArgs, session: &Session) -> Result<Exit, Failure> {
    let (report, url) = session.block_on(async {
        let store = session.existing_store().await?;
        let run = match &args.run {
            Some(text) => Some(store.resolve_run(text).await?),
            None => None,
        };
        Ok((verify::verify(&store, run).await?, store.url().to_owned()))
    })?;
    if args.json.json {
        output::json(&report)?;
    } else {
        output::line(describe(&report, args.run.is_none()))?;
        let next = next(&report, &url, &session.store_option());
        if !next.is_empty() {
            output::line(format!("\nnext:\n{}", next.join("\n")))?;
        }
    }
    Ok(if report.is_clean() { Exit::Done } else { Exit::Data })
}

fn describe(report: &VerifyReport, is_whole: bool) -> String {
    let found = |verdict: &'static str| {
        move |finding: &Finding| {
            let run = finding.run.map(|run| format!("run {}: ", run.short())).unwrap_or_default();
            format!("{verdict}  {}  {run}{}", finding.object, finding.detail)
        }
    };
    let mut lines: Vec<String> = report.missing.iter().map(found("missing")).collect();
    lines.extend(report.corrupt.iter().map(found("corrupt")));
    lines.extend(report.incompatible.iter().map(found("other version")));
    lines.extend(report.not_followed.iter().map(found("not followed")));
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("sound", output::objects(report.sound)),
        row("missing", report.missing.len().to_string()),
        row("corrupt", report.corrupt.len().to_string()),
        row("dropped", output::objects(report.dropped)),
    ];
    if !report.incompatible.is_empty() {
        rows.push(row("other version", report.incompatible.len().to_string()));
    }
    if is_whole {
        rows.push(row("orphaned", output::objects(report.orphaned)));
    }
    if report.without_checksum > 0 {
        rows.push(row(
            "unsealed",
            output::count(report.without_checksum, "record") + " without a checksum",
        ));
    }
    rows.push(row("stages", format!("{} of {}", report.stages, output::count(report.runs, "run"))));
    lines.push(output::table(&rows));
    lines.join("\n")
}

/// What repairs each kind of finding, one line each.
fn next(report: &VerifyReport, url: &str, store: &str) -> Vec<String> {
    let damaged = || report.missing.iter().chain(&report.corrupt);
    let cures: BTreeSet<Cure> = damaged().map(|finding| finding.cure).collect();
    let line = |cure: &Cure| match cure {
        Cure::Repair => format!(
            "  agrpo run FILE --repair{store}, with the run's file, computes again what is missing or corrupt"
        ),
        Cure::Import => format!(
            "  agrpo run FILE{store} fetches again what the run's file names, and agrpo import FOLDER{store} \
             stores a model again"
        ),
        Cure::MoveAway => format!("  {}", move_away(url)),
    };
    let mut lines: Vec<String> = cures.iter().map(line).collect();
    let lacks_record = damaged().filter(|finding| finding.object.ends_with("/run.json"));
    for run in lacks_record.filter_map(|finding| finding.run) {
        let run = run.short();
        lines.push(format!(
            "  agrpo forget {run} --force{store}, if its file is lost, gives that run up"
        ));
    }
    if !report.incompatible.is_empty() {
        lines.push("  use the newest version of agrpo that works on this store".to_owned());
    }
    lines
}
