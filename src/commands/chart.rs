//! The file of a chart that was asked for with `--plot`. What is drawn is the verb's.

use std::path::Path;

use crate::commands::plain;
use crate::exit::Failure;

/// Finds out before hours of work that the chart cannot be written.
pub(super) fn check_place(place: &Path) -> Result<(), Failure> {
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
    Ok(())
}

/// Writes a chart.
pub(super) fn write(place: &Path, svg: &str) -> Result<(), Failure> {
    std::fs::write(place, svg).map_err(|error| {
        Failure::usage(format!("--plot {}: cannot write: {}", place.display(), plain(&error)))
    })
}
