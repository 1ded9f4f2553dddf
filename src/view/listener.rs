//! The one HTTP listener, for live pages and for metrics.
//!
//! It shares file descriptors with the work, so it holds few connections, and every phase of one has a time limit.
//! At the limit, a new connection replaces the one that has been idle longest. Knows nothing of what it serves, and
//! checks no access (`guard.rs`). The number of connections never exceeds the limit by more than the one just accepted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{collections::BTreeMap, convert::Infallible, pin::pin, time::Duration};

use axum::body::{Body, Bytes};
use axum::{Router, http::header};
use futures::{StreamExt, TryStreamExt, stream};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep};

/// Bytes of a request's head, and of an answer that waits to be sent.
const BUFFER: usize = 16 << 10;
/// A client that read nothing for so long may be disconnected for another.
const SLOW: Duration = Duration::from_secs(1);
/// Pauses after a connection could not be accepted.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

/// The limits of a listener: the number of connections, and the duration of each phase.
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
    /// For a process that may open so many files. The work needs nearly all of them.
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
    let mut open = Open { limits, connections: BTreeMap::new(), tasks: JoinSet::new() };
    let mut pause = PAUSES[0];
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    pause = PAUSES[0];
                    open.admit(stream, &app).await;
                }
                // Usually the limit of open files is reached, and an immediate retry fails again.
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

impl Standing {
    fn new(phase: Phase) -> Self {
        let now = Instant::now();
        Self { phase, since: now, moved: now }
    }

    fn is_overdue(&self, limits: &Limits) -> bool {
        let (since, moved) = (self.since.elapsed(), self.moved.elapsed());
        match self.phase {
            Phase::Waiting => since >= limits.request,
            Phase::Answering => since >= limits.answer,
            Phase::Sending => moved >= limits.stall || since >= limits.transfer,
            Phase::Following => false,
        }
    }
}

/// The state of a connection, shared by the loop, the connection and the body that it sends.
#[derive(Clone, Debug)]
struct Connection(Arc<Mutex<Standing>>);

impl Connection {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase) {
        *self.standing() = Standing::new(phase);
    }
}

struct Open {
    limits: Limits,
    connections: BTreeMap<Id, (Connection, AbortHandle)>,
    tasks: JoinSet<()>,
}

impl Open {
    /// Serves a connection; at the limit, closes another one first.
    async fn admit(&mut self, stream: TcpStream, app: &Router) {
        while self.tasks.len() >= self.limits.connections {
            tracing::warn!(
                open = self.limits.connections,
                "the listener is at its limit of connections: an idle one is closed for a new one"
            );
            let Some(id) = self.expendable() else { return };
            if let Some((_, handle)) = self.connections.remove(&id) {
                handle.abort();
            }
            // Its descriptor is free once its task is gone.
            if let Some(ended) = self.tasks.join_next_with_id().await {
                self.forget(&ended);
            }
        }
        let state = Connection(Arc::new(Mutex::new(Standing::new(Phase::Waiting))));
        let task = attend(stream, app.clone(), self.limits, state.clone());
        let handle = self.tasks.spawn(task);
        self.connections.insert(handle.id(), (state, handle));
    }

    /// The connection to close: the one idle for longest, else one that does not read its answer, else the oldest one
    /// that follows events if more than half of all do. `None` if all are being answered.
    fn expendable(&self) -> Option<Id> {
        let standings = || self.connections.iter().map(|(id, (state, _))| (*id, *state.standing()));
        let oldest = |of: &dyn Fn(&Standing) -> bool| {
            let found = standings().filter(|(_, standing)| of(standing));
            found.min_by_key(|(_, standing)| standing.since).map(|(id, _)| id)
        };
        let follows = |standing: &Standing| standing.phase == Phase::Following;
        let following = standings().filter(|(_, standing)| follows(standing)).count();
        let is_crowd = following * 2 > self.limits.connections;
        oldest(&|standing| standing.phase == Phase::Waiting)
            .or_else(|| oldest(&|s| s.phase == Phase::Sending && s.moved.elapsed() >= SLOW))
            .or_else(|| oldest(&|standing| is_crowd && follows(standing)))
    }

    fn forget(&mut self, ended: &Result<(Id, ()), JoinError>) {
        self.connections.remove(&ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id));
    }
}

async fn attend(stream: TcpStream, app: Router, limits: Limits, state: Connection) {
    let app = TowerToHyperService::new(app);
    let service = service_fn(|request| {
        state.enter(Phase::Answering);
        let (answer, state) = (app.call(request), state.clone());
        async move {
            let answer = answer.await?;
            let kind = answer.headers().get(header::CONTENT_TYPE);
            let is_endless = kind.is_some_and(|kind| kind == "text/event-stream");
            state.enter(if is_endless { Phase::Following } else { Phase::Sending });
            Ok::<_, Infallible>(answer.map(|body| watched(body, state)))
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
            () = sleep(limits.request.min(limits.stall) / 8) => {
                let standing = *state.standing();
                if standing.is_overdue(&limits) {
                    tracing::debug!(at = ?standing.phase, "a slow connection is closed");
                    return;
                }
            }
        }
    }
}

/// A body in pieces: a request for the next one shows that the client has read the previous ones.
fn watched(body: Body, state: Connection) -> Body {
    let sent = Sent(state);
    let split = |mut data: Bytes| {
        let next = move || match data.len() {
            0 => None,
            length => Some(Ok::<_, axum::Error>(data.split_to(length.min(BUFFER)))),
        };
        stream::iter(std::iter::from_fn(next))
    };
    let pieces = body.into_data_stream().map_ok(split).try_flatten();
    Body::from_stream(pieces.inspect(move |_| sent.0.standing().moved = Instant::now()))
}

/// Dropped with an answer, sent or not; the connection then waits for a request.
struct Sent(Connection);

impl Drop for Sent {
    fn drop(&mut self) {
        self.0.enter(Phase::Waiting);
    }
}

#[cfg(test)]
mod tests;
