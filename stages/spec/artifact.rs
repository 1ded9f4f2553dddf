//! The artifacts that stages read and write, blobs and folders of blobs, named by content; and a stage's errors.
//!
//! A folder (a policy in Hugging Face layout) is named by its listing: a small JSON document that
//! gives every file's digest and size. Large ones need not be in memory ([`Content`]). Nothing here
//! touches a disk or a network.

use std::{collections::BTreeMap, io, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::content::{Content, Files};
use crate::{digest::ArtifactDigest, message::Message, stage::StageSpec};

/// A blob that a stage wrote, or that a folder lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputRecord {
    /// The blob's name.
    pub digest: ArtifactDigest,
    /// Its length in bytes.
    pub size: u64,
}

/// The document that names a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderListing {
    /// Every file, by name.
    pub files: BTreeMap<String, OutputRecord>,
}

impl FolderListing {
    /// The listing of these files; those whose digest is known are not read.
    pub fn of(files: &Files) -> io::Result<Self> {
        let entry = |(name, content): (&String, &Content)| {
            let entry = OutputRecord { digest: content.digest()?, size: content.size() };
            Ok((name.clone(), entry))
        };
        Ok(Self { files: files.iter().map(entry).collect::<io::Result<_>>()? })
    }

    /// The listing's bytes, whose digest names the folder.
    pub fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("a map of strings serialises").into()
    }

    /// Reads a listing; `None` if the bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// A value that a stage reads or writes.
#[derive(Clone, Debug, PartialEq)]
pub enum Artifact {
    /// One blob.
    Blob(Content),
    /// Files by name.
    Folder(Files),
}

impl Artifact {
    /// The artifact's name: the digest of the bytes, or of the folder's listing. Error if a file cannot be read.
    pub fn digest(&self) -> io::Result<ArtifactDigest> {
        match self {
            Self::Blob(content) => content.digest(),
            Self::Folder(files) => Ok(ArtifactDigest::of(&FolderListing::of(files)?.to_bytes())),
        }
    }

    /// The blob in it, if any, that a read found damaged.
    pub fn damaged(&self) -> Option<ArtifactDigest> {
        match self {
            Self::Blob(content) => content.damaged(),
            Self::Folder(files) => files.values().find_map(Content::damaged),
        }
    }
}

/// The artifacts that a spec names, fetched and verified by a stage's caller.
#[derive(Clone, Debug, Default)]
pub struct Inputs(BTreeMap<ArtifactDigest, Artifact>);

impl Inputs {
    /// Adds an artifact under the name by which the spec knows it.
    pub fn insert(&mut self, digest: ArtifactDigest, artifact: Artifact) {
        self.0.insert(digest, artifact);
    }

    /// The blob among them, if any, that a read found damaged.
    pub fn damaged(&self) -> Option<ArtifactDigest> {
        self.0.values().find_map(Artifact::damaged)
    }

    /// A blob that the spec names, in memory. Internal error if the caller passes it in windows.
    pub fn blob(&self, digest: ArtifactDigest) -> Result<&Bytes, StageError> {
        match self.content(digest)? {
            Content::Memory(bytes) => Ok(bytes),
            Content::Elsewhere(_) => Err(StageError::Internal(
                format!("{digest} was handed to the stage in windows, expected in memory").into(),
            )),
        }
    }

    /// A blob that the spec names, however large.
    pub fn content(&self, digest: ArtifactDigest) -> Result<&Content, StageError> {
        match self.artifact(digest)? {
            Artifact::Blob(content) => Ok(content),
            Artifact::Folder(_) => {
                Err(StageError::Data(format!("{digest} is a folder, expected a blob").into()))
            }
        }
    }

    /// A folder that the spec names.
    pub fn folder(&self, digest: ArtifactDigest) -> Result<&Files, StageError> {
        match self.artifact(digest)? {
            Artifact::Folder(files) => Ok(files),
            Artifact::Blob(_) => {
                Err(StageError::Data(format!("{digest} is a blob, expected a folder").into()))
            }
        }
    }

    fn artifact(&self, digest: ArtifactDigest) -> Result<&Artifact, StageError> {
        let missing =
            || StageError::Internal(format!("{digest} was not handed to the stage").into());
        self.0.get(&digest).ok_or_else(missing)
    }
}

/// What a stage made: artifacts by output name, and metrics.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// The results; their bytes follow from the spec alone.
    pub artifacts: BTreeMap<&'static str, Artifact>,
    /// Finite numbers for people; also a function of the spec.
    pub metrics: BTreeMap<String, f64>,
}

/// Why a stage failed, sorted by what the caller must do. `source` is the error of the library or of ours that
/// caused it; the text already has what a reader needs of it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StageError {
    /// The spec cannot be computed by this program; no retry helps.
    #[error(transparent)]
    Invalid(Message),
    /// An input is not what the spec says; it has to be computed again.
    #[error(transparent)]
    Data(Message),
    /// The device is lost to this process, which has to be started again.
    #[error(transparent)]
    Device(Message),
    /// A defect, or a machine that failed: memory, a C++ exception.
    #[error(transparent)]
    Internal(Message),
}

/// Computes a stage, as a pure function of spec and inputs. The only interface between stages and jobs.
pub type ExecuteFn = Arc<dyn Fn(&StageSpec, &Inputs) -> Result<Outputs, StageError> + Send + Sync>;
