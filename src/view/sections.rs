//! The sections of a page about one run. Each is a function of its history, whichever page contains it.

use std::collections::BTreeMap;

use agrpo_spec::{Evaluation, Plan, StageKind};
use agrpo_store::{Failure, Hold};
use maud::{Markup, PreEscaped, html};

use crate::ViewError;
use crate::history::RunHistory;
use crate::lineage::{Link, lineage};
use crate::page::{duration, number, percent};
use crate::statistics::{Interval, pass_at};
use crate::timeline;

/// Records that cannot be read and are named, at most.
const MOST_LOST: usize = 5;

/// What a run is doing, in a word.
pub fn state(history: &RunHistory) -> &'static str {
    let total = Plan::total_stages(history.run());
    let has_lost = |part: &str| history.unreadable().any(|record| record.object.contains(part));
    match history.held().map(|control| control.state) {
        _ if history.places() as u64 >= total => "done",
        _ if has_lost("/control.json") => "unreadable",
        Some(Hold::Cancelled) => "cancelled",
        _ if !history.failures().is_empty() || has_lost("/failures/") => "failed",
        Some(Hold::Paused) => "paused",
        None => "running",
    }
}

/// How far a run is, its accuracy and its time.
pub fn summary(history: &RunHistory) -> Markup {
    let config = history.run().config();
    let total = Plan::total_stages(history.run());
    let (done, lost) = (history.stages().len(), history.unreadable().count());
    let compute: f64 = history.stages().values().map(|done| done.took_ms() / 1e3).sum();
    html! {
        ul.tiles {
            li { span.faint { "state" } b { (state(history)) } }
            li { span.faint { "iteration" } b { (history.iteration()) " of " (config.training.iterations) } }
            li { span.faint { "stages" } b { (done) " of " (total) } }
            @if let Some((name, evaluation)) = newest_evaluation(history) {
                li { span.faint { "accuracy, " (name) } b { (share(evaluation)) } }
            }
            @if let Some(base) = history.evaluations().get(&0) {
                li { span.faint { "accuracy, base" } b { (share(base)) } }
            }
            li { span.faint { "time of all stages" } b { (duration(compute)) } }
            li { span.faint { "from first to last" } b { (duration(wall_s(history))) } }
            li { span.faint { "workers" } b { (history.workers().len()) } }
            @if retries(history) > 0 {
                li { span.faint { "stages begun more than once" } b { (retries(history)) } }
            }
            @if !history.rewound().is_empty() {
                li { span.faint { "results made again" } b { (history.rewound().len()) } }
            }
            @if lost > 0 {
                li { span.faint { "records that cannot be read" } b.bad { (lost) } }
            }
        }
        @for record in history.unreadable().take(MOST_LOST) { p.bad { (record) } }
        @if lost > MOST_LOST {
            p.bad { "and " (lost - MOST_LOST) " more: " code { "agrpo verify " (history.run().id().short()) } " lists them" }
        }
    }
}

/// Stages that were not finished by the first worker that began them.
fn retries(history: &RunHistory) -> usize {
    history.stages().values().filter(|done| done.attempt > 1).count()
}

fn newest_evaluation(history: &RunHistory) -> Option<(String, &Evaluation)> {
    let (iteration, evaluation) = history.evaluations().last_key_value()?;
    (*iteration > 0).then(|| (format!("iteration {iteration}"), evaluation))
}

/// Accuracy at the most steps, with its interval.
fn share(evaluation: &Evaluation) -> String {
    let Some(grades) = evaluation.results.first() else { return "–".to_owned() };
    let interval = pass_at(&grades.solved_by, 1).map(|estimate| estimate.interval);
    let interval = interval.map_or_else(String::new, |Interval { low, high }| {
        format!(" ({:.0}–{:.0})", low * 100.0, high * 100.0)
    });
    format!("{}{interval}", percent(grades.accuracy))
}

/// Seconds from the beginning of the first stage to the end of the last.
#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact in f64")]
fn wall_s(history: &RunHistory) -> f64 {
    let begun = history.stages().values().map(|done| done.started_unix_ms as f64);
    let ended = history.stages().values().map(|done| done.started_unix_ms as f64 + done.took_ms());
    let both = begun.min_by(f64::total_cmp).zip(ended.max_by(f64::total_cmp));
    both.map_or(0.0, |(begun, ended)| (ended - begun) / 1e3)
}

