//! `agrpo gc`: deletes what no run needs any more.
//!
//! Prints what was deleted, by kind. What may be deleted is decided in the store.

use std::time::Duration;

use agrpo_fleet::gc::{self, GcOptions, GcReport, ObjectKind};

use crate::args::GcArgs;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::session::Session;

/// The shortest grace that is safe beside workers: much longer than storing one stage's results takes.
const SAFE: Duration = Duration::from_secs(3600);

/// Deletes, and reports.
pub(super) fn gc(args: &GcArgs, session: &Session) -> Result<Exit, Failure> {
    if args.grace < SAFE && !args.dry_run {
        output::talk("a grace period below 1h is safe only while no worker runs on this store");
    }
    let report = session.block_on(async {
        let store = session.existing_store().await?;
        let options = GcOptions { grace: args.grace, dry_run: args.dry_run };
        Ok(gc::gc(&store, options).await?)
    })?;
    if args.json.json {
        output::json(&report)?;
    } else {
        output::line(describe(&report))?;
    }
    Ok(Exit::Done)
}

fn describe(report: &GcReport) -> String {
    let verb = if report.dry_run { "would go" } else { "deleted" };
    let row = |first: &str, second: String| vec![first.to_owned(), second];
    let mut rows = vec![];
    for (kind, tally) in &report.swept {
        rows.push(row(name(*kind), format!("{verb}: {}", output::objects(*tally))));
    }
    if report.swept.is_empty() {
        rows.push(row("nothing", verb.to_owned()));
    }
    rows.push(row("too young", output::objects(report.young)));
    let runs = if report.runs == 1 { "run reaches" } else { "runs reach" };
    rows.push(row(
        "kept",
        format!("{}, which {} {runs}", output::objects(report.kept), report.runs),
    ));
    for odd in &report.odd {
        rows.push(row(
            "left alone",
            format!("{} is {}, expected a regular file", odd.name, odd.kind),
        ));
    }
    output::table(&rows)
}

fn name(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Manifests => "manifests",
        ObjectKind::Specs => "specs",
        ObjectKind::Blobs => "blobs",
        ObjectKind::Leftovers => "leftovers",
        ObjectKind::Aside => "put aside",
    }
}
