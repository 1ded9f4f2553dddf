//! What comes into the store from elsewhere: large contents, files, and model folders in Hugging Face's layout.
//!
//! Everything streams: a file is hashed, then copied or sent, and never in memory as a whole. The caller checks that a
//! folder is a sound checkpoint before a byte is copied. Fetches nothing from a network, and changes nothing in the
//! folder.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use agrpo_spec::{
    ArtifactDigest, Content, Files, FolderEntry, FolderListing, OutputRecord, StageError, WINDOW,
};

use super::blobs::blob_name;
use crate::blocking::blocking;
use crate::cache::checked::{Blocks, Hashing, OnDisk};
use crate::error::JobsError;
use crate::objects::staged;
use crate::store::Store;
use crate::{failpoints, metrics, regular};

/// What belongs to a model or an adapter, beside `*.safetensors`.
const TAKEN: [&str; 7] = [
    "adapter_config.json",
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// A folder that was taken into the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Its name.
    pub digest: ArtifactDigest,
    /// The files that were taken.
    pub listing: FolderListing,
    /// What else lay there, sorted; folders end in `/`.
    pub ignored: Vec<String>,
}

/// The files right in a folder that are taken, opened, and the names of those that are not.
fn look(folder: &Path) -> io::Result<(Files, Vec<String>)> {
    let (mut files, mut ignored) = (BTreeMap::new(), vec![]);
    for entry in folder.read_dir()? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Links are followed: Hugging Face's cache is made of them.
        let is_folder = path.is_dir();
        let is_taken = name.ends_with(".safetensors") || TAKEN.contains(&name.as_str());
        if is_taken && !is_folder {
            let message =
                |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
            let disk = OnDisk::open(&path).map_err(message)?;
            files.insert(name, disk.content());
        } else {
            ignored.push(if is_folder { format!("{name}/") } else { name });
        }
    }
    ignored.sort_unstable();
    Ok((files, ignored))
}

fn unreadable(path: &Path, error: &io::Error) -> JobsError {
    JobsError::Invalid(format!("{} cannot be read: {error}", path.display()))
}

/// Writes a large file from windows, whatever was there; nothing appears where the bytes are not those
/// that the digest names, which is then answered with theirs.
pub(crate) fn copy(
    path: &Path,
    content: &Content,
    digest: ArtifactDigest,
) -> io::Result<Result<Blocks, ArtifactDigest>> {
    failpoints::write("store::write")?;
    let message = |error| regular::explained(path, error);
    let mut file = staged(path).map_err(message)?;
    let mut hashing = Hashing::default();
    for range in content.ranges(WINDOW) {
        let bytes = content.window(range)?;
        hashing.update(&bytes);
        file.write_all(&bytes)?;
    }
    let blocks = hashing.finish();
    if blocks.digest() != digest {
        return Ok(Err(blocks.digest()));
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| message(error.error))?;
    Ok(Ok(blocks))
}

impl Store {
    /// Stores a content of any size under its digest, which has been computed; where it already is in full
    /// length nothing is read, and it is made young. Data error where the content is no longer what it was,
    /// lost where that is a blob that came from a store.
    pub(crate) async fn put_content(
        &self,
        digest: ArtifactDigest,
        content: Content,
    ) -> Result<OutputRecord, JobsError> {
        let size = content.size();
        if !self.is_streamed(&content) {
            return self.put_whole(digest, content).await;
        }
        if !self.claim_sized(digest, Some(size)).await? {
            self.write_large(digest, content).await?;
        }
        Ok(OutputRecord { digest, size })
    }

    fn is_streamed(&self, content: &Content) -> bool {
        let is_large = content.size() > self.backend.large() && !self.backend.is_memory();
        is_large && matches!(content, Content::Elsewhere(_))
    }

    async fn put_whole(
        &self,
        digest: ArtifactDigest,
        content: Content,
    ) -> Result<OutputRecord, JobsError> {
        let bytes = match content {
            Content::Memory(bytes) => bytes,
            Content::Elsewhere(_) => {
                let (size, source) = (content.size(), content.clone());
                let bytes = blocking(move || source.bytes(size)).await?;
                let bytes = bytes.map_err(|error| self.unreadable(digest, &content, &error))?;
                if ArtifactDigest::of(&bytes) != digest {
                    return Err(self.lost(digest, &"it has changed"));
                }
                bytes
            }
        };
        self.put_digested(digest, bytes).await
    }

    pub(crate) async fn write_large(
        &self,
        digest: ArtifactDigest,
        content: Content,
    ) -> Result<(), JobsError> {
        let size = content.size();
        let written = self.write_streamed(digest, content.clone()).await;
        // Whatever came of it, the cause is that the content is not what it was.
        written.map_err(|error| match content.damaged() {
            Some(damaged) => JobsError::damaged(damaged),
            None => error,
        })?;
        metrics::bytes_written(size);
        Ok(())
    }

