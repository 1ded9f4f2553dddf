//! `agrpo verify`: reads every byte and compares it with its name. Lists what is missing or corrupt, and reports it in
//! the exit code. Repairs nothing.

use std::collections::BTreeSet;

use agrpo_fleet::verify::{self, Cure, Finding, VerifyReport};

use super::prelude::{Exit, Result, Session, output};
use super::{recovery::move_away, resolve};
use crate::args::VerifyArgs;

pub(super) fn verify(args: &VerifyArgs, session: &Session) -> Result<Exit> {
    let (report, url) = session.on_store(async |store| {
        let run = resolve::run(&store, args.run.as_deref()).await?;
        Ok((verify::verify(&store, run).await?, store.url().to_owned()))
    })?;
    output::answer(args.answer.json, &report, || {
        let next = next(&report, &url, &session.store_option()).join("\n");
        let next = if next.is_empty() { next } else { format!("\n\nnext:\n{next}") };
        describe(&report, args.run.is_none()) + &next
    })?;
    Ok(if report.is_clean() { Exit::Done } else { Exit::Data })
}

fn describe(report: &VerifyReport, is_whole: bool) -> String {
    let VerifyReport { missing, corrupt, incompatible, not_followed, .. } = report;
    let mut lines = vec![];
    for (verdict, findings) in [
        ("missing", missing),
        ("corrupt", corrupt),
        ("other version", incompatible),
        ("not followed", not_followed),
    ] {
        lines.extend(findings.iter().map(|Finding { run, object, detail, .. }| {
            let run = run.map(|run| format!("run {}: ", run.short())).unwrap_or_default();
            format!("{verdict}  {object}  {run}{detail}")
        }));
    }
    let mut rows = vec![
        ("sound", output::objects(report.sound)),
        ("missing", missing.len().to_string()),
        ("corrupt", corrupt.len().to_string()),
        ("dropped", output::objects(report.dropped)),
    ];
    if !incompatible.is_empty() {
        rows.push(("other version", incompatible.len().to_string()));
    }
    if is_whole {
        rows.push(("orphaned", output::objects(report.orphaned)));
    }
    if report.without_checksum > 0 {
        let records = output::count(report.without_checksum, "record");
        rows.push(("unsealed", format!("{records} without a checksum")));
    }
    rows.push(("stages", format!("{} of {}", report.stages, output::count(report.runs, "run"))));
    lines.push(output::fields(&rows));
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
