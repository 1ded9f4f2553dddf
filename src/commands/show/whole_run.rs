//! Shows a run: its configuration with every default explicit, and its stages.
//!
//! Lists the newest stages only; `--json` lists all of them.

use std::collections::BTreeMap;

use agrpo_spec::{Plan, Retention, RunConfig, RunId, StageDigest, StageKey};
use agrpo_store::{Failure as StageFailure, Store, Unreadable};
use serde::Serialize;

use crate::commands::policies::done_stages;
use crate::exit::{Exit, Failure};
use crate::output;

/// Stages that people are shown.
const NEWEST: usize = 12;

/// What `--json` prints.
#[derive(Serialize)]
struct Answer<'a> {
    run: RunId,
    config: &'a RunConfig,
    /// The retention that the newest `run` or `enqueue` set.
    retention: Retention,
    stages: BTreeMap<StageKey, StageDigest>,
    failures: Vec<StageFailure>,
    /// Records of it that cannot be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable_records: Vec<Unreadable>,
}

pub(super) async fn show(store: &Store, id: RunId, json: bool) -> Result<(), Failure> {
    let run = store.run(id).await?;
    let (stages, mut unreadable) = done_stages(store, &run).await?;
    let (failures, damaged) = store.readable_failures(id).await?;
    unreadable.extend(damaged);
    let (retention, unkept) = store.readable_retention(id).await?;
    unreadable.extend(unkept);
    if json {
        return output::json(&Answer {
            run: id,
            config: run.config(),
            retention,
            stages,
            failures,
            unreadable_records: unreadable,
        });
    }
    let unwritten = |error: toml::ser::Error| {
        Failure::new(Exit::Unexpected, format!("the run cannot be written as TOML: {error}"))
    };
    let mut config = toml::to_string(run.config()).map_err(unwritten)?;
    if !retention.keeps_all() {
        // No part of the run's identity; shown as it is written in a run file.
        config.push_str("\n[retention]\n");
        config.push_str(&toml::to_string(&retention).map_err(unwritten)?);
    }
    let more = if stages.len() > NEWEST { "; the newest (all with --json):" } else { "" };
    let mut lines = vec![
        format!("# run {id}\n\n{config}"),
        format!("# {} of {} stages are done{more}", stages.len(), Plan::total_stages(&run)),
    ];
    let newest = stages.iter().skip(stages.len().saturating_sub(NEWEST));
    lines.extend(newest.map(|(key, stage)| format!("#   {:<18}  {stage}", key.to_string())));
    lines.extend(failures.iter().map(|failure| {
        let StageFailure { key, stage, error, attempts, .. } = failure;
        format!("# failed after {attempts} attempts: {key}  {stage}\n#   {error}")
    }));
    lines.extend(unreadable.iter().map(|record| format!("# cannot be read: {record}")));
    output::line(lines.join("\n"))
}
