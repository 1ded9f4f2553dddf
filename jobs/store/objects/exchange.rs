//! The objects of a store, and one exchange with it: how long it may take, and when it is tried again.
//!
//! Every try ends within a time that follows from its size, so a silent server becomes an error. A try whose
//! connection broke is repeated a few times; a server that is away is asked again as long as the limits say.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{collections::BTreeSet, fmt, io, path::PathBuf};

use agrpo_spec::LARGE;
use backon::Retryable;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::{Error, ObjectStore};

use super::answer::{Said, said};
use super::{errors::Place, trust::Trust};
use crate::retry::{LONGEST, RetryPolicy, pauses};
use crate::{JobsError, Result, error::causes};

/// A server that has not answered a small request by then is not going to.
const ANSWER: Duration = Duration::from_secs(20);
/// A disk that others keep busy can take this long to flush a file.
const FLUSH: Duration = Duration::from_secs(180);
/// Bytes a second below which a transfer counts as stuck.
const SLOWEST: u64 = 1 << 20;
/// How often a request whose connection broke is sent again.
pub(super) const AGAIN: usize = 4;

const YOUNG: Duration = Duration::from_secs(600);

/// What an operation is given of time and memory.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a small request may take. A transfer has a second more for each MiB.
    pub answer: Duration,
    /// Blobs of more bytes than this are never read into memory as a whole.
    pub whole: u64,
    /// How long a server that is away is asked again; without it, fifteen seconds by the library.
    pub retry: Option<RetryPolicy>,
    /// A claimed blob that is younger, by the store's own clock, is left alone: a base that every update hands on would
    /// otherwise be made young, and hashed again by others, every time. Far below the grace of any gc.
    pub young: Duration,
}

/// The objects of a store: bytes by name.
#[derive(Clone)]
pub struct Objects {
    pub(super) inner: Arc<dyn ObjectStore>,
    /// Where a local store's objects are files.
    folder: Option<PathBuf>,
    pub(super) place: Arc<Place>,
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
pub(super) struct Missed {
    error: JobsError,
    /// Whether the connection broke in the middle, so that sending it again may help.
    was_cut: bool,
}

impl From<JobsError> for Missed {
    fn from(error: JobsError) -> Self {
        Self { error, was_cut: false }
    }
}

impl From<Missed> for JobsError {
    fn from(missed: Missed) -> Self {
        missed.error
    }
}

impl Objects {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, folder: Option<PathBuf>, place: Place) -> Self {
        let answer = if folder.is_some() { FLUSH } else { ANSWER };
        let limits = Limits { answer, whole: LARGE, retry: None, young: YOUNG };
        let place = Arc::new(place);
        Self { inner, folder, place, limits, trust: Arc::default(), logged: Arc::default() }
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
        &self.place.url
    }

    /// Whether a server holds them.
    pub fn is_remote(&self) -> bool {
        self.place.bucket.is_some()
    }

    /// Tries again where a connection broke, and while a server is away, as long as the limits say.
    pub(super) async fn with_retry<T, F>(&self, exchange: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Missed>>,
    {
        let policy = self.limits.retry.as_ref().filter(|_| self.is_remote());
        let (begin, mut cuts) = (Instant::now(), 0);
        let tries = exchange.retry(pauses(LONGEST)).when(|missed: &Missed| {
            cuts += usize::from(missed.was_cut);
            let is_worth_it = |policy: &RetryPolicy| policy.lasts(begin.elapsed());
            missed.was_cut && cuts <= AGAIN
                || missed.error.may_pass() && policy.is_some_and(is_worth_it)
        });
        let tries = tries.notify(|missed, pause| match missed.was_cut {
            true => tracing::debug!(error = %missed.error, ?pause, "a connection broke; once more"),
            false => tracing::warn!(error = %missed.error, ?pause, "trying again"),
        });
        Ok(tries.await?)
    }

    /// Ends an operation on `size` bytes that takes too long.
    pub(super) async fn within<T>(
        &self,
        size: u64,
        action: &str,
        operation: impl Future<Output = T>,
    ) -> Result<T> {
        let limit = self.limits.answer + Duration::from_secs(size / SLOWEST);
        let ended = tokio::time::timeout(limit, operation).await;
        ended.map_err(|_| {
            let (url, seconds) = (self.url(), limit.as_secs());
            JobsError::Unavailable(format!(
                "{url}: cannot {action}: no answer within {seconds} s; check that the store is up"
            ))
        })
    }

    /// One try of an operation on `size` bytes.
    pub(super) async fn attempt<T>(
        &self,
        size: u64,
        action: &str,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Missed> {
        let ended = self.within(size, action, operation).await?;
        if self.is_remote() && ended.is_ok() {
            self.trust.worked(action);
        }
        ended.map_err(|error| {
            // object_store itself retries answers and refused connections.
            let is_cut = |cut: &HttpError| cut.kind() != HttpErrorKind::Connect;
            let was_cut = causes(&error).filter_map(|cause| cause.downcast_ref()).any(is_cut);
            Missed { error: self.explain(action, &error), was_cut }
        })
    }

    /// The same for an object that may not be there, which is an answer to who asks: `None`.
    pub(super) async fn ask<T>(
        &self,
        action: &str,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> Result<Option<T>, Missed> {
        let found = async {
            match operation.await {
                Err(Error::NotFound { source, .. })
                    if !self.is_remote() || !matches!(said(&*source), Said::NoBucket) =>
                {
                    Ok(None)
                }
                found => found.map(Some),
            }
        };
        self.attempt(0, action, found).await
    }

    /// What a failed operation on a file of a local store means.
    pub(crate) fn local(&self, action: &str, error: io::Error) -> JobsError {
        let error = Error::Generic { store: "folder", source: Box::new(error) };
        self.explain(action, &error)
    }

    fn explain(&self, action: &str, error: &Error) -> JobsError {
        let is_trusted = self.is_remote() && self.trust.holds(action);
        self.place.explain(action, error, is_trusted)
    }
}
