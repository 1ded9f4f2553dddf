//! Finds the CUDA build of libtorch that a GPU needs, and checks its version. The program is linked against libtorch's
//! CPU half alone, so it is the same on every machine. A process that computes on a GPU restarts with a whole libtorch
//! first in the library path (`numerics.rs`). This file downloads and loads nothing.

use std::path::{Path, PathBuf};

use crate::exit::Failure;
use crate::settings::{LIBTORCH, Settings};

/// The library that only a CUDA build has.
const CUDA: &str = "libtorch_cuda.so";
const CPU: &str = "libtorch_cpu.so";

/// A libtorch that can compute on a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CudaBuild {
    /// The folder of its libraries.
    pub(crate) libraries: PathBuf,
    /// As the build gives it: `2.11.0+cu130`.
    pub(crate) version: String,
}

impl CudaBuild {
    /// The one in AGRPO_LIBTORCH, or beside the libtorch that this process runs on.
    pub(crate) fn find(settings: &Settings) -> Result<Self, Failure> {
        let given = settings.variable(LIBTORCH).map(|root| Path::new(root).join("lib"));
        let beside = loaded(CPU).and_then(|library| Some(library.parent()?.to_path_buf()));
        Self::among(given.as_deref(), beside.as_deref())
    }

    /// The library to load first.
    pub(crate) fn library(&self) -> PathBuf {
        self.libraries.join(CUDA)
    }

    /// Whether this process has loaded it.
    pub(crate) fn is_loaded() -> bool {
        loaded(CUDA).is_some()
    }

    /// A folder that the user names is used or refused, never replaced by another.
    fn among(given: Option<&Path>, beside: Option<&Path>) -> Result<Self, Failure> {
        let folder = given.or(beside).filter(|folder| folder.join(CUDA).is_file());
        let searched = match (given, beside) {
            (Some(given), _) => format!("in {} (AGRPO_LIBTORCH)", given.display()),
            (None, Some(beside)) => {
                let beside = beside.display();
                format!("beside the libtorch in use, in {beside}, and AGRPO_LIBTORCH is not set")
            }
            (None, None) => "is known: AGRPO_LIBTORCH is not set".to_owned(),
        };
        let missing = || {
            Failure::unavailable(format!("no {CUDA} {searched}")).hint(
                "set AGRPO_LIBTORCH to a CUDA build of libtorch 2.11.0, as in: export AGRPO_LIBTORCH=\"$(python3 -c \
                 'import torch; print(torch.__path__[0])')\"",
            )
        };
        Self::check(folder.ok_or_else(missing)?)
    }

    /// Refuses another version: its results and its C++ names differ.
    fn check(folder: &Path) -> Result<Self, Failure> {
        if !folder.join(CPU).is_file() {
            let message =
                format!("{} has {CUDA}, but no {CPU} of the same build", folder.display());
            return Err(Failure::unavailable(message));
        }
        let libraries = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
        let (folder, expected) = (libraries.display(), agrpo_compute::libtorch_version());
        let found = version(&libraries).ok_or_else(|| {
            Failure::unavailable(format!(
                "cannot find the version of the libtorch in {folder}: expected build-version or version.py beside \
                 its lib folder"
            ))
        })?;
        let (release, _) = found.split_once('+').unwrap_or((&found, ""));
        if release != expected {
            let message = format!("the libtorch in {folder} is {found}, expected {expected}");
            return Err(Failure::unavailable(message));
        }
        Ok(Self { version: found, libraries })
    }
}

/// From the folder above: libtorch's archives have `build-version`, Python's torch has `version.py`.
fn version(libraries: &Path) -> Option<String> {
    let root = libraries.parent()?;
    let read = |name: &str| std::fs::read_to_string(root.join(name)).ok();
    if let Some(text) = read("build-version") {
        return Some(text.trim().to_owned());
    }
    let text = read("version.py")?;
    let line = text.lines().find_map(|line| line.strip_prefix("__version__"))?;
    let (_, value) = line.split_once('=')?;
    Some(value.trim().trim_matches(['\'', '"']).to_owned())
}

/// The file from which this process loaded a library of this name.
fn loaded(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let mut named = paths.filter(|path| path.file_name().is_some_and(|file| file == name));
    named.next().map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lib")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn found(files: &[(&str, &str)]) -> Result<String, String> {
        let folder = folder(files);
        let found = CudaBuild::among(Some(&folder.path().join("lib")), None);
        let root = folder.path().canonicalize().unwrap();
        found
            .map(|build| build.version)
            .map_err(|failure| failure.message.replace(root.to_str().unwrap(), "[folder]"))
    }

    const LIBRARIES: [(&str, &str); 2] =
        [("lib/libtorch_cuda.so", ""), ("lib/libtorch_cpu.so", "")];

    #[test]
    fn the_version_is_read_wherever_a_build_says_it() {
        let archive = [&LIBRARIES[..], &[("build-version", "2.11.0+cu130\n")]].concat();
        assert_eq!(found(&archive).unwrap(), "2.11.0+cu130");
        let python = "from typing import Optional\n\n__version__ = '2.11.0+cu128'\ndebug = False\n";
        let python = [&LIBRARIES[..], &[("version.py", python)]].concat();
        assert_eq!(found(&python).unwrap(), "2.11.0+cu128");
    }

    #[test]
    fn what_cannot_serve_is_refused_with_its_place() {
        let old = [&LIBRARIES[..], &[("build-version", "2.9.1+cu130")]].concat();
        let said = "the libtorch in [folder]/lib is 2.9.1+cu130, expected 2.11.0";
        assert_eq!(found(&old).unwrap_err(), said);
        assert!(found(&LIBRARIES).unwrap_err().starts_with("cannot find the version"));
        let torn = [LIBRARIES[0], ("build-version", "2.11.0")];
        assert!(found(&torn).unwrap_err().ends_with("no libtorch_cpu.so of the same build"));
        assert!(found(&[]).unwrap_err().ends_with("(AGRPO_LIBTORCH)"), "and no other is taken");
    }
}
