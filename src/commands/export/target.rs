//! The file or folder that an export writes, whole or not at all, and the summary of it. Everything is written beside
//! the target and then renamed, so no reader sees half of it and a full disk leaves the old files. Existing files are
//! replaced only with --force, and a folder only if every file in it is from an earlier export: `agrpo.json` lists
//! them. Links and devices are never replaced.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::{collections::BTreeMap, ffi::OsStr, os::unix::fs::PermissionsExt};

use agrpo_spec::{ArtifactDigest, DigestStream, OutputRecord, RunId};
use agrpo_store::regular;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

use crate::args::FormatArg;
use crate::commands::files::{names, unwritable};
use crate::commands::prelude::{Failure, Result, Serialize, output};

/// Marks an exported folder and lists what was written into it.
const RECORD: &str = "agrpo.json";

/// Prefix of the names of unfinished files.
const STAGED: &str = ".agrpo-export-";

/// A folder that is being written.
#[derive(Debug)]
pub(super) struct Folder {
    target: PathBuf,
    staged: TempDir,
    /// Whether an earlier export that is there may be replaced.
    force: bool,
    files: BTreeMap<String, OutputRecord>,
}

#[derive(Debug)]
pub(super) struct Sink {
    path: PathBuf,
    file: BufWriter<File>,
    digest: DigestStream,
    size: u64,
}

impl Sink {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| unwritable(&self.path, &error))
    }
}

impl Folder {
    /// Refuses a target that may not be written, before anything is computed for it.
    pub(super) fn begin(target: &Path, force: bool) -> Result<Self> {
        // Without a slash at its end, which would follow a link.
        let target: PathBuf = target.components().collect();
        match fs::symlink_metadata(&target) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(unwritable(&target, &error)),
            Ok(found) if !found.is_dir() => {
                let why = "is no folder; name one that is not there yet";
                return Err(Failure::usage(format!("{} {why}", target.display())));
            }
            Ok(_) => replaceable(&target, force)?,
        }
        let parent = parent(&target)?;
        let staged = tempfile::Builder::new()
            .prefix(STAGED)
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(parent)
            .map_err(|error| unwritable(&target, &error))?;
        Ok(Self { target, staged, force, files: BTreeMap::new() })
    }

    pub(super) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.fill(name, |sink| sink.write(bytes))
    }

    /// Writes a file piece by piece.
    pub(super) fn fill(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut Sink) -> Result<()>,
    ) -> Result<()> {
        if Path::new(name).file_name() != Some(OsStr::new(name)) {
            return Err(Failure::data(format!(
                "a folder in the store has a file called {name:?}, which is no name"
            )));
        }
        let path = self.target.join(name);
        let failed = |error: io::Error| unwritable(&path, &error);
        let file = BufWriter::new(File::create(self.staged.path().join(name)).map_err(failed)?);
        let digest = DigestStream::default();
        let mut sink = Sink { path: path.clone(), file, digest, size: 0 };
        fill(&mut sink)?;
        let file = sink.file.into_inner().map_err(|error| failed(error.into_error()))?;
        // A full disk may report it only here.
        file.sync_all().map_err(failed)?;
        let entry = OutputRecord { digest: sink.digest.finish(), size: sink.size };
        self.files.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Renames the folder to its target, with a record of its files; `about` describes their source.
    pub(super) fn finish(mut self, about: &Value) -> Result<BTreeMap<String, OutputRecord>> {
        let mut record = about.clone();
        record["files"] = serde_json::json!(self.files);
        self.write(RECORD, format!("{record:#}\n").as_bytes())?;
        let failed = |error: io::Error| unwritable(&self.target, &error);
        let staged = self.staged.path();
        match fs::rename(staged, &self.target) {
            Ok(()) => {}
            // The old folder gets the staged folder's name, and is deleted with it.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                replaceable(&self.target, self.force)?;
                renameat_with(CWD, staged, CWD, &self.target, RenameFlags::EXCHANGE)
                    .map_err(|error| failed(error.into()))?;
            }
            Err(error) => return Err(failed(error)),
        }
        Ok(self.files)
    }
}

