//! A store's backend: where its objects are, and how long any operation on them may take.
//!
//! Every try of an operation ends within a time that follows from its size, so a silent server becomes an error; a
//! server that is away is asked again as the retry policy says. Reads and writes nothing itself: `operations.rs` does.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agrpo_spec::LARGE;
use object_store::{Error, ObjectStore};

use super::errors::Place;
use super::reconnect::{Missed, was_cut};
use super::trust::{RetryPolicy, Trust};
use crate::error::JobsError;
use crate::retry::with_retry;

/// A server that has not answered a small request by then is not going to.
const ANSWER: Duration = Duration::from_secs(20);
/// A disk that others keep busy can take this long to flush a file.
const FLUSH: Duration = Duration::from_secs(180);
/// Bytes a second below which a transfer counts as stuck.
const SLOWEST: u64 = 1 << 20;

/// What an operation is given of time and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a small request may take. A transfer has a second more for each MiB.
    pub answer: Duration,
    /// Blobs of more bytes than this are never read into memory as a whole.
    pub whole: u64,
}

#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// Where a local store's objects are files.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) place: Arc<Place>,
    limits: Limits,
    trust: Arc<Trust>,
    /// How a server that is away is asked again; without it, the caller decides.
    policy: Option<RetryPolicy>,
}

impl Backend {
    pub(crate) fn new(
        objects: Arc<dyn ObjectStore>,
        folder: Option<PathBuf>,
        place: Place,
    ) -> Self {
        let answer = if folder.is_some() { FLUSH } else { ANSWER };
        let (place, trust) = (Arc::new(place), Arc::default());
        let limits = Limits { answer, whole: LARGE };
        Self { objects, folder, place, limits, trust, policy: None }
    }

    /// The same backend, which waits for a server that is away. The file system of a local store is not waited for.
    pub(crate) fn with_retry_policy(&self, policy: RetryPolicy) -> Self {
        Self { policy: self.is_remote().then_some(policy), ..self.clone() }
    }

    /// Tries again while the server is away, as long as the retry policy says.
    pub(crate) async fn with_retry<T, F>(&self, exchange: impl FnMut() -> F) -> Result<T, JobsError>
    where
        F: Future<Output = Result<T, JobsError>>,
    {
        let mut exchange = exchange;
        match &self.policy {
            Some(policy) => with_retry(policy.limit, || !*policy.stop.borrow(), exchange).await,
            None => exchange().await,
        }
    }

    /// The same backend with other limits.
    pub(crate) fn with_limits(&self, limits: Limits) -> Self {
        Self { limits, ..self.clone() }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Blobs above this size are not read as a whole.
    pub(crate) fn large(&self) -> u64 {
        self.limits.whole
    }

    /// Whether the store lives and dies with the process.
    pub(crate) fn is_memory(&self) -> bool {
        self.folder.is_none() && !self.is_remote()
    }

    /// The file that is an object of a local store.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(name))
    }

    /// What a failed operation on a file of a local store means.
    pub(crate) fn local(&self, action: &str, error: io::Error) -> JobsError {
        let error = Error::Generic { store: "folder", source: Box::new(error) };
        self.explain(action, &error)
    }

    pub(crate) fn url(&self) -> &str {
        self.place.url()
    }

    pub(crate) fn is_remote(&self) -> bool {
        self.bucket().is_some()
    }

    pub(crate) fn bucket(&self) -> Option<&str> {
        self.place.bucket()
    }

    /// Ends an operation on `size` bytes that takes too long.
    pub(crate) async fn within<T>(
        &self,
        size: u64,
        action: &str,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, JobsError> {
        let limit = self.limits.answer + Duration::from_secs(size / SLOWEST);
        let ended = tokio::time::timeout(limit, operation).await;
        let ended = ended.map_err(|_| self.place.silent(action, limit))?;
        // That there is no such object is an answer to who asks for it.
        let is_absent = matches!(ended, Err(Error::NotFound { .. }));
        let asks = action.starts_with("read ") || action.starts_with("look ");
        if self.is_remote() && (ended.is_ok() || is_absent && asks) {
            self.trust.worked(action);
        }
        Ok(ended)
    }

    /// One try of an operation on `size` bytes.
    pub(crate) async fn attempt<T>(
        &self,
        size: u64,
        action: &str,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Missed> {
        match self.within(size, action, operation).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(self.missed(action, &error)),
            Err(error) => Err(Missed { error, was_cut: false }),
        }
    }

    pub(crate) fn missed(&self, action: &str, error: &Error) -> Missed {
        Missed { error: self.explain(action, error), was_cut: was_cut(error) }
    }

    pub(crate) fn explain(&self, action: &str, error: &Error) -> JobsError {
        let is_trusted = self.is_remote() && self.trust.holds(action);
        self.place.explain(action, error, is_trusted)
    }
}
