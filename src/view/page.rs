//! Whole HTML documents and the pieces that reports and live pages share.
//!
//! A document contains its style and its script, and refers to no other file. All text goes through maud,
//! which escapes it; only charts and the two files beside this one are inserted unescaped.

use agrpo_store::Result;
use base64::{Engine as _, prelude::BASE64_STANDARD as STANDARD};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use crate::text::{name_of, number};
use crate::{figures::Named, plot, samples::Sample};

const STYLE: &str = include_str!("page/style.css");
const VIEWER: &str = include_str!("page/viewer.js");
/// Follows the server: changed parts are fetched again, and scroll and focus stay where they were.
const LIVE: &str = include_str!("page/live.js");
/// Most characters of a prompt that is shown unfolded.
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

/// Charts beside each other.
pub fn charts(charts: &[Named]) -> Result<Markup> {
    Ok(html! {
        div.charts { @for Named { name, figure } in charts {
            figure id=(format!("chart-{name}")) role="img" aria-label=(figure.title) {
                (PreEscaped(plot::svg(figure)?))
            }
        } }
    })
}

/// A completion with a player of its unmask steps.
pub fn sample(sample: &Sample) -> Markup {
    let trajectory = serde_json::to_string(&sample.trajectory).unwrap_or_default();
    let prompt = sample.trajectory.prompt.trim();
    html! {
        div.sample {
            p {
                @if let Some(choice) = sample.choice { b { (name_of(&choice)) } " · " }
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
                summary { "prompt" }
                div.text { (prompt) }
            }
            div.viewer data-trajectory=(trajectory) {
                div.text { (sample.trajectory.completion()) }
            }
        }
    }
}
