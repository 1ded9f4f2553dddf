//! `agrpo man`: writes manual pages, made from the command line's own definition.
//!
//! One page for the program and one for each verb that its help lists. Writes nothing else.

use clap::CommandFactory;

use crate::args::{Cli, ManArgs};
use crate::commands::files::plain;
use crate::exit::{Exit, Failure};
use crate::output;

/// Writes the pages and says where.
pub(super) fn man(args: &ManArgs) -> Result<Exit, Failure> {
    let folder = &args.folder;
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
    written.map_err(|error| {
        Failure::usage(format!("cannot write to {}: {}", folder.display(), plain(&error)))
    })?;
    output::line(format!("{}: agrpo.1 and a page for each command", folder.display()))?;
    Ok(Exit::Done)
}
