//! What a server lists: all of it, or a refusal.
//!
//! Listings say which runs there are, and so what a gc deletes. The library follows continuation tokens and does not
//! show whether a server said that there is more: one that cuts its answers short and gives no token would be
//! believed. So a server is asked once more for what comes after the last name. Local stores are in `local.rs`.

use std::future::Future;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use super::backend::Backend;
use super::entry::Entry;
use crate::error::JobsError;

/// Objects below one folder beyond which a server is taken to list without end. Each takes about 200 bytes of memory.
const MOST: usize = 100_000_000;
/// Listings that have to leave out the same object before the server is refused for it.
const ROUNDS: u32 = 3;
/// Grows with each of those listings.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 200 });

/// What stands right in a folder.
struct Part {
    name: String,
    is_folder: bool,
}

impl Backend {
    /// Every object below a folder of a server.
    pub(crate) async fn listed(&self, folder: &str) -> Result<Vec<Entry>, JobsError> {
        let last = |entries: &[Entry]| entries.iter().map(|entry| &entry.name).max().cloned();
        self.with_retry(|| self.whole(folder, || self.list_once(folder), last)).await
    }

    /// The names of the folders right in a folder of a server.
    pub(crate) async fn listed_folders(&self, folder: &str) -> Result<Vec<String>, JobsError> {
        let last = |parts: &[Part]| {
            let last = parts.iter().max_by_key(|part| &part.name);
            // What is in the last folder comes before its name with the letter that follows `/`.
            Some(last.map_or_else(
                || folder.to_owned(),
                |last| format!("{folder}/{}{}", last.name, if last.is_folder { "0" } else { "" }),
            ))
        };
        let parts =
            self.with_retry(|| self.whole(folder, || self.list_parts(folder), last)).await?;
        Ok(parts.into_iter().filter(|part| part.is_folder).map(|part| part.name).collect())
    }

    /// A listing that leaves nothing out. What is written meanwhile may be in it or not.
    async fn whole<T, F: Future<Output = Result<Vec<T>, JobsError>>>(
        &self,
        folder: &str,
        list: impl Fn() -> F,
        last: impl Fn(&[T]) -> Option<String>,
    ) -> Result<Vec<T>, JobsError> {
        // Directory buckets list in no order and know no place to begin at.
        let is_ordered = self.bucket().is_some_and(|bucket| !bucket.ends_with("--x-s3"));
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
        Err(match &*left_out {
            [missed] => JobsError::Invalid(format!(
                "{url}: the server leaves {missed} out where it lists {folder}, and does not say that there is \
                 more; agrpo cannot tell what is in use there, and changes nothing: use another server or a folder"
            )),
            _ => JobsError::Unavailable(format!(
                "{url}: {folder} changes too fast to be listed; try again"
            )),
        })
    }

    async fn list_once(&self, folder: &str) -> Result<Vec<Entry>, JobsError> {
        let action = format!("list {folder}");
        let mut listing = self.objects.list(Some(&Path::from(folder)));
        let mut entries: Vec<Entry> = vec![];
        // Brent's search for a cycle: a name that was new at a power of two comes again.
        let (mut mark, mut next_mark) = (0, 1);
        loop {
            match self.within(0, &action, listing.try_next()).await? {
                Ok(Some(meta)) => entries.push(Entry::of(&meta)),
                Ok(None) => return Ok(entries),
                Err(error) => return Err(self.explain(&action, &error)),
            }
            let newest = entries.len() - 1;
            let is_round = newest > mark && entries[newest].name == entries[mark].name;
            if is_round || entries.len() > MOST {
                return Err(JobsError::Invalid(format!(
                    "{}: the server lists {folder} without end ({} objects so far); use another server or a folder",
                    self.url(),
                    entries.len()
                )));
            }
            if newest == next_mark {
                (mark, next_mark) = (newest, next_mark * 2);
            }
        }
    }

    async fn list_parts(&self, folder: &str) -> Result<Vec<Part>, JobsError> {
        let (action, path) = (format!("list {folder}"), Path::from(folder));
        let listing = self.objects.list_with_delimiter(Some(&path));
        let found = match self.within(0, &action, listing).await? {
            Ok(found) => found,
            Err(error) => return Err(self.explain(&action, &error)),
        };
        let folders = found.common_prefixes.iter().map(|path| (path, true));
        let objects = found.objects.iter().map(|meta| (&meta.location, false));
        // Servers that overlook the delimiter name what is deeper, and some keep a mark for the folder itself.
        let part = |(path, is_folder): (&Path, bool)| {
            let below = path.as_ref().strip_prefix(folder)?.strip_prefix('/')?;
            let (name, is_deeper) =
                below.split_once('/').map_or((below, false), |(name, _)| (name, true));
            Some(Part { name: name.to_owned(), is_folder: is_folder || is_deeper })
        };
        let mut parts: Vec<Part> = folders.chain(objects).filter_map(part).collect();
        parts.sort_by(|a, b| a.name.cmp(&b.name));
        parts.dedup_by(|a, b| a.name == b.name && a.is_folder == b.is_folder);
        Ok(parts)
    }

    /// The first object below a folder whose name comes after this one.
    async fn first_after(&self, folder: &str, end: &str) -> Result<Option<String>, JobsError> {
        let (action, path) = (format!("list {folder}"), Path::from(folder));
        let mut listing = self.objects.list_with_offset(Some(&path), &Path::from(end));
        match self.within(0, &action, listing.try_next()).await? {
            // A server that overlooks where to begin begins with what was listed before.
            Ok(found) => {
                Ok(found.map(|meta| meta.location.to_string()).filter(|name| name.as_str() > end))
            }
            Err(error) => Err(self.explain(&action, &error)),
        }
    }
}
