//! `agrpo status --workers`: the workers of a fleet, their machines and their stages, as they report them.
//!
//! Read from Redis, where the entry of a silent worker expires. Shows no runs.

use std::time::Duration;

use agrpo_fleet::WorkerInfo;
use agrpo_spec::one_line;
use serde::Serialize;

use crate::args::StatusArgs;
use crate::exit::{Exit, Failure};
use crate::machine;
use crate::output;
use crate::session::Session;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Answer {
    workers: Vec<WorkerInfo>,
}

/// Lists workers.
pub(super) fn list(args: &StatusArgs, session: &Session) -> Result<Exit, Failure> {
    let (place, workers) = session.block_on(async {
        let fleet = session.fleet().await?;
        Ok((fleet.place().to_owned(), agrpo_fleet::workers(&fleet).await?))
    })?;
    if args.json.json {
        output::json(&Answer { workers })?;
    } else if workers.is_empty() {
        output::talk(format!("no worker at Redis {place}: agrpo worker starts one"));
    } else {
        output::line(table(&workers, machine::clock()()))?;
    }
    Ok(Exit::Done)
}

fn table(workers: &[WorkerInfo], now: u64) -> String {
    let head = ["worker", "device", "class", "up", "seen", "done", "run", "stage", "since"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let span = |ms: u64| output::short_duration(Duration::from_millis(ms));
    rows.extend(workers.iter().map(|worker| {
        let mut row = vec![
            // Any client of Redis can write these texts.
            one_line(&worker.name),
            one_line(&worker.device),
            worker.class.to_string(),
            span(now.saturating_sub(worker.since_unix_ms)),
            format!("{} ago", span(worker.seen_ms_ago)),
            worker.stages_done.to_string(),
        ];
        match &worker.in_hand {
            Some(stage) => row.extend([
                stage.run.short(),
                stage.key.to_string(),
                span(now.saturating_sub(stage.since_unix_ms)),
            ]),
            None => row.extend(["-", "-", "-"].map(str::to_owned)),
        }
        row
    }));
    output::table(&rows)
}
