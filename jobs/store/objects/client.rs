//! The objects of a store, with the timeouts and retries of requests.
//!
//! Every try has a timeout that follows from its size, so a silent server becomes an error. A try whose connection
//! broke is repeated a few times; an unavailable server is retried as long as the limits say.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{collections::BTreeSet, fmt, io, path::PathBuf};

use agrpo_spec::{LARGE, Message};
use backon::Retryable;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::{Error, ObjectStore};

use super::action::Operation;
use super::answer::{Fault, classify};
use super::{errors::Backend, trust::Trust};
use crate::retry::{LONGEST, RetryPolicy, pauses};
use crate::{JobsError, Result, error::causes};

/// The timeout of a small request to a server.
const ANSWER: Duration = Duration::from_secs(20);
/// The timeout of a small operation on a disk: a busy one can take this long to flush a file.
const FLUSH: Duration = Duration::from_secs(180);
/// Bytes a second below which a transfer counts as stuck.
const SLOWEST: u64 = 1 << 20;
/// How often a request whose connection broke is sent again.
pub(super) const CUT_RETRIES: usize = 4;

/// Limits for the time and memory of operations.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a small request may take. A transfer has a second more for each MiB.
    pub answer: Duration,
    /// Blobs of more bytes than this are never read into memory as a whole.
    pub whole: u64,
    /// How long an unavailable server is retried; without it, fifteen seconds by the library.
    pub retry: Option<RetryPolicy>,
    /// A claim does not renew blobs that are younger, by the store's clock: every update claims the base, and a server's
    /// large blob is renewed by sending it again. Half of the shortest grace that is safe beside workers.
    pub young: Duration,
}

/// The objects of a store: bytes by name.
#[derive(Clone)]
pub struct Objects {
    pub(super) inner: Arc<dyn ObjectStore>,
    /// Where a local store's objects are files.
    folder: Option<PathBuf>,
    pub(super) backend: Arc<Backend>,
    pub(crate) limits: Limits,
    trust: Arc<Trust>,
    /// What this process has logged once and does not log again.
    pub(super) logged: Arc<Mutex<BTreeSet<String>>>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Objects").field(&self.url()).finish()
    }
}

/// Why a try failed.
pub(super) struct TryError {
    error: JobsError,
    /// Whether the connection broke during the request, so that repeating it may help.
    was_cut: bool,
}

impl From<JobsError> for TryError {
    fn from(error: JobsError) -> Self {
        Self { error, was_cut: false }
    }
}

impl From<TryError> for JobsError {
    fn from(failed: TryError) -> Self {
        failed.error
    }
}

impl Objects {
    pub(crate) fn new(
        inner: Arc<dyn ObjectStore>,
        folder: Option<PathBuf>,
        backend: Backend,
    ) -> Self {
        let answer = if folder.is_some() { FLUSH } else { ANSWER };
        let young = Duration::from_secs(1800);
        let limits = Limits { answer, whole: LARGE, retry: None, young };
        let backend = Arc::new(backend);
        Self { inner, folder, backend, limits, trust: Arc::default(), logged: Arc::default() }
    }

    /// Whether a blob of so many bytes is read in windows and never as a whole.
    pub(crate) fn is_streamed(&self, size: u64) -> bool {
        size > self.limits.whole && (self.folder.is_some() || self.is_remote())
    }

    /// The file that is an object of a local store.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(name))
    }

    /// The store's address, in full.
    pub fn url(&self) -> &str {
        &self.backend.url
    }

    /// Whether they are on a server.
    pub fn is_remote(&self) -> bool {
        self.backend.bucket.is_some()
    }

    /// Retries a request whose connection broke, and while a server is unavailable, as long as the limits say.
    pub(super) async fn with_retry<T, F>(&self, request: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, TryError>>,
    {
        let policy = self.limits.retry.as_ref().filter(|_| self.is_remote());
        let (begin, mut cuts) = (Instant::now(), 0);
        let tries = request.retry(pauses(LONGEST)).when(|failed: &TryError| {
            cuts += usize::from(failed.was_cut);
            let is_worth_it = |policy: &RetryPolicy| policy.lasts(begin.elapsed());
            failed.was_cut && cuts <= CUT_RETRIES
                || failed.error.may_pass() && policy.is_some_and(is_worth_it)
        });
        let tries = tries.notify(|missed, pause| match missed.was_cut {
            true => tracing::debug!(error = %missed.error, ?pause, "the connection to the store broke; retrying"),
            false => tracing::warn!(error = %missed.error, ?pause, "the store is unavailable; retrying"),
        });
        Ok(tries.await?)
    }

    /// Applies the timeout of an operation on `size` bytes.
    pub(super) async fn within<T>(
        &self,
        size: u64,
        operation: Operation<'_>,
        work: impl Future<Output = T>,
    ) -> Result<T> {
        let limit = self.limits.answer + Duration::from_secs(size / SLOWEST);
        let ended = tokio::time::timeout(limit, work).await;
        ended.map_err(|elapsed| {
            let (url, seconds) = (self.url(), limit.as_secs());
            let text = format!(
                "{url}: cannot {operation}: no answer within {seconds} s; check that the store is up"
            );
            JobsError::Unavailable(Message::caused_by(text, elapsed))
        })
    }

    /// One try of an operation on `size` bytes.
    pub(super) async fn attempt<T>(
        &self,
        size: u64,
        operation: Operation<'_>,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, TryError> {
        let ended = self.within(size, operation, work).await?;
        if self.is_remote() && ended.is_ok() {
            self.trust.worked(operation.0);
        }
        ended.map_err(|error| {
            // object_store itself retries answers and refused connections.
            let is_cut = |cut: &HttpError| cut.kind() != HttpErrorKind::Connect;
            let was_cut = causes(&error).filter_map(|cause| cause.downcast_ref()).any(is_cut);
            TryError { error: self.explain(operation, error), was_cut }
        })
    }

    /// The same for an object that may be missing: `None`.
    pub(super) async fn ask<T>(
        &self,
        operation: Operation<'_>,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Option<T>, TryError> {
        let found = async {
            match work.await {
                Err(Error::NotFound { source, .. })
                    if !self.is_remote() || !matches!(classify(&*source), Fault::NoBucket) =>
                {
                    Ok(None)
                }
                found => found.map(Some),
            }
        };
        self.attempt(0, operation, found).await
    }

    /// What a failed operation on a file of a local store means.
    pub(crate) fn local(&self, operation: Operation<'_>, error: io::Error) -> JobsError {
        let error = Error::Generic { store: "folder", source: Box::new(error) };
        self.explain(operation, error)
    }

    fn explain(&self, operation: Operation<'_>, error: Error) -> JobsError {
        let is_trusted = self.is_remote() && self.trust.holds(operation.0);
        self.backend.explain(operation, error, is_trusted)
    }
}
