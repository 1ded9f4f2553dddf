//! `agrpo gc`: deletes what no run needs any more.
//!
//! Prints what went by kind; what may go is decided in the store.

use std::time::Duration;

use agrpo_jobs::gc::{self, GcOptions, GcReport, ObjectKind, Tally};

use crate::cli::GcArgs;
use crate::commands::{block_on, open_store};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::Settings;

/// The least grace that is safe beside workers: far more than storing one stage's results takes.
const SAFE: Duration = Duration::from_secs(3600);

/// Sweeps the store.
pub(super) fn gc(args: &GcArgs, settings: &Settings) -> Result<Exit, Failure> {
    if args.grace < SAFE && !args.dry_run {
        output::talk("a grace period below 1h is safe only while no worker runs on this store");
    }
    let report = block_on(async {
        let store = open_store(settings, args.store.store.as_deref()).await?;
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

/// `3 objects, 1.2 kB`.
pub(super) fn told(tally: Tally) -> String {
    format!("{}, {}", count(tally.objects, "object"), output::size(tally.bytes))
}

/// `1 run`, `2 runs`.
pub(super) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn describe(report: &GcReport) -> String {
    let verb = if report.dry_run { "would go" } else { "deleted" };
    let row = |first: &str, second: String| vec![first.to_owned(), second];
    let mut rows = vec![];
    for (kind, tally) in &report.swept {
        rows.push(row(name(*kind), format!("{verb}: {}", told(*tally))));
    }
    if report.swept.is_empty() {
        rows.push(row("nothing", verb.to_owned()));
    }
    rows.push(row("too young", told(report.young)));
    let runs = if report.runs == 1 { "run reaches" } else { "runs reach" };
    rows.push(row("kept", format!("{}, which {} {runs}", told(report.kept), report.runs)));
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
