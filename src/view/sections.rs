//! The parts of a page about one run. Each is a function of its story; none knows where it will stand.

use std::collections::BTreeMap;

use agrpo_jobs::{Failure, Hold};
use agrpo_spec::{Plan, StageKind};
use maud::{Markup, PreEscaped, html};

use crate::ViewError;
use crate::lineage::{Link, lineage};
use crate::page::{duration, number, percent};
use crate::statistics::{Interval, pass_at};
use crate::story::{Evaluation, Story};
use crate::timeline;

/// Records that cannot be read and are named, at most.
const MOST_LOST: usize = 5;

/// What a run is doing, in a word.
pub fn state(story: &Story) -> &'static str {
    let total = Plan::total_stages(story.run());
    let has_lost = |part: &str| story.unreadable().any(|record| record.object.contains(part));
    match story.held().map(|control| control.state) {
        _ if story.places() as u64 >= total => "done",
        _ if has_lost("/control.json") => "unreadable",
        Some(Hold::Cancelled) => "cancelled",
        _ if !story.failures().is_empty() || has_lost("/failures/") => "failed",
        Some(Hold::Paused) => "paused",
        None => "running",
    }
}

/// How far a run is, its accuracy and its time.
pub fn summary(story: &Story) -> Markup {
    let config = story.run().config();
    let total = Plan::total_stages(story.run());
    let (done, lost) = (story.stages().len(), story.unreadable().count());
    let compute: f64 = story.stages().values().map(|done| done.took_ms() / 1e3).sum();
    html! {
        ul.tiles {
            li { span.faint { "state" } b { (state(story)) } }
            li { span.faint { "iteration" } b { (story.iteration()) " of " (config.training.iterations) } }
            li { span.faint { "stages" } b { (done) " of " (total) } }
            @if let Some((name, evaluation)) = newest_evaluation(story) {
                li { span.faint { "accuracy, " (name) } b { (share(evaluation)) } }
            }
            @if let Some(base) = story.evaluations().get(&0) {
                li { span.faint { "accuracy, base" } b { (share(base)) } }
            }
            li { span.faint { "time of all stages" } b { (duration(compute)) } }
            li { span.faint { "from first to last" } b { (duration(wall_s(story))) } }
            li { span.faint { "workers" } b { (story.workers().len()) } }
            @if retries(story) > 0 {
                li { span.faint { "stages begun more than once" } b { (retries(story)) } }
            }
            @if !story.rewound().is_empty() {
                li { span.faint { "results made again" } b { (story.rewound().len()) } }
            }
            @if lost > 0 {
                li { span.faint { "records that cannot be read" } b.bad { (lost) } }
            }
        }
        @for record in story.unreadable().take(MOST_LOST) { p.bad { (record) } }
        @if lost > MOST_LOST {
            p.bad { "and " (lost - MOST_LOST) " more: " code { "agrpo verify " (story.run().id().short()) } " lists them" }
        }
    }
}

/// Stages that were finished, but not by the first who began them.
fn retries(story: &Story) -> usize {
    story.stages().values().filter(|done| done.attempt > 1).count()
}

fn newest_evaluation(story: &Story) -> Option<(String, &Evaluation)> {
    let (iteration, evaluation) = story.evaluations().last_key_value()?;
    (*iteration > 0).then(|| (format!("iteration {iteration}"), evaluation))
}

/// Accuracy at the most steps, with its interval.
fn share(evaluation: &Evaluation) -> String {
    let Some(marks) = evaluation.results.first() else { return "–".to_owned() };
    let interval = pass_at(&marks.solved_by, 1).map(|estimate| estimate.interval);
    let interval = interval.map_or_else(String::new, |Interval { low, high }| {
        format!(" ({:.0}–{:.0})", low * 100.0, high * 100.0)
    });
    format!("{}{interval}", percent(marks.accuracy))
}

/// Seconds from the beginning of the first stage to the end of the last.
#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact in f64")]
fn wall_s(story: &Story) -> f64 {
    let begun = story.stages().values().map(|done| done.started_unix_ms as f64);
    let ended = story.stages().values().map(|done| done.started_unix_ms as f64 + done.took_ms());
    let both = begun.min_by(f64::total_cmp).zip(ended.max_by(f64::total_cmp));
    both.map_or(0.0, |(begun, ended)| (ended - begun) / 1e3)
}

