//! The program: parses the command line, does what it asks, and ends with a code that means something.
//!
//! The only crate that meets both what is computed and where, and the only one that prints. The parts:
//! `cli` (verbs and help), `settings` (the environment), `commands` (one file a verb), `exit` (codes).

mod cli;
mod commands;
mod exit;
#[cfg(feature = "failpoints")]
mod failpoints;
mod gpu;
mod libtorch;
mod machine;
mod metrics;
mod numerics;
mod output;
mod place;
mod progress;
mod secrets;
mod settings;
mod shell;
mod supervisor;
mod tally;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;
use crate::exit::Exit;

fn main() -> ExitCode {
    telemetry::install_panic_hook();
    let exit = std::panic::catch_unwind(begin).unwrap_or(Exit::Unexpected);
    telemetry::end();
    exit.into()
}

fn begin() -> Exit {
    // Before the command line is read: a mistake in it is answered by repeating it.
    let cli = secrets::refuse_in_arguments(std::env::args_os().skip(1)).map(|()| Cli::try_parse());
    match cli {
        Ok(Ok(cli)) => commands::dispatch(cli).unwrap_or_else(|failure| {
            output::talk(failure.to_string());
            failure.exit()
        }),
        Ok(Err(usage)) => {
            // Help that nobody reads any more is no error.
            usage.print().unwrap_or_default();
            if usage.exit_code() == 0 { Exit::Done } else { Exit::Usage }
        }
        Err(failure) => {
            output::talk(failure.to_string());
            failure.exit()
        }
    }
}