/// What was run, and what to type to run and to check it again. `file` is the run file's text.
pub fn again(history: &RunHistory, file: &str) -> Markup {
    let id = history.run().id();
    let name = &history.run().config().name;
    html! {
        pre { code {
            "agrpo run " (if name.starts_with('-') { "./" } else { "" }) (name) ".toml      # the file below; the same bytes wherever it runs\n"
            "agrpo replay --run " (id.short()) "      # every stage of this run again, compared byte for byte\n"
            "agrpo status " (id.short())
        } }
        details { summary { "the run file, every default explicit" } pre { code { (file) } } }
    }
}

/// The failures that stop a run.
pub fn failures(history: &RunHistory) -> Markup {
    html! { @for failure in history.failures() { (self::failure(history, failure)) } }
}

/// One failure record.
pub fn failure(history: &RunHistory, failure: &Failure) -> Markup {
    let made = &failure.environment;
    html! {
        div.failure id=(format!("failure-{}", failure.stage.short())) {
            h3 { (failure.key) " failed" }
            p.text { (failure.error) }
            p.faint {
                "after " (failure.attempts) " attempt" @if failure.attempts != 1 { "s" }
                ", last by " (failure.worker) " on " (made.host) ", " (made.cpu) "; stage "
                span.hash { (failure.stage) }
            }
            @if !failure.log.is_empty() {
                details { summary { "its last log lines" } pre { (failure.log.join("\n")) } }
            }
            pre { code { "agrpo retry " (history.run().id().short()) "      # once the cause is gone" } }
        }
    }
}

/// Time by kind of stage and phase.
pub fn kinds(history: &RunHistory) -> Markup {
    let mut kinds: BTreeMap<StageKind, (u32, [f64; 3])> = BTreeMap::new();
    for (key, done) in history.stages() {
        let (count, phases) = kinds.entry(key.kind).or_default();
        *count += 1;
        let spent = [done.phases.fetch_ms, done.phases.compute_ms, done.phases.store_ms];
        phases.iter_mut().zip(spent).for_each(|(sum, ms)| *sum += ms / 1e3);
    }
    html! {
        div.wide { table {
            thead { tr {
                th { "stage" } th.number { "number" } th.number { "computing" } th.number { "reading" }
                th.number { "writing" } th.number { "in the mean" }
            } }
            tbody { @for (kind, (count, [fetch, compute, store])) in &kinds { tr {
                td { (kind.name()) }
                td.number { (count) }
                td.number { (duration(*compute)) }
                td.number { (duration(*fetch)) }
                td.number { (duration(*store)) }
                td.number { (duration((fetch + compute + store) / f64::from(*count))) }
            } } }
        } }
    }
}

/// Which worker did what and when.
pub fn workers(history: &RunHistory) -> Result<Markup, ViewError> {
    let Some(svg) = timeline::svg(history)? else { return Ok(html! {}) };
    Ok(html! {
        figure.wide.timeline role="img" aria-label="which worker computed what and when" { (PreEscaped(svg)) }
        details { summary { "the workers" } div.wide { table {
            thead { tr { th { "worker" } th { "machine" } th { "computes on" } } }
            tbody { @for who in history.workers() { tr {
                td.hash { (who.worker) } td { (who.host) } td { (who.device) }
            } } }
        } } }
    })
}

/// Every evaluation by iteration and steps.
pub fn evaluations(history: &RunHistory) -> Markup {
    let steps: Vec<u32> =
        history.evaluations().values().next().map_or_else(Vec::new, |first| {
            first.results.iter().map(|grades| grades.steps).collect()
        });
    html! {
        div.wide { table {
            thead { tr { th { "policy" } @for steps in &steps { th.number { (steps) " steps" } } } }
            tbody { @for (iteration, evaluation) in history.evaluations() { tr {
                td { @if *iteration == 0 { "base" } @else { "iteration " (iteration) } }
                @for grades in &evaluation.results { td.number { (percent(grades.accuracy)) } }
            } } }
        } }
    }
}

