//! Imports into the store: files, and model folders in Hugging Face's layout.
//!
//! The caller checks that a folder is a sound checkpoint before a byte is copied. Fetches nothing from a network, and
//! changes nothing in the folder.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use agrpo_spec::{
    ArtifactDigest, Content, Files, FolderListing, Message, OutputRecord, StageError,
};

use super::{blobs::Cas, checked::OnDisk};
use crate::{JobsError, Result, paths, regular, span::blocking};

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
    /// What else the folder holds, sorted; folders end in `/`.
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

fn unreadable(path: &Path, error: io::Error) -> JobsError {
    let text = format!("{} cannot be read: {error}", path.display());
    JobsError::Invalid(Message::caused_by(text, error))
}

impl Cas {
    /// Stores a file of any size under its digest. A large blob that a local store has is checked, and its date renewed
    /// or the blob replaced; a server's object is written again. Invalid error where the file cannot be read.
    pub(super) async fn put_source(&self, path: &Path, content: Content) -> Result<OutputRecord> {
        let source = content.clone();
        let digest = blocking(move || source.digest()).await?;
        let digest = digest.map_err(|error| unreadable(path, error))?;
        self.put_unless(self.stands(digest), digest, content).await
    }

    /// Renews the date of a large blob in a local store. False where it is missing or damaged.
    async fn stands(&self, digest: ArtifactDigest) -> Result<bool> {
        let Some(path) = self.objects.path(&paths::blob(digest)) else { return Ok(false) };
        let _place = self.streamed.place().await;
        let streamed = Arc::clone(&self.streamed);
        let standing = blocking(move || match streamed.hash(OnDisk::open(&path)?, digest)? {
            Ok(_) => regular::renew(&path).map(|()| true),
            Err(_) => Ok(false),
        });
        match standing.await? {
            Ok(true) => return Ok(true),
            Ok(false) => tracing::warn!(%digest, "replacing a damaged blob with the file"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::debug!(%digest, %error, "cannot renew a blob's date"),
        }
        Ok(false)
    }

    /// Stores a model's or an adapter's folder: configuration, tokenizer and `*.safetensors`, as they are, once
    /// `check` accepts the files. Invalid error where they cannot be read; `check`'s own errors name the folder.
    pub async fn import_folder(
        &self,
        folder: &Path,
        check: impl FnOnce(&Files) -> Result<(), StageError> + Send + 'static,
    ) -> Result<Imported> {
        let owned = folder.to_owned();
        let looked = blocking(move || {
            let (files, ignored) = look(&owned)?;
            let checked = check(&files);
            Ok((files, ignored, checked))
        });
        let (files, ignored, checked) =
            looked.await?.map_err(|error: io::Error| unreadable(folder, error))?;
        checked.map_err(|error| {
            let kind = match error {
                StageError::Invalid(_) => JobsError::Invalid,
                StageError::Data(_) => JobsError::Data,
                StageError::Device(_) | StageError::Internal(_) => JobsError::Internal,
            };
            kind(Message::caused_by(format!("{}: {error}", folder.display()), error))
        })?;
        let mut listing = FolderListing { files: BTreeMap::new() };
        for (name, content) in files {
            let record = self.put_source(&folder.join(&name), content).await?;
            listing.files.insert(name, record);
        }
        let digest = self.put(listing.to_bytes()).await?.digest;
        Ok(Imported { digest, listing, ignored })
    }
}
