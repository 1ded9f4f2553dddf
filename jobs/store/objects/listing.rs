//! What a server lists: all of it, or a refusal.
//!
//! Listings decide what a gc deletes. The library follows continuation tokens, and does not show whether a server said
//! that there is more: one that cuts its answers short without a token would be believed. So the server is asked once
//! more for what comes after the last name. Local stores are in `local.rs`.

use std::{collections::BTreeSet, time::Duration};

use futures::TryStreamExt;
use object_store::{ObjectStore, path::Path};

use super::exchange::{Missed, Objects};
use super::local::Entry;
use crate::{JobsError, Result};

/// Objects below one folder beyond which a server is taken to list without end. Each takes about 200 bytes of memory.
const MOST: usize = 100_000_000;
/// Listings that have to leave out the same object before the server is refused for it.
const ROUNDS: u32 = 3;
/// Grows with each of those listings.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 200 });

/// The name of what stands right in a folder, and whether that is a folder.
type Part = (String, bool);

impl Objects {
    /// Every object below a folder of a server.
    pub(crate) async fn listed(&self, folder: &str) -> Result<Vec<Entry>> {
        let last = |entries: &[Entry]| entries.iter().map(|entry| &entry.name).max().cloned();
        self.with_retry(|| self.whole(folder, || self.list_once(folder), last)).await
    }

    /// The names of the folders right in a folder of a server.
    pub(crate) async fn listed_folders(&self, folder: &str) -> Result<Vec<String>> {
        let last = |parts: &[Part]| match parts.last() {
            // What is in the last folder comes before its name with the letter that follows `/`.
            Some((name, true)) => Some(format!("{folder}/{name}0")),
            Some((name, false)) => Some(format!("{folder}/{name}")),
            None => Some(folder.to_owned()),
        };
        let list = || self.list_parts(folder);
        let parts = self.with_retry(|| self.whole(folder, list, last)).await?.into_iter();
        Ok(parts.filter(|(_, is_folder)| *is_folder).map(|(name, _)| name).collect())
    }

    /// A listing that leaves nothing out. What is written meanwhile may be in it or not.
    async fn whole<T, F: Future<Output = Result<Vec<T>, Missed>>>(
        &self,
        folder: &str,
        list: impl Fn() -> F,
        last: impl Fn(&[T]) -> Option<String>,
    ) -> Result<Vec<T>, Missed> {
        // Directory buckets list in no order and know no place to begin at.
        let is_ordered =
            self.place.bucket.as_ref().is_some_and(|bucket| !bucket.ends_with("--x-s3"));
        let mut left_out = vec![];
        for round in 1..=ROUNDS {
            let listed = list().await?;
            let Some(end) = last(&listed).filter(|_| is_ordered) else { return Ok(listed) };
            let Some(missed) = self.first_after(folder, &end).await? else { return Ok(listed) };
            // It may have been written since.
            left_out.push(missed);
            tokio::time::sleep(PAUSE * round).await;
        }
        let url = self.url();
        left_out.dedup();
        let error = match &*left_out {
            [missed] => JobsError::Invalid(format!(
                "{url}: the server leaves {missed} out where it lists {folder}, and does not say that there is \
                 more; agrpo cannot tell what is in use there, and changes nothing: use another server or a folder"
            )),
            _ => JobsError::Unavailable(format!(
                "{url}: {folder} changes too fast to be listed; try again"
            )),
        };
        Err(error.into())
    }

    async fn list_once(&self, folder: &str) -> Result<Vec<Entry>, Missed> {
        let action = format!("list {folder}");
        let mut listing = self.inner.list(Some(&Path::from(folder)));
        let mut entries: Vec<Entry> = vec![];
        // Brent's search for a cycle: a name that was new at a power of two comes again.
        let (mut mark, mut next_mark) = (0, 1);
        loop {
            match self.attempt(0, &action, listing.try_next()).await? {
                Some(meta) => entries.push(Entry::of(&meta)),
                None => return Ok(entries),
            }
            let newest = entries.len() - 1;
            let is_round = newest > mark && entries[newest].name == entries[mark].name;
            if is_round || entries.len() > MOST {
                let error = JobsError::Invalid(format!(
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

    /// What stands right in a folder, in order.
    async fn list_parts(&self, folder: &str) -> Result<Vec<Part>, Missed> {
        let (action, path) = (format!("list {folder}"), Path::from(folder));
        let listing = self.inner.list_with_delimiter(Some(&path));
        let found = self.attempt(0, &action, listing).await?;
        let folders = found.common_prefixes.iter().map(|path| (path, true));
        let objects = found.objects.iter().map(|meta| (&meta.location, false));
        // Servers that overlook the delimiter name what is deeper, and some keep a mark for the folder itself.
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
    async fn first_after(&self, folder: &str, end: &str) -> Result<Option<String>, Missed> {
        let (action, path) = (format!("list {folder}"), Path::from(folder));
        let mut listing = self.inner.list_with_offset(Some(&path), &Path::from(end));
        let found = self.attempt(0, &action, listing.try_next()).await?;
        // A server that overlooks where to begin begins with what was listed before.
        Ok(found.map(|meta| meta.location.to_string()).filter(|name| name.as_str() > end))
    }
}
