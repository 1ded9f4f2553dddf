//! The sections of a page about one run. Each is a function of its history, whichever page contains it.

use std::collections::{BTreeMap, BTreeSet};

use agrpo_fleet::status::RunState;
use agrpo_spec::{
    ArtifactDigest, Base, Evaluation, EvaluationResult, Plan, StageDigest, StageKey, StageKind,
};
use agrpo_store::{Failure, Result, Unreadable};
use maud::{Markup, PreEscaped, html};
use serde_json::Value;

use crate::statistics::{Interval, interval, mean};
use crate::text::{self, count, duration, number, percent, policy};
use crate::{figures::Shown, history::RunHistory, timeline};

/// Records that cannot be read and are named, at most.
const MOST_LOST: usize = 5;

/// What a run is doing, in a word.
pub fn state(history: &RunHistory) -> String {
    let is_done = history.stages_done() as u64 >= Plan::total_stages(history.run());
    let held = history.held.as_ref().map(|control| control.state);
    let has_lost_failure = history.unreadable().any(|record| record.failed_stage().is_some());
    let has_failed = !history.failures.is_empty() || has_lost_failure;
    let is_unknown = history.unreadable().any(Unreadable::is_control);
    text::state(RunState::new(is_done, is_unknown, held, has_failed))
}

/// How far a run is, its accuracy and its time.
pub fn summary(history: &RunHistory) -> Markup {
    let config = history.run().config();
    let total = Plan::total_stages(history.run());
    let (done, lost) = (history.stages.len(), history.unreadable().count());
    let retries = history.stages.values().filter(|done| done.attempt > 1).count();
    let wall_s = history.ends_ms().map_or(0.0, |(begun, ended)| (ended - begun) / 1e3);
    html! {
        ul.tiles {
            li { span.faint { "state" } b { (state(history)) } }
            li { span.faint { "iteration" } b { (history.iteration()) " of " (config.training.iterations) } }
            li { span.faint { "stages" } b { (done) " of " (total) } }
            @if let Some((iteration, evaluation)) = newest_evaluation(history) {
                li { span.faint { "accuracy, " (policy(*iteration)) } b { (share(evaluation)) } }
            }
            @if let Some(base) = history.evaluations.get(&0) {
                li { span.faint { "accuracy, base" } b { (share(base)) } }
            }
            @for partial in history.partial_evaluations() {
                li { span.faint { "evaluation, " (policy(partial.iteration)) } b { (partial) } }
            }
            li { span.faint { "time of all stages" } b { (duration(history.work_s())) } }
            li { span.faint { "from first to last" } b { (duration(wall_s)) } }
            li { span.faint { "workers" } b { (history.workers.len()) } }
            @if retries > 0 { li { span.faint { "stages begun more than once" } b { (retries) } } }
            @if !history.recomputed.is_empty() {
                li { span.faint { "results computed again" } b { (history.recomputed.len()) } }
            }
            @if lost > 0 { li { span.faint { "records that cannot be read" } b.bad { (lost) } } }
        }
        @for record in history.unreadable().take(MOST_LOST) { p.bad { (record) } }
        @if lost > MOST_LOST {
            p.bad { "and " (lost - MOST_LOST) " more: " code { "agrpo verify " (history.run().id().short()) } " lists them" }
        }
    }
}

/// The newest evaluation of a trained policy.
fn newest_evaluation(history: &RunHistory) -> Option<(&u32, &Evaluation)> {
    history.evaluations.last_key_value().filter(|(iteration, _)| **iteration > 0)
}

/// Accuracy at the most steps, with its interval.
fn share(evaluation: &Evaluation) -> String {
    let Some(grades) = evaluation.results.first() else { return "–".to_owned() };
    let shown = |Interval { low, high }| format!(" ({:.0}–{:.0})", low * 100.0, high * 100.0);
    format!("{}{}", percent(grades.accuracy), interval(grades).map(shown).unwrap_or_default())
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
    html! {
        @if !history.failures.is_empty() { h2 { "Failures" } }
        @for Failure { stage, key, error, attempts, worker, environment: made, log, .. } in &history.failures {
            div.failure id=(format!("failure-{}", stage.short())) {
                h3 { (key) " failed" }
                p.text { (error) }
                p.faint {
                    "after " (attempts) " attempt" @if *attempts != 1 { "s" }
                    ", last by " (worker) " on " (made.host) ", " (made.cpu) "; stage "
                    span.hash { (stage) }
                }
                @if !log.is_empty() { details { summary { "its last log lines" } pre { (log.join("\n")) } } }
                pre { code { "agrpo retry " (history.run().id().short()) "      # once the cause is gone" } }
            }
        }
    }
}

/// Time by kind of stage and phase.
pub fn kinds(history: &RunHistory) -> Markup {
    let mut kinds: BTreeMap<StageKind, (u32, [f64; 3])> = BTreeMap::new();
    for (key, done) in &history.stages {
        let (count, phases) = kinds.entry(key.kind).or_default();
        *count += 1;
        let spent = [done.phases.fetch_ms, done.phases.compute_ms, done.phases.store_ms];
        phases.iter_mut().zip(spent).for_each(|(sum, ms)| *sum += ms / 1e3);
    }
    html! {
        div.wide { table {
            thead { tr {
                th { "stage" }
                @for head in ["number", "computing", "reading", "writing", "in the mean"] { th.number { (head) } }
            } }
            tbody { @for (kind, (count, [fetch, compute, store])) in &kinds { tr {
                td { (kind.name()) }
                td.number { (count) }
                @for seconds in [*compute, *fetch, *store, (fetch + compute + store) / f64::from(*count)] {
                    td.number { (duration(seconds)) }
                }
            } } }
        } }
    }
}

