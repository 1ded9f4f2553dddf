//! Reads and writes records: every JSON object of the store that is not a blob, sealed (`stages/spec/record.rs`).
//!
//! A record counts as damaged only where two reads gave the same damaged bytes. A record of another version is left as
//! it is: nothing here overwrites or removes one.

use std::sync::{Arc, Mutex};
use std::{num::NonZeroUsize, str::FromStr};

use agrpo_spec::record::{self, Opened, RecordError};
use agrpo_spec::{StageDigest, StageKey, StageSpec};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use lru::LruCache;
use serde::{Serialize, de::DeserializeOwned};

use super::references::References;
use crate::{JobsError, Result, objects::Objects, paths, readable};

/// Specs cached in memory; one is about a kilobyte.
const SPECS: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");
/// Records read or deleted at the same time.
pub(super) const AT_ONCE: usize = 32;
/// What a user can do about a damaged record without which a run can go on.
const REPAIR: &str = "agrpo run FILE --repair, with the run's file, moves it to aside/";

/// The records of a store, and this process's caches of them.
#[derive(Clone, Debug)]
pub struct Records {
    pub(crate) objects: Arc<Objects>,
    /// Specs that this process wrote or read.
    pub(super) specs: Arc<Mutex<LruCache<StageDigest, StageSpec>>>,
    /// The blobs that runs name, as far as this process has read them.
    pub references: Arc<tokio::sync::Mutex<References>>,
}

/// A kind of record.
pub(super) trait Record: Sized {
    /// What a user can do about a damaged one.
    const REMEDY: &'static str;

    fn seal(&self) -> Vec<u8>;

    /// Parses the record of this name. Damaged where its content contradicts the name.
    fn open(name: &str, bytes: &[u8]) -> Result<Opened<Self>, RecordError>;
}

/// A kind of record whose content does not depend on its name.
pub(super) trait Fields: Serialize + DeserializeOwned {
    const REMEDY: &'static str = REPAIR;
}

impl<T: Fields> Record for T {
    const REMEDY: &'static str = T::REMEDY;

    fn seal(&self) -> Vec<u8> {
        record::seal(self)
    }

    fn open(_: &str, bytes: &[u8]) -> Result<Opened<Self>, RecordError> {
        record::open(bytes)
    }
}

/// Parses the file name of an object.
pub(super) fn named<T: FromStr>(name: &str) -> Result<T, RecordError> {
    let file = name.split('/').nth(1).unwrap_or_default();
    file.parse().map_err(|_| RecordError::Damaged("its name is none of a record".to_owned()))
}

/// A record with the bytes that it was read from.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) bytes: Bytes,
    pub(super) is_sealed: bool,
}

/// The record of a name, if there is one.
type Lookup<T> = Result<Option<Found<T>>>;
/// What can be read of several records, and the records that cannot be read.
pub(super) type Split<T> = Result<(Vec<T>, Vec<Unreadable>)>;
/// The same for one record.
pub(super) type Readable<T> = Result<(Option<T>, Option<Unreadable>)>;

/// A record that cannot be read: damaged, missing, or another version's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Its name in the store.
    pub object: String,
    /// The stage's place in the run, where it is a stage's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<StageKey>,
    /// What is wrong with it, and what to do.
    pub why: String,
    /// Whether it is another version's.
    #[serde(skip)]
    pub is_incompatible: bool,
}

impl Unreadable {
    /// The record of this name, which could not be read for this error.
    pub fn new(object: String, error: &JobsError) -> Self {
        let is_incompatible = matches!(error, JobsError::Incompatible(_));
        Self { object, key: None, why: error.to_string(), is_incompatible }
    }

    /// The stage of whose failure it is the record.
    pub fn failed_stage(&self) -> Option<StageDigest> {
        paths::failed_stage(&self.object)
    }

    /// Whether it says whether a run is paused or cancelled.
    pub fn is_control(&self) -> bool {
        paths::is_control(&self.object)
    }

