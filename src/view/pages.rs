//! The bodies of the live pages, from the hub's state. Parts marked as live are replaced when they change.

use agrpo_fleet::status::RunStatus;
use agrpo_spec::RunId;
use agrpo_store::Result;
use maud::{Markup, html};

use crate::page::{self, Scripts, document};
use crate::text::{self, count, percent};
use crate::{history::RunHistory, live::Crew, samples::Sample, sections};

/// Steps of the lineage on the page of a run.
const NEWEST: usize = 10;

/// A page about all runs or about one.
pub fn page(title: &str, run: Option<RunId>, body: &Markup, scripts: Scripts) -> String {
    let head = html! {
        h1 { (title) }
        nav aria-label="pages" {
            a href="/" { "all runs" }
            @if let Some(run) = run {
                " · " a href=(format!("/runs/{}", run.short())) { "this run" }
                " · " a href=(format!("/runs/{}/samples", run.short())) { "completions" }
            }
            @if scripts == Scripts::Live {
                " · " span #connection .faint role="status" { "connecting" }
            }
        }
    };
    document(title, &head, body, scripts)
}

fn part(id: &str, body: &Markup) -> Markup {
    html! { section id=(id) data-live="" { (body) } }
}

/// All runs, and the workers.
pub fn runs(runs: &Result<Vec<RunStatus>, String>, crew: &Crew) -> Markup {
    html! {
        (part("runs", &html! {
            @match runs {
                Err(why) => p.bad { (why) },
                Ok(runs) if runs.is_empty() => p { "No run yet: " code { "agrpo run FILE" } " begins one." },
                Ok(runs) => (table(runs)),
            }
        }))
        (part("crew", &self::crew(crew)))
    }
}

fn table(runs: &[RunStatus]) -> Markup {
    let share = |share: Option<f64>| share.map_or_else(|| "–".to_owned(), percent);
    html! {
        div.wide { table {
            thead { tr {
                th { "run" } th { "state" } th { "iteration" } th.number { "base" } th.number { "newest" }
            } }
            tbody { @for run in runs { tr {
                td { a href=(format!("/runs/{}", run.run.short())) {
                        @if run.name.is_empty() { "run " (run.run.short()) } @else { (run.name) }
                    }
                    br; span.hash.faint { (run.run.short()) } }
                td { (text::state(run.state))
                    @if let Some(why) = &run.unreadable { ": " span.bad { (why) } }
                    @if let [first, more @ ..] = &*run.unreadable_records {
                        br; span.bad { (first) @if !more.is_empty() { "; and " (more.len()) " more" } }
                    }
                    @if let Some(failed) = &run.failed_at {
                        br; a.bad href=(format!("/runs/{}#failure-{}", run.run.short(), failed.stage.short())) {
                            "failed at " (failed.key)
                        }
                    } }
                td { @if run.unreadable.is_none() {
                    (run.iteration) " of " (run.iterations)
                    br; progress max=(run.iterations) value=(run.iteration) aria-label="iterations" {}
                } }
                td.number { (share(run.accuracy.base)) }
                td.number { (share(run.accuracy.latest)) }
            } } }
        } }
    }
}

fn crew(crew: &Crew) -> Markup {
    html! {
        h2 { "Workers" }
        @if let Some(why) = &crew.error { p.bad { (why) } }
        @if crew.error.is_none() && crew.workers.is_empty() { p { "No workers connected." } }
        @if !crew.workers.is_empty() { div.wide { table {
            thead { tr { th { "worker" } th { "computes on" } th { "class" } th.number { "done" } th { "in hand" } } }
            tbody { @for worker in &crew.workers { tr {
                td.hash { (worker.name) }
                td { (worker.device) }
                td { (worker.class) }
                td.number { (worker.stages_done) }
                td { @if let Some(stage) = &worker.computing {
                    a href=(format!("/runs/{}", stage.run.short())) { (stage.run.short()) } " " (stage.key)
                } @else { span.faint { "nothing" } } }
            } } }
        } } }
        @for (class, stages) in &crew.waiting { p { "Waiting for a worker of class " (class) ": " (count(*stages, "stage")) "." } }
    }
}

/// One run as it grows.
pub fn run(history: &RunHistory, charts: &Markup) -> Result<Markup> {
    Ok(html! {
        (part("summary", &sections::summary(history)))
        (part("failures", &sections::failures(history)))
        h2 { "Curves" }
        p.faint { "Bands and whiskers are intervals of 95 %." }
        (part("curves", charts))
        h2 { "Workers" }
        (part("workers", &html! { (sections::workers(history)?) (sections::kinds(history)) }))
        h2 { "Lineage" }
        (part("lineage", &sections::line(history, NEWEST)))
    })
}

/// The page of a run whose own record cannot be read, with the parts that are filled once it can.
pub fn unreadable(why: &str) -> Markup {
    html! {
        (part("summary", &html! { p { "This run cannot be read: " span.bad { (why) } } }))
        @for id in ["failures", "curves", "workers", "lineage"] { (part(id, &html! {})) }
    }
}

/// Completions of an iteration, and links to other iterations.
pub fn samples(history: &RunHistory, iteration: u32, samples: &[Sample]) -> Markup {
    let link = |to: u32| format!("/runs/{}/samples?iteration={to}", history.run().id().short());
    let last = history.iteration().max(1);
    html! {
        p {
            @if iteration > 1 {
                a href=(link(1)) { "first" } " · " a href=(link(iteration - 1)) { "one earlier" }
            }
            @if iteration > 1 && iteration < last { " · " }
            @if iteration < last {
                a href=(link(iteration + 1)) { "one later" } " · " a href=(link(last)) { "newest" }
            }
        }
        @if samples.is_empty() { p { "The store has no completions of this iteration." } }
        @for sample in samples { (page::sample(sample)) }
    }
}