/// What was run, and what to type to run and to check it again. `file` is the run file's text.
pub fn again(story: &Story, file: &str) -> Markup {
    let id = story.run().id();
    let name = &story.run().config().name;
    html! {
        pre { code {
            "agrpo run " (if name.starts_with('-') { "./" } else { "" }) (name) ".toml      # the file below; the same bytes wherever it runs\n"
            "agrpo replay --run " (id.short()) "      # every stage of this run again, compared byte for byte\n"
            "agrpo status " (id.short())
        } }
        details { summary { "the run file, every default explicit" } pre { code { (file) } } }
    }
}

/// Where a run stands still, and why.
pub fn failures(story: &Story) -> Markup {
    html! { @for failure in story.failures() { (self::failure(story, failure)) } }
}

/// One failure record.
pub fn failure(story: &Story, failure: &Failure) -> Markup {
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
            pre { code { "agrpo retry " (story.run().id().short()) "      # once the cause is gone" } }
        }
    }
}

/// Time by kind of stage and phase.
pub fn kinds(story: &Story) -> Markup {
    let mut kinds: BTreeMap<StageKind, (u32, [f64; 3])> = BTreeMap::new();
    for (key, done) in story.stages() {
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
pub fn workers(story: &Story) -> Result<Markup, ViewError> {
    let Some(svg) = timeline::svg(story)? else { return Ok(html! {}) };
    Ok(html! {
        figure.wide.timeline role="img" aria-label="which worker computed what and when" { (PreEscaped(svg)) }
        details { summary { "the workers" } div.wide { table {
            thead { tr { th { "worker" } th { "machine" } th { "computes on" } } }
            tbody { @for who in story.workers() { tr {
                td.hash { (who.worker) } td { (who.host) } td { (who.device) }
            } } }
        } } }
    })
}

/// Every evaluation by iteration and steps.
pub fn evaluations(story: &Story) -> Markup {
    let steps: Vec<u32> = story
        .evaluations()
        .values()
        .next()
        .map_or_else(Vec::new, |first| first.results.iter().map(|marks| marks.steps).collect());
    html! {
        div.wide { table {
            thead { tr { th { "policy" } @for steps in &steps { th.number { (steps) " steps" } } } }
            tbody { @for (iteration, evaluation) in story.evaluations() { tr {
                td { @if *iteration == 0 { "base" } @else { "iteration " (iteration) } }
                @for marks in &evaluation.results { td.number { (percent(marks.accuracy)) } }
            } } }
        } }
    }
}

/// From the base to the newest policy, every step of it.
pub fn line(story: &Story) -> Markup {
    steps_of(&lineage(story), 0)
}

/// The same, but no more steps than somebody looks at while they come; answers how many are left out.
pub fn newest_of_line(story: &Story) -> (Markup, usize) {
    const NEWEST: usize = 10;
    let line = lineage(story);
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
pub fn differences(runs: &[(&str, &Story)]) -> Markup {
    let flat: Vec<BTreeMap<String, String>> =
        runs.iter().map(|(_, story)| flattened(story)).collect();
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
fn flattened(story: &Story) -> BTreeMap<String, String> {
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
    let config = serde_json::to_value(story.run().config()).unwrap_or_default();
    visit("", &config, &mut flat);
    flat
}

/// Reward and accuracy of runs beside each other.
pub fn beside(runs: &[(&str, &Story)]) -> Markup {
    html! {
        div.wide { table {
            thead { tr {
                th { "run" } th { "state" } th.number { "iteration" } th.number { "base" }
                th.number { "newest" } th.number { "last reward" } th.number { "time of all stages" }
            } }
            tbody { @for (name, story) in runs { tr {
                td { (name) br; span.hash.faint { (story.run().id().short()) } }
                td { (state(story)) }
                td.number { (story.iteration()) }
                td.number { (story.evaluations().get(&0).map_or_else(|| "–".to_owned(), share)) }
                td.number { (newest_evaluation(story).map_or_else(|| "–".to_owned(), |(_, one)| share(one))) }
                td.number { (last_reward(story).map_or_else(|| "–".to_owned(), number)) }
                td.number { (duration(story.stages().values().map(|done| done.took_ms() / 1e3).sum())) }
            } } }
        } }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of shards")]
fn last_reward(story: &Story) -> Option<f64> {
    let (_, shards) = story.metric(StageKind::Reward, "reward").pop_last()?;
    Some(shards.iter().sum::<f64>() / shards.len() as f64)
}
