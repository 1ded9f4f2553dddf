//! Records read and written: every JSON object of the store that is not a blob, sealed (`stages/spec/record.rs`).
//!
//! What looks damaged is read again, until it is sound or two reads gave the same bytes: only that is
//! damage. A record of another version is left as it is: nothing here overwrites or removes one.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use agrpo_spec::record::{self, Opened, RecordError};
use agrpo_spec::{Manifest, Retention, StageKey};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Control, Failure, LetGo, Rewound, Store};
use crate::error::JobsError;
use crate::versions::Versions;

/// How often an object is read at most until two reads agree or one is sound.
pub(super) const READS: usize = 8;

/// Records read at the same time.
const AT_ONCE: usize = 32;
/// What a person does about a damaged record without which a run can go on.
pub(super) const REPAIR: &str = "agrpo run FILE --repair, with the run's file, moves it to aside/";

/// What this process has said in its log and need not say again.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<BTreeSet<String>>);

impl Told {
    /// Whether this is the first time.
    pub(super) fn is_news(&self, what: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(what.to_owned())
    }
}

/// A record with the bytes that it was read from.
#[derive(Debug)]
pub(super) struct Record<T> {
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
    pub(crate) fn new(object: String, error: &JobsError) -> Self {
        let is_incompatible = matches!(error, JobsError::Incompatible(_));
        Self { object, key: None, why: error.to_string(), is_incompatible }
    }

    pub(crate) fn into_error(self) -> JobsError {
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
pub(super) fn sorted<T>(
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
pub(super) struct Place<'a> {
    pub(super) name: &'a str,
    pub(super) remedy: &'static str,
}

impl Store {
    /// A record's value; `None` where there is none. Incompatible if another version wrote it, data error
    /// if it is damaged.
    pub(super) async fn record<T: DeserializeOwned>(
        &self,
        place: Place<'_>,
    ) -> Result<Option<T>, JobsError> {
        let found = self.read_record(place, record::open).await?;
        Ok(found.map(|record| record.value))
    }

    /// Records of one kind, each with what reading it came to. An error only where the store
    /// could not be asked.
    pub(super) async fn each_record<T: DeserializeOwned>(
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
    pub(super) async fn read_record<T>(
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
    pub(super) async fn open_record<T>(
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
                        self.tell_bad_read(name);
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

    /// Notes what a read of an object gave that is not right, beside what reads before it gave. True where one
    /// of these gave the same, so that it is what is stored; an error where no two of [`READS`] reads agree.
    pub(super) fn is_certain<T: PartialEq>(
        &self,
        name: &str,
        before: &mut Vec<T>,
        found: T,
    ) -> Result<bool, JobsError> {
        if before.contains(&found) {
            return Ok(true);
        }
        before.push(found);
        if before.len() < READS {
            return Ok(false);
        }
        Err(self.unsteady(name))
    }

    /// No two reads of an object agree.
    pub(super) fn unsteady(&self, name: &str) -> JobsError {
        let url = self.url();
        JobsError::Unavailable(format!(
            "{name} in {url}: {READS} reads gave {READS} different contents; check the disk, or what lies \
             between this machine and the store"
        ))
    }

    /// One read of an object gave other bytes than a later one, which was right.
    pub(super) fn tell_bad_read(&self, name: &str) {
        if self.told.is_news("bad read") {
            let url = self.url();
            tracing::warn!(
                name,
                url,
                "one read gave wrong bytes, and the next was right; said once"
            );
        } else {
            tracing::debug!(name, "one read gave wrong bytes, and the next was right");
        }
    }

    /// Writes a record, whatever of this version was there. Incompatible, and nothing written, where
    /// another version's is.
    pub(super) async fn replace_record<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        value: &T,
    ) -> Result<(), JobsError> {
        self.spare_incompatible::<T>(name).await?;
        self.backend.replace(name, record::seal(value).into()).await
    }

    /// Removes a record; its absence is no error. Incompatible, and nothing removed, where another
    /// version's is.
    pub(super) async fn delete_record<T: DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<(), JobsError> {
        self.spare_incompatible::<T>(name).await?;
        self.backend.delete(name).await
    }

    /// Reads the record of this name, whichever kind it is. False: no digest vouches for it; `None`: it is
    /// not there, or is no record.
    pub(crate) async fn inspect(&self, name: &str) -> Result<Option<bool>, JobsError> {
        async fn of<T: DeserializeOwned>(
            store: &Store,
            name: &str,
        ) -> Result<Option<bool>, JobsError> {
            let place = Place { name, remedy: REPAIR };
            let found = store.read_record(place, record::open::<T>).await?;
            Ok(found.map(|record| record.is_sealed))
        }
        let parts: Vec<&str> = name.split('/').collect();
        match parts[..] {
            ["stages", stage] => {
                let Ok(stage) = stage.parse() else { return Ok(None) };
                let open = |bytes: &[u8]| Manifest::open(stage, bytes);
                let found = self.read_record(super::manifests::place(name), open).await?;
                Ok(found.map(|record| record.is_sealed))
            }
            ["specs", stage] => {
                let Ok(stage) = stage.parse() else { return Ok(None) };
                let open = |bytes: &[u8]| super::specs::open(stage, bytes);
                let found = self.read_record(super::specs::place(name), open).await?;
                Ok(found.map(|record| record.is_sealed))
            }
            ["runs", run, "run.json"] => {
                let Ok(run) = run.parse() else { return Ok(None) };
                let open = |bytes: &[u8]| super::runs::open_run(run, bytes);
                let found = self.read_record(super::runs::run_place(name), open).await?;
                Ok(found.map(|record| record.is_sealed))
            }
            ["runs", run, "policies", file] => {
                let Ok(run) = run.parse() else { return Ok(None) };
                // Those from before they were sealed are written anew, so they are not counted.
                Ok(self.noted_stage(run, file, name).await?.map(|_| true))
            }
            ["runs", _, "versions.json"] => of::<Versions>(self, name).await,
            ["runs", _, "control.json"] => of::<Control>(self, name).await,
            ["runs", _, "retention.json"] => of::<Retention>(self, name).await,
            ["runs", _, "failures", _] => of::<Failure>(self, name).await,
            ["runs", _, "dropped", _] => of::<LetGo>(self, name).await,
            ["runs", _, "rewound", _] => of::<Rewound>(self, name).await,
            _ => Ok(None),
        }
    }

    async fn spare_incompatible<T: DeserializeOwned>(&self, name: &str) -> Result<(), JobsError> {
        match self.record::<T>(Place { name, remedy: "" }).await {
            Ok(_) | Err(JobsError::Data(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
