//! The program: parses the command line, does what it asks, and ends with a code that means something. The only crate
//! that uses both what is computed and where, and the only one that prints, reads the environment and exits.

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

use crate::{args::Cli, exit::Exit};

fn main() -> ExitCode {
    telemetry::install_panic_hook();
    let exit = std::panic::catch_unwind(begin).unwrap_or(Exit::Unexpected);
    telemetry::end();
    ExitCode::from(exit as u8)
}

fn begin() -> Exit {
    // Before the command line is read: a mistake in it is answered by repeating it.
    let refused = secrets::refuse_in_arguments(std::env::args_os().skip(1));
    let done = match refused.map(|()| Cli::read(std::env::args_os())) {
        Ok(Ok(cli)) => commands::dispatch(cli),
        Ok(Err(help)) if help.exit_code() == 0 => {
            output::written(help.print()).map(|()| Exit::Done)
        }
        Ok(Err(usage)) => {
            // A closed stderr leaves no way to report it.
            usage.print().unwrap_or_default();
            return Exit::Usage;
        }
        Err(failure) => Err(failure),
    };
    done.unwrap_or_else(|failure| {
        output::talk(failure.to_string());
        failure.exit
    })
}
