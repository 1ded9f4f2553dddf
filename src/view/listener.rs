//! The one HTTP listener, for live pages and for metrics.
//!
//! It shares the process's descriptors and log with the work, so it holds few connections, and none of them
//! idle: every phase of a connection has a time limit. When all places are taken, a new connection gets the place
//! of the one that has been idle longest. Knows nothing of what it serves, and checks no access
//! (`guard.rs`). Never more connections are open than the limit, plus the one just accepted.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use http_body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep};

/// Bytes of a request's head, and of an answer that waits to be sent.
const BUFFER: usize = 16 << 10;
/// A client that took nothing for so long may lose its place to another.
const SLOW: Duration = Duration::from_secs(1);
/// Pauses after a connection could not be accepted.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

/// How much a listener takes, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections.
    pub connections: usize,
    /// From the start of a connection, or from its last answer, until a whole request is there.
    pub request: Duration,
    /// Until the answer to a request begins.
    pub answer: Duration,
    /// While the client takes nothing of the answer.
    pub stall: Duration,
    /// Until the client has taken all of it.
    pub transfer: Duration,
}

impl Limits {
    /// For a process that may have so many files open: the work needs nearly all of them.
    pub fn of_files(files: u64) -> Self {
        Self {
            connections: usize::try_from(files / 8).unwrap_or(usize::MAX).clamp(4, 64),
            request: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            stall: Duration::from_secs(10),
            transfer: Duration::from_secs(300),
        }
    }
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, app: Router, limits: Limits) -> Infallible {
    let mut open = Open { limits, places: BTreeMap::new(), tasks: JoinSet::new() };
    let mut pause = PAUSES[0];
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    pause = PAUSES[0];
                    open.admit(stream, &app).await;
                }
                // Most often the table of files is full, and stays so while the loop turns.
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSES[1]);
                }
            },
            Some(ended) = open.tasks.join_next_with_id() => open.forget(&ended),
        }
    }
}

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No whole request is there.
    Waiting,
    /// The answer is being made.
    Answering,
    /// The answer is being sent.
    Sending,
    /// Events are sent as they happen, without an end.
    Following,
}

#[derive(Clone, Copy, Debug)]
struct Standing {
    phase: Phase,
    since: Instant,
    /// When the client last took a part of the answer.
    moved: Instant,
}

/// A connection's standing, shared by the loop, the connection and the body that it sends.
#[derive(Clone, Debug)]
struct Place(Arc<Mutex<Standing>>);

impl Place {
    fn new() -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(Standing { phase: Phase::Waiting, since: now, moved: now })))
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase) {
        let now = Instant::now();
        *self.standing() = Standing { phase, since: now, moved: now };
    }

    fn is_overdue(&self, limits: &Limits) -> bool {
        let Standing { phase, since, moved } = *self.standing();
        match phase {
            Phase::Waiting => since.elapsed() >= limits.request,
            Phase::Answering => since.elapsed() >= limits.answer,
            Phase::Sending => moved.elapsed() >= limits.stall || since.elapsed() >= limits.transfer,
            Phase::Following => false,
        }
    }
}

/// The open connections.
struct Open {
    limits: Limits,
    places: BTreeMap<Id, (Place, AbortHandle)>,
    tasks: JoinSet<()>,
}

impl Open {
    /// Takes a connection in, in the place of another one where there is none.
    async fn admit(&mut self, stream: TcpStream, app: &Router) {
        while self.tasks.len() >= self.limits.connections {
            tracing::warn!(
                open = self.limits.connections,
                "all connections of the listener are taken: one that asks for nothing is closed for the next"
            );
            let Some(id) = self.least() else { return };
            if let Some((_, handle)) = self.places.remove(&id) {
                handle.abort();
            }
            // Its descriptor is free once its task is gone.
            if let Some(ended) = self.tasks.join_next_with_id().await {
                self.forget(&ended);
            }
        }
        let place = Place::new();
        let task = attend(stream, app.clone(), self.limits, place.clone());
        let handle = self.tasks.spawn(task);
        self.places.insert(handle.id(), (place, handle));
    }

    /// The connection that is missed least: the one that has asked for nothing for the longest time, then one that
    /// does not take its answer, then the oldest that follows events where more than half of all do. `None` where
    /// every one of them is being answered.
    fn least(&self) -> Option<Id> {
        let standings = || self.places.iter().map(|(id, (place, _))| (*id, *place.standing()));
        let oldest = |of: &dyn Fn(&Standing) -> bool| {
            let found = standings().filter(|(_, standing)| of(standing));
            found.min_by_key(|(_, standing)| standing.since).map(|(id, _)| id)
        };
        let is = |phase| move |standing: &Standing| standing.phase == phase;
        let following = standings().filter(|(_, standing)| is(Phase::Following)(standing)).count();
        oldest(&is(Phase::Waiting))
            .or_else(|| oldest(&|s| s.phase == Phase::Sending && s.moved.elapsed() >= SLOW))
            .or_else(|| {
                (following * 2 > self.limits.connections)
                    .then(|| oldest(&is(Phase::Following)))
                    .flatten()
            })
    }

    fn forget(&mut self, ended: &Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        self.places.remove(&id);
    }
}

/// Serves one connection until it ends or is overdue.
async fn attend(stream: TcpStream, app: Router, limits: Limits, place: Place) {
    let app = TowerToHyperService::new(app);
    let service = service_fn(|request| {
        place.enter(Phase::Answering);
        let (answer, place) = (app.call(request), place.clone());
        async move {
            let answer = answer.await?;
            place.enter(if is_endless(answer.headers()) {
                Phase::Following
            } else {
                Phase::Sending
            });
            Ok::<_, Infallible>(answer.map(|body| Watched { body, rest: Bytes::new(), place }))
        }
    });
    let mut http = http1::Builder::new();
    let mut connection =
        pin!(http.max_buf_size(BUFFER).serve_connection(TokioIo::new(stream), service));
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke");
                }
                return;
            }
            () = sleep(limits.request.min(limits.stall) / 8) => if place.is_overdue(&limits) {
                tracing::debug!(at = ?place.standing().phase, "a slow connection is closed");
                return;
            },
        }
    }
}

fn is_endless(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream")
}

/// A body in pieces: each one that is asked for shows that the client took those before.
struct Watched {
    body: Body,
    rest: Bytes,
    place: Place,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        self.place.standing().moved = Instant::now();
        let piece = self.rest.len().min(BUFFER);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(body.lower() + rest);
        hint
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.place.enter(Phase::Waiting);
    }
}

#[cfg(test)]
mod tests;
