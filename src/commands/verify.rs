//! `agrpo verify`: every byte read and compared with its name.
//!
//! Lists what is missing or corrupt and says so with the exit code; repairs nothing.

use agrpo_jobs::verify::{self, Finding, VerifyReport};

use crate::cli::VerifyArgs;
use crate::commands::gc::told;
use crate::commands::{block_on, open_store};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::Settings;

/// Checks a run or the store.
pub(super) fn verify(args: &VerifyArgs, settings: &Settings) -> Result<Exit, Failure> {
    let report = block_on(async {
        let store = open_store(settings, args.store.store.as_deref()).await?;
        let run = match &args.run {
            Some(text) => Some(store.resolve_run(text).await?),
            None => None,
        };
        Ok(verify::verify(&store, run).await?)
    })?;
    if args.json.json {
        output::json(&report)?;
    } else {
        output::line(describe(&report, args.run.is_none()))?;
    }
    Ok(if report.is_clean() { Exit::Done } else { Exit::Data })
}

fn describe(report: &VerifyReport, is_whole: bool) -> String {
    let found = |verdict: &'static str| {
        move |finding: &Finding| {
            let run = finding.run.map(|run| format!(" of run {}", run.short())).unwrap_or_default();
            format!("{verdict}  {}  {}{run}", finding.object, finding.told)
        }
    };
    let mut lines: Vec<String> = report.missing.iter().map(found("missing")).collect();
    lines.extend(report.corrupt.iter().map(found("corrupt")));
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("sound", told(report.sound)),
        row("missing", report.missing.len().to_string()),
        row("corrupt", report.corrupt.len().to_string()),
        row("dropped", told(report.dropped)),
    ];
    if is_whole {
        rows.push(row("orphaned", told(report.orphaned)));
    }
    if report.without_checksum > 0 {
        rows.push(row(
            "unsealed",
            format!("{} records without a checksum", report.without_checksum),
        ));
    }
    rows.push(row("stages", format!("{} of {} runs", report.stages, report.runs)));
    lines.push(output::table(&rows));
    if !report.is_clean() {
        lines.push(String::new());
        lines.push("next:".to_owned());
        lines.push("  agrpo run FILE makes again what the rest of its run needs".to_owned());
        lines.push("  agrpo replay HASH --rewind makes again what one stage reads".to_owned());
    }
    lines.join("\n")
}
