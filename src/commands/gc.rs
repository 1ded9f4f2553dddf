//! `agrpo gc`: deletes what no run needs any more. What may be deleted is decided in `agrpo-fleet`.

use std::time::Duration;

use agrpo_fleet::gc::{self, GcOptions, GcReport};

use super::prelude::{Exit, Failure, Session, output};
use crate::args::GcArgs;

/// The shortest grace that is safe beside workers: much longer than storing one stage's results takes.
const SAFE: Duration = Duration::from_secs(3600);

pub(super) fn gc(args: &GcArgs, session: &Session) -> Result<Exit, Failure> {
    if args.grace < SAFE && !args.dry_run {
        output::talk("a grace period below 1h is safe only while no worker runs on this store");
    }
    let report = session.block_on(async {
        let store = session.existing_store().await?;
        let options = GcOptions { grace: args.grace, dry_run: args.dry_run };
        Ok(gc::gc(&store, options).await?)
    })?;
    output::answer(args.json.json, &report, || describe(&report))
}

fn describe(report: &GcReport) -> String {
    let verb = if report.dry_run { "would go" } else { "deleted" };
    let swept = report.swept.iter();
    let mut rows: Vec<_> = swept
        .map(|(kind, tally)| {
            (output::name_of(kind), format!("{verb}: {}", output::objects(*tally)))
        })
        .collect();
    if rows.is_empty() {
        rows.push(("nothing".to_owned(), verb.to_owned()));
    }
    rows.push(("too young".to_owned(), output::objects(report.young)));
    let reach = if report.runs == 1 { "run reaches" } else { "runs reach" };
    let kept = format!("{}, which {} {reach}", output::objects(report.kept), report.runs);
    rows.push(("kept".to_owned(), kept));
    rows.extend(report.odd.iter().map(|odd| {
        ("left alone".to_owned(), format!("{} is {}, expected a regular file", odd.name, odd.kind))
    }));
    output::fields(&rows)
}
