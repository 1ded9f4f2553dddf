//! The program: parses the command line, does what it asks, and ends with a code that means something.
//!
//! The only crate that uses both what is computed and where, and the only one that prints, reads the environment
//! and exits. Its parts, each of which uses only those before it:
//! - `exit` (errors and their codes), `output` (all that is printed), `secrets`, `settings` (the environment),
//!   `machine` (processor, clock, version);
//! - `args` (verbs, options, help), `telemetry` (the log), `signals`, `shell` (quoting), `failpoints`;
//! - `gpu`, `libtorch`, `numerics` (the pins of a numerics class), `device` (what a command computes on);
//! - `run_summary`, `progress`, `metrics`, `supervisor`: a run or a worker as it goes;
//! - `session` (one runtime, one store, one Redis connection), `commands` (one file a verb).

mod args;
mod commands;
mod device;
mod exit;
#[cfg(debug_assertions)]
mod failpoints;
mod gpu;
mod libtorch;
mod machine;
mod metrics;
mod numerics;
mod output;
mod progress;
mod run_summary;
mod secrets;
mod session;
mod settings;
mod shell;
mod signals;
mod supervisor;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
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
            // A reader that closed its end of the pipe is no error.
            usage.print().unwrap_or_default();
            if usage.exit_code() == 0 { Exit::Done } else { Exit::Usage }
        }
        Err(failure) => {
            output::talk(failure.to_string());
            failure.exit()
        }
    }
}
