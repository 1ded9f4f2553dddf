//! `agrpo completions` and `agrpo man`: scripts and pages made from the command line's own definition. Installs
//! nothing; the help says where to put a script.

use clap::CommandFactory;

use super::files::unwritable;
use super::prelude::{Exit, Result, output};
use crate::args::{Cli, CompletionsArgs, ManArgs};

pub(super) fn completions(args: &CompletionsArgs) -> Result<Exit> {
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut Cli::command(), "agrpo", &mut script);
    output::bytes(&script).map(|()| Exit::Done)
}

/// Writes a manual page for the program and for each verb that its help lists, and says where.
pub(super) fn man(args: &ManArgs) -> Result<Exit> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .map_err(|error| unwritable(folder, &error))?;
    let text = format!("{}: agrpo.1 and a page for each command", folder.display());
    output::line(text).map(|()| Exit::Done)
}
