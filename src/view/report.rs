//! A report: one run, or several beside each other, in one HTML file that needs nothing else.

use agrpo_spec::RunId;
use agrpo_store::{Result, Store};
use maud::{Markup, html};

use crate::figures::{self, Named, Shown};
use crate::page::{self, Scripts, document};
use crate::samples::{self, Sample};
use crate::{history::RunHistory, sections};

/// A run as a report needs it.
#[derive(Debug)]
pub struct Subject {
    /// Its name beside others.
    pub name: String,
    /// Its history.
    pub history: RunHistory,
    before: Vec<Sample>,
    after: Vec<Sample>,
    file: String,
}

impl Subject {
    /// Reads all that a report shows of a run; `file` writes its run file.
    pub async fn read(
        store: &Store,
        run: RunId,
        file: impl Fn(&RunHistory) -> String,
    ) -> Result<Self> {
        let history = RunHistory::read(store, run).await?;
        let before = samples::of_iteration(store, &history, 1).await?;
        let after = match history.iteration() {
            0 | 1 => vec![],
            last => samples::of_iteration(store, &history, last).await?,
        };
        let (name, file) = (history.run().config().name.clone(), file(&history));
        Ok(Self { name, history, before, after, file })
    }
}

/// Gives runs of one name different names.
pub fn distinguish(subjects: &mut [Subject]) {
    let names: Vec<String> = subjects.iter().map(|subject| subject.name.clone()).collect();
    for subject in subjects {
        if names.iter().filter(|name| **name == subject.name).count() > 1 {
            subject.name = format!("{} {}", subject.name, subject.history.run().id().short());
        }
    }
}

/// The charts of a report, each under a name that suits a file.
pub fn charts(subjects: &[Subject]) -> Vec<Named> {
    figures::all(&shown(subjects))
}

fn shown(subjects: &[Subject]) -> Vec<Shown<'_>> {
    subjects.iter().map(|Subject { name, history, .. }| Shown { name, history }).collect()
}

/// The report as one document. `made` names the program, as in `agrpo 0.1.0`.
pub fn report(subjects: &[Subject], made: &str) -> Result<String> {
    let names: Vec<&str> = subjects.iter().map(|subject| subject.name.as_str()).collect();
    let title = names.join(" and ");
    let charts = page::charts(&charts(subjects))?;
    let head = html! {
        h1 { (title) }
        p.faint { "A report by " (made) ". This file needs no network and no other file." }
    };
    let body = match subjects {
        [subject] => single(subject, &charts)?,
        _ => several(subjects, &charts)?,
    };
    Ok(document(&title, &head, &body, Scripts::Viewer))
}

fn single(subject: &Subject, charts: &Markup) -> Result<Markup> {
    let history = &subject.history;
    Ok(html! {
        (sections::summary(history))
        (sections::failures(history))
        h2 { "What was run" }
        p { "Run " span.hash { (history.run().id()) } }
        (sections::again(history, &subject.file))
        h2 { "Curves" }
        p.faint { "Bands and whiskers are intervals of 95 %." }
        (charts)
        details { summary { "every evaluation" } (sections::evaluations(history)) }
        (self::samples(subject))
        h2 { "Workers" }
        (sections::workers(history)?)
        (sections::kinds(history))
        h2 { "Lineage" }
        (sections::line(history, usize::MAX))
    })
}

fn samples(subject: &Subject) -> Markup {
    html! {
        @if !subject.before.is_empty() || !subject.after.is_empty() {
            h2 { "Completions" }
            p.faint { "Masks become tokens in the order in which the policy wrote them. Dotted underlines mark probabilities below 50 %." }
        }
        @for (name, samples) in [("Before training", &subject.before), ("After training", &subject.after)] {
            @if !samples.is_empty() {
                h3 { (name) }
                @for sample in samples { (page::sample(sample)) }
            }
        }
    }
}

fn several(subjects: &[Subject], charts: &Markup) -> Result<Markup> {
    let runs = shown(subjects);
    Ok(html! {
        (sections::beside(&runs))
        h2 { "Where they differ" }
        (sections::differences(&runs))
        h2 { "Curves" }
        p.faint { "Bands and whiskers are intervals of 95 %." }
        (charts)
        @for subject in subjects {
            h2 { (subject.name) }
            details { summary { "full report" } (single(subject, &html! {})?) }
        }
    })
}
