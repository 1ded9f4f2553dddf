//! The live pages: runs, a run as it grows, its completions, and one trajectory. Read-only: no request
//! changes anything.
//!
//! ```text
//! /                      runs, workers, the queue
//! /runs/<run>            one run: curves, failures, workers, lineage
//! /runs/<run>/samples    its completions, `?iteration=N`
//! /runs/<run>/lineage    every step from the base to its newest policy
//! /rollouts/<stage>/<n>  one trajectory
//! /events                `changed` whenever a page would look different
//! ```
//! Access: every user of this machine, by default; with a token, its holders. Requests that name another
//! host than the one listened on are refused, so that no page elsewhere can read this one through a browser.

use std::convert::Infallible;
use std::sync::Arc;

use agrpo_spec::{RunId, StageDigest};
use agrpo_store::JobsError;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::Stream;
use maud::{Markup, html};
use serde::Deserialize;

use crate::ViewError;
use crate::live::Hub;
use crate::page::{Scripts, document};
use crate::{figures, page, pages, samples, sections};

/// The pages of a hub. Access is checked by the layers around (`guard.rs`).
pub fn router(hub: Arc<Hub>) -> Router {
    Router::new()
        .route("/", get(runs))
        .route("/runs/{run}", get(run))
        .route("/runs/{run}/samples", get(samples_of))
        .route("/runs/{run}/lineage", get(lineage))
        .route("/rollouts/{stage}/{row}", get(trajectory))
        .route("/events", get(events))
        .fallback(|| async { Refused(StatusCode::NOT_FOUND, "there is no such page".to_owned()) })
        .with_state(hub)
}

/// Why there is no page.
struct Refused(StatusCode, String);

impl From<ViewError> for Refused {
    fn from(error: ViewError) -> Self {
        let status = match &error {
            ViewError::Jobs(JobsError::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
            // What the store has lost can be shown no more than what it never had.
            ViewError::Data(_)
            | ViewError::Jobs(
                JobsError::Invalid(_)
                | JobsError::Data(_)
                | JobsError::Incompatible(_)
                | JobsError::Lost { .. },
            ) => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl From<JobsError> for Refused {
    fn from(error: JobsError) -> Self {
        ViewError::from(error).into()
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(status, why) = self;
        let head = html! { h1 { (status) } };
        let body = html! { p { (why) } p { a href="/" { "all runs" } } };
        (status, html_of(document("no page", &head, &body, Scripts::Viewer))).into_response()
    }
}

fn html_of(text: String) -> Response {
    (
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-store")],
        text,
    )
        .into_response()
}

/// A page about all runs or about one.
fn page_of(title: &str, run: Option<RunId>, body: &Markup, scripts: Scripts) -> Response {
    html_of(document(title, &pages::head(title, run, scripts), body, scripts))
}

async fn runs(State(hub): State<Arc<Hub>>) -> Response {
    let (runs, crew) = (hub.runs().await, hub.crew().await);
    page_of("Runs", None, &pages::runs(&runs, &crew), Scripts::Live)
}

async fn run(State(hub): State<Arc<Hub>>, Path(name): Path<String>) -> Result<Response, Refused> {
    let id = hub.store().resolve_run(&name).await?;
    let history = match hub.history(id).await {
        Err(ViewError::Jobs(JobsError::Data(why) | JobsError::Incompatible(why))) => {
            let body = pages::unreadable(&why);
            return Ok(page_of(&format!("Run {}", id.short()), Some(id), &body, Scripts::Live));
        }
        history => history?,
    };
    let history = history.read().await;
    let name = history.run().config().name.clone();
    let charts = figures::all(&[figures::Shown { name: &name, history: &history }]);
    let body = pages::run(&history, &page::charts(&charts)?)?;
    Ok(page_of(&name, Some(id), &body, Scripts::Live))
}

async fn lineage(
    State(hub): State<Arc<Hub>>,
    Path(name): Path<String>,
) -> Result<Response, Refused> {
    let id = hub.store().resolve_run(&name).await?;
    let history = hub.history(id).await?;
    let history = history.read().await;
    let title = format!("{}, lineage", history.run().config().name);
    Ok(page_of(&title, Some(id), &sections::line(&history), Scripts::Viewer))
}

#[derive(Deserialize)]
struct Of {
    iteration: Option<u32>,
}

async fn samples_of(
    State(hub): State<Arc<Hub>>,
    Path(name): Path<String>,
    Query(of): Query<Of>,
) -> Result<Response, Refused> {
    let id = hub.store().resolve_run(&name).await?;
    let history = hub.history(id).await?;
    let history = history.read().await.clone();
    let iteration = of.iteration.unwrap_or_else(|| history.iteration().max(1));
    let found = samples::of_iteration(hub.store(), &history, iteration).await?;
    let name = history.run().config().name.clone();
    let title = format!("{name}, iteration {iteration}");
    let body = pages::samples(&history, iteration, &found);
    Ok(page_of(&title, Some(id), &body, Scripts::Viewer))
}

async fn trajectory(
    State(hub): State<Arc<Hub>>,
    Path((stage, row)): Path<(String, usize)>,
) -> Result<Response, Refused> {
    let stage: StageDigest = hub.store().resolve_stage(&stage).await?;
    let found = samples::of_rollout(hub.store(), stage, row).await?;
    let missing = || Refused(StatusCode::NOT_FOUND, format!("the rollout has no sample {row}"));
    let title = format!("sample {row} of {}", stage.short());
    let body = page::sample(&found.ok_or_else(missing)?);
    Ok(page_of(&title, None, &body, Scripts::Viewer))
}

async fn events(State(hub): State<Arc<Hub>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = hub.changes();
    let stream = futures::stream::unfold(changes, |mut changes| async move {
        changes.changed().await.ok()?;
        let count = *changes.borrow_and_update();
        Some((Ok(Event::default().event("changed").data(count.to_string())), changes))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}
