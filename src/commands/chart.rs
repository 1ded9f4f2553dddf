//! The file that `--plot` names: checked before the work, written after the answer. What is drawn is up to the verb.

use std::path::Path;

use agrpo_store::regular;

use crate::commands::files::{plain, try_writing};
use crate::exit::Failure;
use crate::output;

/// Checks before hours of work that the chart can be written.
pub(super) fn check_writable(place: &Path) -> Result<(), Failure> {
    let shown = place.display();
    if place.extension().is_none_or(|extension| extension != "svg") {
        return Err(Failure::usage(format!("--plot {shown}: expected a name that ends in .svg")));
    }
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder
        && !folder.is_dir()
    {
        let folder = folder.display();
        return Err(Failure::usage(format!("--plot {shown}: there is no folder {folder}")));
    }
    try_writing(place).map_err(|error| unwritable(place, &error))
}

/// Writes a chart; after the answer, so that an error loses no measurement.
pub(super) fn write(place: &Path, svg: &str) -> Result<(), Failure> {
    regular::write(place, svg.as_bytes()).map_err(|error| unwritable(place, &error))?;
    output::talk(format!("wrote {}", place.display()));
    Ok(())
}

fn unwritable(place: &Path, error: &std::io::Error) -> Failure {
    let (place, why) = (place.display(), plain(error));
    Failure::usage(format!("--plot {place}: cannot write there: {why}; name another file"))
}
