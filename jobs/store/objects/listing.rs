//! Listings of a server: complete, or an error.
//!
//! Listings decide what gc deletes. The library follows continuation tokens, but does not show whether an answer was
//! marked as truncated: a server that truncates without a token would look complete. So the server is asked once more
//! for what comes after the last name. Local stores are in `local.rs`.

use std::{collections::BTreeSet, time::Duration};

use futures::TryStreamExt;
use object_store::{ObjectStore, path::Path};

use super::action::{Action, Operation};
use super::client::{Objects, TryError};
use super::local::Entry;
use crate::{JobsError, Result};

/// Objects below one folder, beyond which a listing counts as endless. Each takes about 200 bytes of memory.
const MOST: usize = 100_000_000;
/// Listings in a row that lack the same object before the server is refused for it.
const ROUNDS: u32 = 3;
/// The pause after the first of those listings; it grows by as much with each.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 200 });

/// The name of an entry directly in a folder, and whether that is a folder.
type Part = (String, bool);

impl Objects {
    /// Every object below a folder of a server.
    pub(crate) async fn listed(&self, folder: &str) -> Result<Vec<Entry>> {
        let last = |entries: &[Entry]| entries.iter().map(|entry| &entry.name).max().cloned();
        self.with_retry(|| self.whole(folder, || self.list_once(folder), last)).await
    }

    /// The names of the folders directly in a folder of a server.
    pub(crate) async fn listed_folders(&self, folder: &str) -> Result<Vec<String>> {
        let last = |parts: &[Part]| match parts.last() {
            // All names in the last folder sort before its name followed by `0`, the character after `/`.
            Some((name, true)) => Some(format!("{folder}/{name}0")),
            Some((name, false)) => Some(format!("{folder}/{name}")),
            None => Some(folder.to_owned()),
        };
        let list = || self.list_parts(folder);
        let parts = self.with_retry(|| self.whole(folder, list, last)).await?.into_iter();
        Ok(parts.filter(|(_, is_folder)| *is_folder).map(|(name, _)| name).collect())
    }

    /// A complete listing. What is written meanwhile may be in it or not.
    async fn whole<T, F: Future<Output = Result<Vec<T>, TryError>>>(
        &self,
        folder: &str,
        list: impl Fn() -> F,
        last: impl Fn(&[T]) -> Option<String>,
    ) -> Result<Vec<T>, TryError> {
        // Directory buckets list in no order and cannot start a listing at a name.
        let is_ordered =
            self.backend.bucket.as_ref().is_some_and(|bucket| !bucket.ends_with("--x-s3"));
        let mut left_out = vec![];
        for round in 1..=ROUNDS {
            let listed = list().await?;
            let Some(end) = last(&listed).filter(|_| is_ordered) else { return Ok(listed) };
            let Some(missed) = self.first_after(folder, &end).await? else { return Ok(listed) };
            // It may have been written since the listing.
            left_out.push(missed);
            tokio::time::sleep(PAUSE * round).await;
        }
        let url = self.url();
        left_out.dedup();
        let error = match &*left_out {
            [missed] => JobsError::invalid(format!(
                "{url}: the server leaves {missed} out of its listing of {folder} and does not mark the listing \
                 as truncated; agrpo cannot know what is in use there, and deletes nothing: use another server or a \
                 folder"
            )),
            _ => JobsError::unavailable(format!(
                "{url}: {folder} changes too fast to be listed; try again"
            )),
        };
        Err(error.into())
    }

    async fn list_once(&self, folder: &str) -> Result<Vec<Entry>, TryError> {
        let mut listing = self.inner.list(Some(&Path::from(folder)));
        let mut entries: Vec<Entry> = vec![];
        // Brent's algorithm finds a cycle: the name at a power of two comes again.
        let (mut mark, mut next_mark) = (0, 1);
        loop {
            match self.attempt(0, Operation(Action::List, folder), listing.try_next()).await? {
                Some(meta) => entries.push(Entry::of(&meta)),
                None => return Ok(entries),
            }
            let newest = entries.len() - 1;
            let is_round = newest > mark && entries[newest].name == entries[mark].name;
            if is_round || entries.len() > MOST {
                let error = JobsError::invalid(format!(
                    "{}: the server lists {folder} without end ({} objects so far); use another server or a folder",
                    self.url(),
                    entries.len()
                ));
                return Err(error.into());
            }
            if newest == next_mark {
                (mark, next_mark) = (newest, next_mark * 2);
            }
        }
    }

    /// The entries directly in a folder, in order.
    async fn list_parts(&self, folder: &str) -> Result<Vec<Part>, TryError> {
        let path = Path::from(folder);
        let listing = self.inner.list_with_delimiter(Some(&path));
        let found = self.attempt(0, Operation(Action::List, folder), listing).await?;
        let folders = found.common_prefixes.iter().map(|path| (path, true));
        let objects = found.objects.iter().map(|meta| (&meta.location, false));
        // Servers that ignore the delimiter also list deeper objects, and some have a marker object for the folder.
        let part = |(path, is_folder): (&Path, bool)| {
            let below = path.as_ref().strip_prefix(folder)?.strip_prefix('/')?;
            let (name, is_deeper) =
                below.split_once('/').map_or((below, false), |(name, _)| (name, true));
            Some((name.to_owned(), is_folder || is_deeper))
        };
        let parts: BTreeSet<Part> = folders.chain(objects).filter_map(part).collect();
        Ok(parts.into_iter().collect())
    }

    /// The first object below a folder whose name comes after this one.
    async fn first_after(&self, folder: &str, end: &str) -> Result<Option<String>, TryError> {
        let path = Path::from(folder);
        let mut listing = self.inner.list_with_offset(Some(&path), &Path::from(end));
        let found = self.attempt(0, Operation(Action::List, folder), listing.try_next()).await?;
        // A server that ignores the offset lists from the start.
        Ok(found.map(|meta| meta.location.to_string()).filter(|name| name.as_str() > end))
    }
}
