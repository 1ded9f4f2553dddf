//! Whole HTML documents and the pieces that reports and live pages share.
//!
//! A document contains its style and its script, and refers to no other file. All text goes through maud,
//! which escapes it; only charts and the two files beside this one are inserted unescaped.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use crate::ViewError;
use crate::figures::Named;
use crate::plot;
use crate::samples::Sample;

const STYLE: &str = include_str!("page/style.css");
const VIEWER: &str = include_str!("page/viewer.js");
/// Characters of a prompt that is shown without being asked for.
const SHORT: usize = 300;

/// What a document's scripts do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scripts {
    /// They play trajectories.
    Viewer,
    /// And follow the events of the server.
    Live,
}

/// A document.
pub fn document(title: &str, head: &Markup, body: &Markup, scripts: Scripts) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                meta http-equiv="Content-Security-Policy" content=(policy(scripts));
                title { (title) " – agrpo" }
                style { (PreEscaped(STYLE)) }
                script { (PreEscaped(VIEWER)) }
                @if scripts == Scripts::Live { script { (PreEscaped(LIVE)) } }
            }
            body {
                header { (head) }
                main id="main" { (body) }
            }
        }
    }
    .into_string()
}

/// Lets a browser use what is in the document and nothing else, whatever a completion holds.
fn policy(scripts: Scripts) -> String {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    let live = if scripts == Scripts::Live { format!(" {}", hash(LIVE)) } else { String::new() };
    let (style, viewer) = (hash(STYLE), hash(VIEWER));
    format!(
        "default-src 'none'; style-src {style}; script-src {viewer}{live}; connect-src 'self'; \
         base-uri 'none'; form-action 'none'"
    )
}

/// Follows the server: changed parts are fetched again, and scroll and focus stay where they were.
const LIVE: &str = include_str!("page/live.js");

/// Charts beside each other.
pub fn charts(charts: &[Named]) -> Result<Markup, ViewError> {
    let drawn = charts.iter().map(|chart| {
        let svg = plot::svg(&chart.figure)?;
        Ok::<_, ViewError>(html! {
            figure id=(format!("chart-{}", chart.name)) role="img" aria-label=(chart.figure.title) {
                (PreEscaped(svg))
            }
        })
    });
    let drawn = drawn.collect::<Result<Vec<_>, _>>()?;
    Ok(html! { div.charts { @for chart in drawn { (chart) } } })
}

/// A completion with its way from all masks to its end.
pub fn sample(sample: &Sample) -> Markup {
    let trajectory = serde_json::to_string(&sample.trajectory).unwrap_or_default();
    let prompt = sample.trajectory.prompt.trim();
    html! {
        div.sample {
            p {
                @if let Some(choice) = sample.choice { b { (choice.name()) } " · " }
                "iteration " (sample.iteration)
                @if let Some(reward) = sample.reward { " · reward " (number(reward)) }
                @match sample.correct {
                    Some(true) => { " · " span.good { "right" } }
                    Some(false) => { " · " span.bad { "wrong" } }
                    None => {}
                }
                @for (name, value) in &sample.parts { " · " (name) " " (number(*value)) }
                " · " span.hash.faint { "agrpo show " (sample.rollout.short()) " --sample " (sample.trajectory.row) " --play" }
            }
            details open[prompt.chars().count() <= SHORT] {
                summary { "what was asked" }
                div.text { (prompt) }
            }
            div.viewer data-trajectory=(trajectory) {
                div.text { (sample.trajectory.completion()) }
            }
        }
    }
}

/// A number with as many digits as people read.
pub fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A share in per cent.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A duration in the units that people use for it.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}