    async fn write_streamed(
        &self,
        digest: ArtifactDigest,
        content: Content,
    ) -> Result<(), JobsError> {
        let name = blob_name(digest);
        let Some(path) = self.backend.path(&name) else {
            let sent = self.backend.replace_in_parts(&name, &content, digest).await?;
            return sent.map_err(|_| self.lost(digest, &"it has changed"));
        };
        let large = self.large.clone();
        let written = blocking(move || match copy(&path, &content, digest)? {
            Ok(blocks) => large.note(&path, Arc::new(blocks)).map(|()| true),
            Err(_) => Ok(false),
        });
        match written.await? {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.lost(digest, &"it has changed")),
            Err(error) => Err(self.backend.local(&format!("write {name}"), error)),
        }
    }

    fn unreadable(
        &self,
        digest: ArtifactDigest,
        content: &Content,
        error: &io::Error,
    ) -> JobsError {
        match content.damaged() {
            Some(damaged) => JobsError::damaged(damaged),
            None => self.lost(digest, error),
        }
    }

    fn lost(&self, digest: ArtifactDigest, why: &dyn std::fmt::Display) -> JobsError {
        JobsError::Data(format!(
            "what was to be stored in {} as {} is not there any more: {why}; start again",
            self.url(),
            blob_name(digest)
        ))
    }

    /// Stores a file of any size under its digest. A file that a local store has of that name is checked: a
    /// sound one is made young, a damaged one replaced. A server's object is written again, which makes it
    /// young and sound whatever it was. Invalid error where the file cannot be read.
    pub async fn put_file(&self, path: &Path) -> Result<OutputRecord, JobsError> {
        let owned = path.to_owned();
        let disk = blocking(move || OnDisk::open(&owned)).await?;
        let content = disk.map_err(|error| unreadable(path, &error))?.content();
        self.put_source(path, content).await
    }

    async fn put_source(&self, path: &Path, content: Content) -> Result<OutputRecord, JobsError> {
        let source = content.clone();
        let digest = blocking(move || source.digest()).await?;
        let digest = digest.map_err(|error| unreadable(path, &error))?;
        if !self.is_streamed(&content) {
            return self.put_whole(digest, content).await;
        }
        let size = content.size();
        if !self.stands(digest).await? {
            self.write_large(digest, content).await?;
        }
        Ok(OutputRecord { digest, size })
    }

    /// Whether a local store has a large blob that is sound, which it makes young.
    async fn stands(&self, digest: ArtifactDigest) -> Result<bool, JobsError> {
        let Some(path) = self.backend.path(&blob_name(digest)) else { return Ok(false) };
        let _place = self.large.place().await;
        let large = self.large.clone();
        let standing = blocking(move || match large.check_anew(&path, digest)? {
            Ok(_) => large.renew(&path, digest).map(|()| true),
            Err(_) => Ok(false),
        });
        match standing.await? {
            Ok(true) => return Ok(true),
            Ok(false) => tracing::warn!(%digest, "replacing a damaged blob by the file"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::debug!(%digest, %error, "writing a blob again"),
        }
        Ok(false)
    }

    /// Stores a model's or an adapter's folder: configuration, tokenizer and `*.safetensors`, as they
    /// are. `check` looks at the files first. Invalid error where they cannot be read; `check`'s own
    /// errors name the folder.
    pub async fn import_folder(
        &self,
        folder: &Path,
        check: impl FnOnce(&Files) -> Result<(), StageError> + Send + 'static,
    ) -> Result<Imported, JobsError> {
        let owned = folder.to_owned();
        let looked = blocking(move || {
            let (files, ignored) = look(&owned)?;
            let checked = check(&files);
            Ok((files, ignored, checked))
        });
        let (files, ignored, checked) =
            looked.await?.map_err(|error: io::Error| unreadable(folder, &error))?;
        checked.map_err(|error| {
            let message = format!("{}: {error}", folder.display());
            match error {
                StageError::Invalid(_) => JobsError::Invalid(message),
                StageError::Data(_) => JobsError::Data(message),
                StageError::Device(_) | StageError::Internal(_) => JobsError::Internal(message),
            }
        })?;
        let mut listing = FolderListing { files: BTreeMap::new() };
        for (name, content) in files {
            let record = self.put_source(&folder.join(&name), content).await?;
            let entry = FolderEntry { digest: record.digest, size: record.size };
            listing.files.insert(name, entry);
        }
        let digest = self.put_blob(listing.to_bytes()).await?.digest;
        Ok(Imported { digest, listing, ignored })
    }
}