/// Refuses to replace a folder with files of other origin.
fn replaceable(target: &Path, force: bool) -> Result<()> {
    let found = names(target).map_err(|error| unwritable(target, &error))?;
    if found.is_empty() {
        return Ok(());
    }
    if !force {
        return Err(is_there(target));
    }
    let record = regular::read(&target.join(RECORD)).ok();
    let record: Value = record.and_then(|r| serde_json::from_slice(&r).ok()).unwrap_or_default();
    let written = |name: &str| name == RECORD || record["files"].get(name).is_some();
    match found.iter().find(|name| !written(name)) {
        Some(other) => Err(Failure::usage(format!(
            "{}: --force would delete {other}, which no export wrote there; move it away, or name another \
             folder",
            target.display()
        ))),
        None => Ok(()),
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) format: FormatArg,
    pub(super) output: String,
    pub(super) run: Option<RunId>,
    pub(super) name: Option<String>,
    pub(super) iteration: Option<u32>,
    pub(super) policy: Option<ArtifactDigest>,
    /// Iterations that have a row.
    pub(super) rows: Option<usize>,
    pub(super) files: BTreeMap<String, OutputRecord>,
}

impl Summary {
    pub(super) fn describe(&self) -> String {
        let mut rows =
            vec![("wrote", format!("{} ({})", self.output, output::name_of(&self.format)))];
        if let (Some(run), Some(name)) = (self.run, &self.name) {
            rows.push(("run", format!("{run} ({name})")));
        }
        if let Some(policy) = self.policy {
            let iteration = self.iteration.map(|n| format!(" ({})", output::policy(n)));
            rows.push(("policy", format!("{policy}{}", iteration.unwrap_or_default())));
        }
        rows.extend(self.rows.map(|rows| ("rows", rows.to_string())));
        format!("{}\n{}", output::fields(&rows), output::files(&self.files))
    }
}

/// Writes a file whole or not at all; one that is there only with --force.
pub(super) fn write_file(target: &Path, bytes: &[u8], force: bool) -> Result<OutputRecord> {
    let place = target.display();
    match fs::symlink_metadata(target) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(unwritable(target, &error)),
        Ok(found) if !found.is_file() => {
            let what = if found.is_dir() { "a folder" } else { "no plain file" };
            let message = format!("{place} is {what}; name a file, or - for standard output");
            return Err(Failure::usage(message));
        }
        Ok(_) if !force => return Err(is_there(target)),
        Ok(_) => {}
    }
    let failed = |error: io::Error| unwritable(target, &error);
    let staged = tempfile::Builder::new()
        .prefix(STAGED)
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(parent(target)?);
    let mut staged: NamedTempFile = staged.map_err(failed)?;
    staged.write_all(bytes).map_err(failed)?;
    staged.as_file().sync_all().map_err(failed)?;
    let named = if force { staged.persist(target) } else { staged.persist_noclobber(target) };
    named.map_err(|error| match error.error.kind() {
        ErrorKind::AlreadyExists => is_there(target),
        _ => failed(error.error),
    })?;
    Ok(OutputRecord { digest: ArtifactDigest::of(bytes), size: bytes.len() as u64 })
}

/// The folder that the target is in, created if it is missing.
fn parent(target: &Path) -> Result<&Path> {
    let parent = match target.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(is_there(target)),
    };
    fs::create_dir_all(parent).map_err(|error| unwritable(target, &error))?;
    Ok(parent)
}

/// The error about a file or folder that only --force replaces.
fn is_there(target: &Path) -> Failure {
    Failure::usage(format!(
        "{} is there already; name another place, or replace it with --force",
        target.display()
    ))
}