    /// The error of an operation that needs the record.
    pub fn into_error(self) -> JobsError {
        let kind = if self.is_incompatible { JobsError::Incompatible } else { JobsError::Data };
        kind(self.why.into())
    }
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.key {
            Some(key) => write!(f, "{key}: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

impl Records {
    pub(crate) fn new(objects: Arc<Objects>) -> Self {
        let specs = Arc::new(Mutex::new(LruCache::new(SPECS)));
        Self { objects, specs, references: Arc::default() }
    }

    /// The same with an empty cache of specs.
    pub(crate) fn fresh(&self) -> Self {
        Self { references: Arc::clone(&self.references), ..Self::new(Arc::clone(&self.objects)) }
    }

    /// A record's value; `None` where there is none. Incompatible if another version wrote it, data error if damaged.
    pub(super) async fn get<T: Record>(&self, name: &str) -> Result<Option<T>> {
        Ok(self.find(name).await?.map(|found| found.value))
    }

    /// The same for a record that has to exist: a data error where it does not.
    pub(super) async fn need<T: Record>(&self, name: &str) -> Result<T> {
        self.get(name).await?.ok_or_else(|| {
            JobsError::data(format!("{name} is missing in {}; {}", self.objects.url(), T::REMEDY))
        })
    }

    /// The error about an object of this name that is not there.
    pub fn missing(&self, name: &str) -> JobsError {
        JobsError::data(format!("{name} is missing in {}", self.objects.url()))
    }

    /// The file names directly in a folder, parsed; those that cannot be parsed are left out.
    pub(super) async fn list<T: FromStr>(&self, folder: &str) -> Result<Vec<T>> {
        let names = self.objects.list(folder).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The same with its bytes.
    pub(super) async fn find<T: Record>(&self, name: &str) -> Lookup<T> {
        match self.objects.read(name).await? {
            Some(first) => self.open(name, first).await,
            None => Ok(None),
        }
    }

    /// The same for a record that was read once; `None` where it has been deleted since.
    pub(super) async fn open<T: Record>(&self, name: &str, first: Bytes) -> Lookup<T> {
        let (url, remedy, mut first) = (self.objects.url(), T::REMEDY, Some(first));
        let read = move || {
            let first = first.take();
            async move {
                let bytes = if first.is_some() { first } else { self.objects.read(name).await? };
                Ok(bytes.map(|bytes| match T::open(name, &bytes) {
                    Ok(Opened { value, is_sealed }) => Ok(Found { value, bytes, is_sealed }),
                    Err(error) => Err((bytes, error)),
                }))
            }
        };
        match self.objects.reread(name, read).await? {
            Some(Ok(found)) => Ok(Some(found)),
            None => Ok(None),
            Some(Err((_, RecordError::Damaged(why)))) => {
                Err(JobsError::data(format!("{name} in {url} is corrupt: {why}; {remedy}")))
            }
            Some(Err((_, RecordError::Incompatible(why)))) => {
                Err(JobsError::incompatible(format!(
                    "{name} in {url} was written by another version of agrpo: {why}; it is left as it is: use the \
                     newest version that works on this store"
                )))
            }
        }
    }

    /// The records of these names, and those that cannot be read. An error only where the store cannot be read.
    pub(super) async fn each<T: Record>(&self, names: Vec<String>) -> Split<T> {
        let reads = names.into_iter().map(|name| async move {
            let found = readable(self.get::<T>(&name).await)?;
            Ok::<_, JobsError>(found.map_err(|error| Unreadable::new(name, &error)))
        });
        let mut reads = stream::iter(reads).buffered(AT_ONCE);
        let (mut readable, mut unreadable) = (vec![], vec![]);
        while let Some(found) = reads.try_next().await? {
            match found {
                Ok(found) => readable.extend(found),
                Err(why) => unreadable.push(why),
            }
        }
        Ok((readable, unreadable))
    }

    /// A record, and why it cannot be read. An error only where the store cannot be read.
    pub(super) async fn readable<T: Record>(&self, name: String) -> Readable<T> {
        let (mut readable, mut unreadable) = self.each(vec![name]).await?;
        Ok((readable.pop(), unreadable.pop()))
    }

    /// Writes or overwrites a record. Incompatible, and nothing is written, where another version's exists.
    pub(super) async fn put<T: Record>(&self, name: &str, value: &T) -> Result<()> {
        self.spare_incompatible::<T>(name).await?;
        self.objects.replace(name, value.seal().into()).await
    }

    /// Creates a record, or returns the one that exists; a damaged one is replaced. Incompatible where another
    /// version's exists.
    pub(super) async fn create<T: Record>(&self, name: &str, value: &T) -> Lookup<T> {
        let bytes = Bytes::from(value.seal());
        let Some(found) = self.objects.create(name, bytes.clone()).await? else { return Ok(None) };
        match self.open(name, found).await {
            Err(JobsError::Data(error)) => {
                tracing::warn!(error = error.as_str(), "overwriting a damaged record");
                self.objects.replace(name, bytes).await.map(|()| None)
            }
            Ok(None) => {
                Err(JobsError::unavailable(format!("{name} was deleted while it was read")))
            }
            found => found,
        }
    }

    /// Removes a record; its absence is no error. Incompatible, and nothing is removed, where it is another version's.
    pub(super) async fn delete<T: Record>(&self, name: &str) -> Result<()> {
        self.spare_incompatible::<T>(name).await?;
        self.objects.delete(name).await
    }

    async fn spare_incompatible<T: Record>(&self, name: &str) -> Result<()> {
        match self.get::<T>(name).await {
            Ok(_) | Err(JobsError::Data(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
