//! `agrpo completions`: a script for a shell, made from the command line's own definition.
//!
//! Installs nothing; the help says where to put the script.

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};
use crate::exit::{Exit, Failure};
use crate::output;

/// Prints the script.
pub(super) fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut Cli::command(), "agrpo", &mut script);
    output::bytes(&script)?;
    Ok(Exit::Done)
}