/// Which worker did what and when.
pub fn workers(history: &RunHistory) -> Result<Markup> {
    let Some(svg) = timeline::svg(history)? else { return Ok(html! {}) };
    Ok(html! {
        figure.wide.timeline role="img" aria-label="which worker computed what and when" { (PreEscaped(svg)) }
        details { summary { "the workers" } div.wide { table {
            thead { tr { th { "worker" } th { "machine" } th { "computes on" } } }
            tbody { @for who in &history.workers { tr {
                td.hash { (who.worker) } td { (who.host) } td { (who.device) }
            } } }
        } } }
    })
}

/// Unmask steps; where lengths differ, with the length.
fn column(grades: &EvaluationResult) -> String {
    match grades.completion_tokens {
        None => count(grades.steps.into(), "step"),
        Some(tokens) => format!("{tokens} tokens, {}", count(grades.steps.into(), "step")),
    }
}

/// Every evaluation by iteration, steps and, where lengths differ, length.
pub fn evaluations(history: &RunHistory) -> Markup {
    let first = history.evaluations.values().next();
    let results = first.map(|evaluation| &*evaluation.results).unwrap_or_default();
    html! {
        div.wide { table {
            thead { tr { th { "policy" } @for one in results { th.number { (column(one)) } } } }
            tbody { @for (iteration, evaluation) in &history.evaluations { tr {
                td { (policy(*iteration)) }
                @for grades in &evaluation.results { td.number { (percent(grades.accuracy)) } }
            } } }
        } }
    }
}

/// From the base to the newest policy: the newest steps, and a link to all where there are more.
pub fn line(history: &RunHistory, most: usize) -> Markup {
    let line = lineage(history);
    let left_out = line.len().saturating_sub(most);
    html! {
        @if let (Some((_, first)), Some((_, last))) = (line.first(), line.last()) {
            p { "From " span.hash { (first) } " to " span.hash { (last) } " in "
                (count(line.len() as u64 - 1, "step")) ". Every name is the SHA-256 of what it names." }
        }
        details { summary { @if left_out == 0 { "every step" } @else { "the newest steps" } } div.wide { table {
            thead { tr { th { "made by" } th { "stage" } th { "policy" } } }
            tbody { @for (made, policy) in &line[left_out..] { tr {
                td { @match made { Some((key, _)) => { (key) } None => { "imported" } } }
                td.hash { @if let Some((_, stage)) = made { (stage) } }
                td.hash { (policy) }
            } } }
        } } }
        @if left_out > 0 {
            p { a href=(format!("/runs/{}/lineage", history.run().id().short())) { "all of it" } }
        }
    }
}

/// A policy, and the stage that made it; none for what was imported.
type Link = (Option<(StageKey, StageDigest)>, ArtifactDigest);

/// The policies of a run from the base on; those are left out whose records could not be read.
fn lineage(history: &RunHistory) -> Vec<Link> {
    let imported = match history.run().base() {
        Base::Checkpoint(checkpoint) => Some((None, checkpoint.folder)),
        _ => None,
    };
    let made =
        history.stages.iter().filter(|(key, _)| key.makes_policy()).filter_map(|(&key, done)| {
            Some((Some((key, done.stage)), *done.outputs.get("policy")?))
        });
    imported.into_iter().chain(made).collect()
}

/// The keys in which runs differ, by name, with each run's value.
pub fn differences(runs: &[Shown<'_>]) -> Markup {
    let flat: Vec<_> = runs.iter().map(|run| flattened(run.history)).collect();
    let differ = |key: &&String| flat.iter().any(|one| one.get(*key) != flat[0].get(*key));
    let keys: BTreeSet<&String> = flat.iter().flat_map(BTreeMap::keys).filter(differ).collect();
    html! {
        div.wide { table {
            thead { tr { th { "key" } @for run in runs { th { (run.name) } } } }
            tbody { @for key in keys { tr {
                td.hash { (key) }
                @for one in &flat { td { (one.get(key).map_or("–", String::as_str)) } }
            } } }
        } }
    }
}

/// A run's keys with dots between their parts.
fn flattened(history: &RunHistory) -> BTreeMap<String, String> {
    fn visit(prefix: &str, value: &Value, flat: &mut BTreeMap<String, String>) {
        let Value::Object(fields) = value else {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            return drop(flat.insert(prefix.to_owned(), text));
        };
        let dot = if prefix.is_empty() { "" } else { "." };
        for (name, value) in fields {
            visit(&format!("{prefix}{dot}{name}"), value, flat);
        }
    }
    let mut flat = BTreeMap::new();
    let config = serde_json::to_value(history.run().config()).unwrap_or_default();
    visit("", &config, &mut flat);
    flat
}

/// Reward and accuracy of runs beside each other.
pub fn beside(runs: &[Shown<'_>]) -> Markup {
    html! {
        div.wide { table {
            thead { tr {
                th { "run" } th { "state" } th.number { "iteration" } th.number { "base" }
                th.number { "newest" } th.number { "last reward" } th.number { "time of all stages" }
            } }
            tbody { @for Shown { name, history } in runs { tr {
                td { (name) br; span.hash.faint { (history.run().id().short()) } }
                td { (state(history)) }
                td.number { (history.iteration()) }
                @for cell in [
                    history.evaluations.get(&0).map(share),
                    newest_evaluation(history).map(|(_, evaluation)| share(evaluation)),
                    history.metric(StageKind::Reward, agrpo_spec::metrics::REWARD).pop_last().map(|(_, all)| number(mean(&all))),
                ] { td.number { (cell.as_deref().unwrap_or("–")) } }
                td.number { (duration(history.work_s())) }
            } } }
        } }
    }
}