/// From the base to the newest policy, every step of it.
pub fn line(history: &RunHistory) -> Markup {
    steps_of(&lineage(history), 0)
}

/// The newest steps of the same; returns how many are left out.
pub fn newest_of_line(history: &RunHistory) -> (Markup, usize) {
    const NEWEST: usize = 10;
    let line = lineage(history);
    let left_out = line.len().saturating_sub(NEWEST);
    (steps_of(&line, left_out), left_out)
}

fn steps_of(line: &[Link], left_out: usize) -> Markup {
    html! {
        @if let (Some(first), Some(last)) = (line.first(), line.last()) {
            p { "From " span.hash { (first.policy) } " to " span.hash { (last.policy) } " in "
                (line.len() - 1) " steps. Every name is the SHA-256 of what it names." }
        }
        details { summary { @if left_out == 0 { "every step" } @else { "the newest steps" } } div.wide { table {
            thead { tr { th { "made by" } th { "stage" } th { "policy" } } }
            tbody { @for link in &line[left_out..] { tr {
                td { @match &link.key { Some(key) => { (key) } None => { "imported" } } }
                td.hash { @if let Some(stage) = &link.stage { (stage) } }
                td.hash { (link.policy) }
            } } }
        } } }
    }
}

/// The keys in which runs differ, by name, with each run's value.
pub fn differences(runs: &[(&str, &RunHistory)]) -> Markup {
    let flat: Vec<BTreeMap<String, String>> =
        runs.iter().map(|(_, history)| flattened(history)).collect();
    let keys: std::collections::BTreeSet<&String> = flat.iter().flat_map(BTreeMap::keys).collect();
    let differ = |key: &&String| {
        let mut values = flat.iter().map(|one| one.get(*key));
        let first = values.next().flatten();
        values.any(|value| value != first)
    };
    let keys: Vec<_> = keys.into_iter().filter(differ).collect();
    html! {
        div.wide { table {
            thead { tr { th { "key" } @for (name, _) in runs { th { (name) } } } }
            tbody { @for key in keys { tr {
                td.hash { (key) }
                @for one in &flat { td { (one.get(key).map_or("–", String::as_str)) } }
            } } }
        } }
    }
}

/// A run's keys with dots between their parts.
fn flattened(history: &RunHistory) -> BTreeMap<String, String> {
    fn visit(prefix: &str, value: &serde_json::Value, flat: &mut BTreeMap<String, String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    visit(&format!("{prefix}{dot}{name}"), value, flat);
                }
            }
            serde_json::Value::String(text) => drop(flat.insert(prefix.to_owned(), text.clone())),
            other => drop(flat.insert(prefix.to_owned(), other.to_string())),
        }
    }
    let mut flat = BTreeMap::new();
    let config = serde_json::to_value(history.run().config()).unwrap_or_default();
    visit("", &config, &mut flat);
    flat
}

/// Reward and accuracy of runs beside each other.
pub fn beside(runs: &[(&str, &RunHistory)]) -> Markup {
    html! {
        div.wide { table {
            thead { tr {
                th { "run" } th { "state" } th.number { "iteration" } th.number { "base" }
                th.number { "newest" } th.number { "last reward" } th.number { "time of all stages" }
            } }
            tbody { @for (name, history) in runs { tr {
                td { (name) br; span.hash.faint { (history.run().id().short()) } }
                td { (state(history)) }
                td.number { (history.iteration()) }
                td.number { (history.evaluations().get(&0).map_or_else(|| "–".to_owned(), share)) }
                td.number { (newest_evaluation(history).map_or_else(|| "–".to_owned(), |(_, one)| share(one))) }
                td.number { (last_reward(history).map_or_else(|| "–".to_owned(), number)) }
                td.number { (duration(history.stages().values().map(|done| done.took_ms() / 1e3).sum())) }
            } } }
        } }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of shards")]
fn last_reward(history: &RunHistory) -> Option<f64> {
    let (_, shards) = history.metric(StageKind::Reward, "reward").pop_last()?;
    Some(shards.iter().sum::<f64>() / shards.len() as f64)
}
