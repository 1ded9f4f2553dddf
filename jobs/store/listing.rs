//! What a server lists: all of it, or a refusal.
//!
//! Listings say which runs there are, and so what a gc deletes. The library follows continuation tokens and does not
//! show whether a server said that there is more: one that cuts its answers short and gives no token would be
//! believed. So a server is asked once more for what comes after the last name. Local stores are in `local.rs`.

use std::future::Future;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use super::backend::{Backend, Entry};
use crate::error::JobsError;

/// Objects below one folder beyond which a server is taken to list without end. Each takes about 200 bytes of memory.
const MOST: usize = 10_000_000;

/// What stands right in a folder.
struct Part {
    name: String,
    is_folder: bool,
}

impl Backend {
    /// Every object below a folder of a server.
    pub(super) async fn listed(&self, folder: &str) -> Result<Vec<Entry>, JobsError> {
        let last = |entries: &[Entry]| entries.iter().map(|entry| entry.name.clone()).max();
        let has = |entries: &[Entry], name: &str| entries.iter().any(|entry| entry.name == name);
        self.patiently(|| self.whole(folder, || self.list_once(folder), last, has)).await
    }

    /// The names of the folders right in a folder of a server.
    pub(super) async fn listed_folders(&self, folder: &str) -> Result<Vec<String>, JobsError> {
        // What is in the last folder comes before its name with the letter that follows `/`.
        let last = |parts: &[Part]| {
            let last = parts.iter().max_by_key(|part| &part.name)?;
            Some(format!("{folder}/{}{}", last.name, if last.is_folder { "0" } else { "" }))
        };
        let has = |parts: &[Part], name: &str| {
            let below = name.strip_prefix(folder).unwrap_or_default().trim_start_matches('/');
            parts.iter().any(|part| Some(part.name.as_str()) == below.split('/').next())
        };
        let list = || self.list_parts(folder);
        let parts = self.patiently(|| self.whole(folder, list, last, has)).await?;
        Ok(parts.into_iter().filter(|part| part.is_folder).map(|part| part.name).collect())
    }

    /// A listing that leaves nothing out. What is written meanwhile may be in it or not.
    async fn whole<T, F: Future<Output = Result<Vec<T>, JobsError>>>(
        &self,
        folder: &str,
        list: impl Fn() -> F,
        last: impl Fn(&[T]) -> Option<String>,
        has: impl Fn(&[T], &str) -> bool,
    ) -> Result<Vec<T>, JobsError> {
        let listed = list().await?;
        let Some(end) = last(&listed).filter(|_| self.is_remote()) else { return Ok(listed) };
        let Some(missed) = self.first_after(folder, &end).await? else { return Ok(listed) };
        // It may have been written since: then it is in a listing that begins now.
        let again = list().await?;
        if has(&again, &missed) || self.entry(&missed).await?.is_none() {
            return Ok(again);
        }
        Err(JobsError::Invalid(format!(
            "{}: the server leaves {missed} out where it lists {folder}, and does not say that there is more; agrpo \
             cannot tell what is in use there, and changes nothing: use another server or a folder",
            self.url()
        )))
    }

    async fn list_once(&self, folder: &str) -> Result<Vec<Entry>, JobsError> {
        let action = format!("list {folder}");
        let mut listing = self.objects.list(Some(&Path::from(folder)));
        let mut entries: Vec<Entry> = vec![];
        loop {
            match self.within(0, &action, listing.try_next()).await? {
                Ok(Some(meta)) => entries.push(Entry::of(&meta)),
                Ok(None) => return Ok(entries),
                Err(error) => return Err(self.explain(&action, &error)),
            }
            let newest = entries.last().map(|entry| &entry.name);
            let is_round = entries.len() > 1 && newest == entries.first().map(|entry| &entry.name);
            if is_round || entries.len() > MOST {
                return Err(JobsError::Invalid(format!(
                    "{}: the server lists {folder} without end ({} objects so far); use another server or a folder",
                    self.url(),
                    entries.len()
                )));
            }
        }
    }

    async fn list_parts(&self, folder: &str) -> Result<Vec<Part>, JobsError> {
        let (action, path) = (format!("list {folder}"), Path::from(folder));
        let listing = self.objects.list_with_delimiter(Some(&path));
        match self.within(0, &action, listing).await? {
            Ok(found) => {
                let folders = found.common_prefixes.iter().map(|path| (path, true));
                let objects = found.objects.iter().map(|meta| (&meta.location, false));
                let part = |(path, is_folder): (&Path, bool)| {
                    Some(Part { name: path.filename()?.to_owned(), is_folder })
                };
                Ok(folders.chain(objects).filter_map(part).collect())
            }
            Err(error) => Err(self.explain(&action, &error)),
        }
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
