//! A stage's inputs and outputs: blobs, and folders of blobs behind a listing.
//!
//! Each byte is hashed once, and all blobs of a stage are transferred at the same time. A large file that came from the
//! store is neither read nor hashed nor sent again, unless its blob is old.

use std::{collections::BTreeMap, io};

use agrpo_spec::{
    Artifact, ArtifactDigest, Content, Files, FolderListing, Inputs, Message, OutputRecord,
    Outputs, StageSpec,
};
use futures::future::try_join_all;

use super::blobs::Cas;
use crate::{JobsError, Result, paths, span::blocking};

/// The roles whose artifacts are folders; every other one is a blob.
const FOLDER_ROLES: [&str; 3] = ["policy", "behaviour", "reference"];
/// The roles of blobs as large as the trained weights, of which an update reads many: large ones in windows.
const WINDOW_ROLES: [&str; 2] = ["gradient", "optimizer"];

/// The name of a blob in a manifest, its record, and its bytes.
type NamedBlob = (String, OutputRecord, Content);

/// Every blob of a stage's outputs by the name it has in the manifest: `NAME`, or `NAME/FILE`.
fn named_blobs(artifacts: BTreeMap<&'static str, Artifact>) -> io::Result<Vec<NamedBlob>> {
    let mut blobs = vec![];
    for (output, artifact) in artifacts {
        let content = match artifact {
            Artifact::Blob(content) => content,
            Artifact::Folder(files) => {
                let listing = FolderListing::of(&files)?;
                for (file, content) in files {
                    let digest = listing.files[&file].digest;
                    let record = OutputRecord { digest, size: content.size() };
                    blobs.push((format!("{output}/{file}"), record, content));
                }
                listing.to_bytes().into()
            }
        };
        let (digest, size) = (content.digest()?, content.size());
        blobs.push((output.to_owned(), OutputRecord { digest, size }, content));
    }
    Ok(blobs)
}

async fn digested(outputs: &Outputs) -> Result<Vec<NamedBlob>> {
    let artifacts = outputs.artifacts.clone();
    blocking(move || named_blobs(artifacts)).await?.map_err(|error| {
        let text = format!("a file that a stage passes on can no longer be read: {error}");
        JobsError::Data(Message::caused_by(text, error))
    })
}

/// Computes the records of a stage's outputs, without storing them.
pub async fn records_of(outputs: &Outputs) -> Result<BTreeMap<String, OutputRecord>> {
    let blobs = digested(outputs).await?.into_iter();
    Ok(blobs.map(|(output, record, _)| (output, record)).collect())
}

impl Cas {
    /// Fetches and checks everything that a spec reads.
    pub async fn load_inputs(&self, spec: &StageSpec) -> Result<Inputs> {
        let swap = |(role, digest)| (digest, role);
        let distinct: BTreeMap<_, _> = spec.inputs().into_iter().map(swap).collect();
        let loads = distinct.into_iter().map(|(digest, role)| async move {
            let artifact = if FOLDER_ROLES.contains(&role) {
                Artifact::Folder(self.load_folder(digest).await?)
            } else if WINDOW_ROLES.contains(&role) {
                Artifact::Blob(self.open(digest).await?)
            } else {
                Artifact::Blob(self.cached_blob(digest).await?.into())
            };
            Ok::<_, JobsError>((digest, artifact))
        });
        let mut inputs = Inputs::default();
        for (digest, artifact) in try_join_all(loads).await? {
            inputs.insert(digest, artifact);
        }
        Ok(inputs)
    }

    /// The blobs that a spec reads and that are missing; of a folder whose listing is missing, the listing alone.
    pub async fn absent(&self, spec: &StageSpec) -> Result<Vec<ArtifactDigest>> {
        let mut blobs = vec![];
        for (role, digest) in spec.inputs() {
            blobs.push(digest);
            if FOLDER_ROLES.contains(&role) && self.has(digest).await? {
                let listing = FolderListing::from_bytes(&self.cached_blob(digest).await?);
                let files = listing.into_iter().flat_map(|listing| listing.files.into_values());
                blobs.extend(files.map(|file| file.digest));
            }
        }
        let mut absent = vec![];
        for digest in blobs {
            if !absent.contains(&digest) && !self.has(digest).await? {
                absent.push(digest);
            }
        }
        Ok(absent)
    }

    /// Fetches and checks a folder: small files in memory, large ones in windows.
    pub async fn load_folder(&self, digest: ArtifactDigest) -> Result<Files> {
        let listing =
            FolderListing::from_bytes(&self.cached_blob(digest).await?).ok_or_else(|| {
                JobsError::data(format!("{} is not the listing of a folder", paths::blob(digest)))
            })?;
        let files = listing.files.into_iter().map(|(file, entry)| async move {
            let content = self.content(entry.digest, entry.size).await?;
            Ok::<_, JobsError>((file, content))
        });
        Ok(try_join_all(files).await?.into_iter().collect())
    }

    /// Stores all outputs of a stage; returns the manifest's `outputs`.
    pub async fn put_outputs(&self, outputs: &Outputs) -> Result<BTreeMap<String, OutputRecord>> {
        let puts =
            digested(outputs).await?.into_iter().map(|(output, record, content)| async move {
                self.put_content(record.digest, content).await?;
                Ok::<_, JobsError>((output, record))
            });
        Ok(try_join_all(puts).await?.into_iter().collect())
    }
}
