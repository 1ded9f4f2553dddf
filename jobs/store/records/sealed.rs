//! Records read and written: every JSON object of the store that is not a blob, sealed (`stages/spec/record.rs`).
//!
//! What looks damaged is read again, until it is sound or two reads gave the same bytes: only that is
//! damage. A record of another version is left as it is: nothing here overwrites or removes one.

use agrpo_spec::StageKey;
use agrpo_spec::record::{self, Opened, RecordError};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::JobsError;
use crate::store::Store;

/// Records read at the same time.
const AT_ONCE: usize = 32;
/// What a person does about a damaged record without which a run can go on.
pub(crate) const REPAIR: &str = "agrpo run FILE --repair, with the run's file, moves it to aside/";

/// A record with the bytes that it was read from.
#[derive(Debug)]
pub(crate) struct Record<T> {
    pub(crate) value: T,
    pub(crate) bytes: Bytes,
    pub(crate) is_sealed: bool,
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
        if self.is_incompatible {
            JobsError::Incompatible(self.why)
        } else {
            JobsError::Data(self.why)
        }
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

/// What could be read of several records, and what could not.
pub(crate) fn sorted<T>(
    found: Vec<(String, Result<Option<T>, JobsError>)>,
) -> (Vec<T>, Vec<Unreadable>) {
    let (mut readable, mut unreadable) = (vec![], vec![]);
    for (name, found) in found {
        match found {
            Ok(found) => readable.extend(found),
            Err(error) => unreadable.push(Unreadable::new(name, &error)),
        }
    }
    (readable, unreadable)
}

/// Where a record is, and what a person does about one that is damaged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) name: &'a str,
    pub(crate) remedy: &'static str,
}

impl Store {
    /// A record's value; `None` where there is none. Incompatible if another version wrote it, data error
    /// if it is damaged.
    pub(crate) async fn record<T: DeserializeOwned>(
        &self,
        place: Place<'_>,
    ) -> Result<Option<T>, JobsError> {
        let found = self.read_record(place, record::open).await?;
        Ok(found.map(|record| record.value))
    }

    /// Records of one kind, each with what reading it came to. An error only where the store
    /// could not be asked.
    pub(crate) async fn each_record<T: DeserializeOwned>(
        &self,
        names: Vec<String>,
        remedy: &'static str,
    ) -> Result<Vec<(String, Result<Option<T>, JobsError>)>, JobsError> {
        let reads = names.into_iter().map(|name| async move {
            match self.record::<T>(Place { name: &name, remedy }).await {
                found @ (Ok(_) | Err(JobsError::Data(_) | JobsError::Incompatible(_))) => {
                    Ok((name, found))
                }
                Err(error) => Err(error),
            }
        });
        stream::iter(reads).buffered(AT_ONCE).try_collect().await
    }

    /// The same with whatever else its name says of a record.
    pub(crate) async fn read_record<T>(
        &self,
        place: Place<'_>,
        open: impl Fn(&[u8]) -> Result<Opened<T>, RecordError>,
    ) -> Result<Option<Record<T>>, JobsError> {
        match self.backend.read(place.name).await? {
            Some(first) => self.open_record(place, first, open).await,
            None => Ok(None),
        }
    }

    /// The same where it was read once; `None` where it has gone since.
    pub(crate) async fn open_record<T>(
        &self,
        place: Place<'_>,
        first: Bytes,
        open: impl Fn(&[u8]) -> Result<Opened<T>, RecordError>,
    ) -> Result<Option<Record<T>>, JobsError> {
        let Place { name, remedy } = place;
        let url = self.url();
        let (mut bytes, mut before) = (first, vec![]);
        loop {
            let error = match open(&bytes) {
                Ok(Opened { value, is_sealed }) => {
                    if !before.is_empty() {
                        self.log_bad_read(name);
                    }
                    return Ok(Some(Record { value, bytes, is_sealed }));
                }
                Err(error) => error,
            };
            if self.is_certain(name, &mut before, bytes)? {
                return Err(match error {
                    RecordError::Damaged(why) => {
                        JobsError::Data(format!("{name} in {url} is corrupt: {why}; {remedy}"))
                    }
                    RecordError::Incompatible(why) => JobsError::Incompatible(format!(
                        "{name} in {url} was written by another version of agrpo: {why}; it is left as \
                         it is: use the newest version that works on this store"
                    )),
                });
            }
            let Some(again) = self.backend.read(name).await? else { return Ok(None) };
            bytes = again;
        }
    }

    /// Writes a record, whatever of this version was there. Incompatible, and nothing written, where
    /// another version's is.
    pub(crate) async fn replace_record<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        value: &T,
    ) -> Result<(), JobsError> {
        self.spare_incompatible::<T>(name).await?;
        self.backend.replace(name, record::seal(value).into()).await
    }

    /// Removes a record; its absence is no error. Incompatible, and nothing removed, where another
    /// version's is.
    pub(crate) async fn delete_record<T: DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<(), JobsError> {
        self.spare_incompatible::<T>(name).await?;
        self.backend.delete(name).await
    }

    async fn spare_incompatible<T: DeserializeOwned>(&self, name: &str) -> Result<(), JobsError> {
        match self.record::<T>(Place { name, remedy: "" }).await {
            Ok(_) | Err(JobsError::Data(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
