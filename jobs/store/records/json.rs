//! Records read and written: every JSON object of the store that is not a blob, sealed (`stages/spec/record.rs`).
//!
//! What looks damaged is read again, until it is sound or two reads gave the same bytes: only that is
//! damage. A record of another version is left as it is: nothing here overwrites or removes one.

use std::sync::{Arc, Mutex};
use std::{num::NonZeroUsize, str::FromStr};

use agrpo_spec::record::{self, Opened, RecordError};
use agrpo_spec::{StageDigest, StageKey, StageSpec};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use lru::LruCache;
use serde::{Serialize, de::DeserializeOwned};

use super::references::References;
use crate::{JobsError, Result, objects::Objects};

/// Specs kept in memory; one is about a kilobyte.
const SPECS: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");
/// Records read or deleted at the same time.
pub(super) const AT_ONCE: usize = 32;
/// What a person does about a damaged record without which a run can go on.
const REPAIR: &str = "agrpo run FILE --repair, with the run's file, moves it to aside/";

/// The records of a store, and what this process remembers of them.
#[derive(Clone, Debug)]
pub struct Records {
    pub(crate) objects: Arc<Objects>,
    /// Specs that this process wrote or read, so that it need not ask for them.
    pub(super) specs: Arc<Mutex<LruCache<StageDigest, StageSpec>>>,
    /// What this process knows of the blobs that runs name.
    pub references: Arc<tokio::sync::Mutex<References>>,
}

/// A kind of record.
pub(super) trait Record: Sized {
    /// What a person does about a damaged one.
    const REMEDY: &'static str;

    fn seal(&self) -> Vec<u8>;

    /// What the record of this name says, which has to be what the name says.
    fn open(name: &str, bytes: &[u8]) -> Result<Opened<Self>, RecordError>;
}

/// A kind of record that is its fields, whatever its name says.
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

/// What the file name of an object stands for.
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
    /// A record that an error speaks of.
    pub fn new(object: String, error: &JobsError) -> Self {
        let is_incompatible = matches!(error, JobsError::Incompatible(_));
        Self { object, key: None, why: error.to_string(), is_incompatible }
    }

    /// The error that it is where the record is needed.
    pub fn into_error(self) -> JobsError {
        let kind = if self.is_incompatible { JobsError::Incompatible } else { JobsError::Data };
        kind(self.why)
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

    /// The same without the specs that were read before.
    pub(crate) fn fresh(&self) -> Self {
        Self { references: Arc::clone(&self.references), ..Self::new(Arc::clone(&self.objects)) }
    }

    /// A record's value; `None` where there is none. Incompatible if another version wrote it, data error if damaged.
    pub(super) async fn get<T: Record>(&self, name: &str) -> Result<Option<T>> {
        Ok(self.find(name).await?.map(|found| found.value))
    }

    /// The same for a record that has to be there: a data error where it is not.
    pub(super) async fn need<T: Record>(&self, name: &str) -> Result<T> {
        self.get(name).await?.ok_or_else(|| {
            JobsError::Data(format!("{name} is missing in {}; {}", self.objects.url(), T::REMEDY))
        })
    }

    /// What the file names right in a folder stand for, as far as they stand for any.
    pub(super) async fn list<T: FromStr>(&self, folder: &str) -> Result<Vec<T>> {
        let names = self.objects.list(folder).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The same with its bytes.
    pub(super) async fn find<T: Record>(&self, name: &str) -> Result<Option<Found<T>>> {
        match self.objects.read(name).await? {
            Some(first) => self.open(name, first).await,
            None => Ok(None),
        }
    }

    /// The same where it was read once; `None` where it has gone since.
    pub(super) async fn open<T: Record>(
        &self,
        name: &str,
        first: Bytes,
    ) -> Result<Option<Found<T>>> {
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
                Err(JobsError::Data(format!("{name} in {url} is corrupt: {why}; {remedy}")))
            }
            Some(Err((_, RecordError::Incompatible(why)))) => {
                Err(JobsError::Incompatible(format!(
                    "{name} in {url} was written by another version of agrpo: {why}; it is left as it is: use the \
                     newest version that works on this store"
                )))
            }
        }
    }

    /// The records of these names, and those that cannot be read. An error only where the store cannot be read.
    pub(super) async fn each<T: Record>(
        &self,
        names: Vec<String>,
    ) -> Result<(Vec<T>, Vec<Unreadable>)> {
        let reads = names.into_iter().map(|name| async move {
            match self.get::<T>(&name).await {
                Ok(found) => Ok(Ok(found)),
                Err(error @ (JobsError::Data(_) | JobsError::Incompatible(_))) => {
                    Ok(Err(Unreadable::new(name, &error)))
                }
                Err(error) => Err(error),
            }
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
    pub(super) async fn readable<T: Record>(
        &self,
        name: String,
    ) -> Result<(Option<T>, Option<Unreadable>)> {
        let (mut readable, mut unreadable) = self.each(vec![name]).await?;
        Ok((readable.pop(), unreadable.pop()))
    }

    /// Writes a record over one of this version. Incompatible, and nothing written, where another version's is.
    pub(super) async fn put<T: Record>(&self, name: &str, value: &T) -> Result<()> {
        self.spare_incompatible::<T>(name).await?;
        self.objects.replace(name, value.seal().into()).await
    }

    /// Writes a record unless one stands, and answers with that; a damaged one is replaced. Incompatible where another
    /// version's stands.
    pub(super) async fn create<T: Record>(
        &self,
        name: &str,
        value: &T,
    ) -> Result<Option<Found<T>>> {
        let bytes = Bytes::from(value.seal());
        let Some(found) = self.objects.create(name, bytes.clone()).await? else { return Ok(None) };
        match self.open(name, found).await {
            Err(JobsError::Data(error)) => {
                tracing::warn!(error, "a damaged record is written again");
                self.objects.replace(name, bytes).await.map(|()| None)
            }
            Ok(None) => Err(JobsError::Unavailable(format!("{name} went as it was read"))),
            found => found,
        }
    }

    /// Removes a record; its absence is no error. Incompatible, and nothing removed, where another version's is.
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
