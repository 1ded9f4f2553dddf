//! The live pages: runs, a run as it grows, its completions, and one trajectory. No request changes anything.
//!
//! Access is checked by `guard.rs`.

use std::{convert::Infallible, sync::Arc};

use agrpo_spec::{RunId, StageDigest};
use agrpo_store::JobsError;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use futures::Stream;
use maud::{Markup, html};
use serde::Deserialize;

use crate::page::{Scripts, document};
use crate::{figures, page, pages, samples, sections};
use crate::{history::RunHistory, live::Hub};

/// The pages of a hub.
pub fn router(hub: Arc<Hub>) -> Router {
    Router::new()
        .route("/", get(runs))
        .route("/runs/{run}", get(run))
        .route("/runs/{run}/samples", get(samples_of))
        .route("/runs/{run}/lineage", get(lineage))
        .route("/rollouts/{stage}/{row}", get(trajectory))
        // `changed` whenever a page would look different.
        .route("/events", get(events))
        .fallback(|| async { Refused(StatusCode::NOT_FOUND, "there is no such page".to_owned()) })
        .with_state(hub)
}

struct Refused(StatusCode, String);

impl From<JobsError> for Refused {
    fn from(error: JobsError) -> Self {
        use JobsError::{Ambiguous, Data, Incompatible, Invalid, Lost, Unavailable};
        let status = match &error {
            Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            // Lost data and data that never existed are both not found.
            Invalid(_) | Ambiguous(_) | Data(_) | Incompatible(_) | Lost { .. } => {
                StatusCode::NOT_FOUND
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
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
    let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8");
    ([kind, (header::CACHE_CONTROL, "no-store")], text).into_response()
}

fn page_of(title: &str, run: Option<RunId>, body: &Markup, scripts: Scripts) -> Response {
    html_of(pages::page(title, run, body, scripts))
}

type Shared = State<Arc<Hub>>;

async fn runs(State(hub): Shared) -> Response {
    let (runs, crew) = (hub.runs().await, hub.crew().await);
    page_of("Runs", None, &pages::runs(&runs, &crew), Scripts::Live)
}

async fn run(State(hub): Shared, Path(name): Path<String>) -> Result<Response, Refused> {
    let id = hub.store.records.resolve_run(&name).await?;
    let history = match hub.history(id).await {
        Err(JobsError::Data(why) | JobsError::Incompatible(why)) => {
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

async fn lineage(State(hub): Shared, Path(name): Path<String>) -> Result<Response, Refused> {
    let history = history_of(&hub, &name).await?;
    let title = format!("{}, lineage", history.run().config().name);
    let (id, body) = (history.run().id(), sections::line(&history, usize::MAX));
    Ok(page_of(&title, Some(id), &body, Scripts::Viewer))
}

/// The history of the run that an address names, as it is now.
async fn history_of(hub: &Hub, name: &str) -> Result<RunHistory, Refused> {
    let history = hub.history(hub.store.records.resolve_run(name).await?).await?;
    let history = history.read().await;
    Ok(history.clone())
}

#[derive(Deserialize)]
struct Of {
    iteration: Option<u32>,
}

async fn samples_of(
    State(hub): Shared,
    Path(name): Path<String>,
    Query(of): Query<Of>,
) -> Result<Response, Refused> {
    let history = history_of(&hub, &name).await?;
    let iteration = of.iteration.unwrap_or_else(|| history.iteration().max(1));
    let found = samples::of_iteration(&hub.store, &history, iteration).await?;
    let title = format!("{}, iteration {iteration}", history.run().config().name);
    let body = pages::samples(&history, iteration, &found);
    Ok(page_of(&title, Some(history.run().id()), &body, Scripts::Viewer))
}

async fn trajectory(
    State(hub): Shared,
    Path((stage, row)): Path<(String, usize)>,
) -> Result<Response, Refused> {
    let stage: StageDigest = hub.store.records.resolve_stage(&stage).await?;
    let found = samples::of_rollout(&hub.store, stage, row).await?;
    let missing = || Refused(StatusCode::NOT_FOUND, format!("the rollout has no sample {row}"));
    let title = format!("sample {row} of {}", stage.short());
    let body = page::sample(&found.ok_or_else(missing)?);
    Ok(page_of(&title, None, &body, Scripts::Viewer))
}

async fn events(State(hub): Shared) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let stream = futures::stream::unfold(hub.changes(), |mut changes| async move {
        changes.changed().await.ok()?;
        let count = *changes.borrow_and_update();
        Some((Ok(Event::default().event("changed").data(count.to_string())), changes))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}
