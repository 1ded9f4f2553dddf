//! The dispatcher: from a parsed command line to the file of its verb. In each file the function named after the verb
//! takes its arguments and the session, prints the answer (`Answer` is what `--json` prints) and returns how the
//! program ends. No verb uses another; what several share is in `run_file`, `files`, `computing`,
//! `dry_run`, `resolve` and `recovery`.

mod bench_gpu;
mod compare;
mod computing;
mod control;
mod definition;
mod doctor;
mod dry_run;
mod enqueue;
mod evaluate;
mod export;
mod files;
mod forget;
mod gc;
mod import;
mod init;
mod prelude;
mod recovery;
mod replay;
mod report;
mod resolve;
mod run;
mod run_file;
mod score;
mod serve;
mod show;
mod status;
mod tune;
mod verify;
mod watch;
mod worker;

use agrpo_store::Hold::{Cancelled, Paused};

use self::control::{Action, control};
use crate::args::{Cli, Command};
use crate::exit::{Exit, Failure};
use crate::session::Session;
use crate::settings::Settings;
use crate::{output, telemetry};

/// Does what the command line asks for.
pub(crate) fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    let settings = Settings::from_environment()?;
    let level = if matches!(cli.command, Command::Worker(_)) { "info" } else { "warn" };
    telemetry::start(&settings, cli.log_format, level)?;
    for warning in settings.unknown_variables() {
        output::talk(format!("warning: {warning}"));
    }
    #[cfg(debug_assertions)]
    crate::failpoints::arm(&settings)?;
    let session = Session::new(settings);
    match cli.command {
        Command::Init(args) => init::init(&args),
        Command::Man(args) => definition::man(&args),
        Command::Completions(args) => definition::completions(&args),
        Command::Score(args) => score::score(&args, &session),
        Command::BenchGpu(args) => bench_gpu::bench_gpu(&args, &session),
        Command::Run(args) => run::run(&args, &session.with_store(&args.store)),
        Command::Show(args) => show::show(&args, &session.with_store(&args.store)),
        Command::Report(args) => report::report(&args, &session.with_store(&args.store)),
        Command::Export(args) => export::export(&args, &session.with_store(&args.store)),
        Command::Import(args) => import::import(&args, &session.with_store(&args.store)),
        Command::Replay(args) => replay::replay(&args, &session.with_store(&args.store)),
        Command::Verify(args) => verify::verify(&args, &session.with_store(&args.store)),
        Command::Gc(args) => gc::gc(&args, &session.with_store(&args.store)),
        Command::Forget(args) => forget::forget(&args, &session.with_store(&args.store)),
        Command::Evaluate(args) => evaluate::evaluate(&args, &session.with_store(&args.store)),
        Command::Compare(args) => compare::compare(&args, &session.with_store(&args.store)),
        Command::Tune(args) => tune::tune(&args, &session.with_store(&args.store)),
        Command::Enqueue(args) => enqueue::enqueue(&args, &session.with_fleet(&args.fleet)),
        Command::Worker(args) => worker::worker(&args, &session.with_fleet(&args.fleet)),
        Command::Status(args) => status::status(&args, &session.with_fleet(&args.fleet)),
        Command::Serve(args) => serve::serve(&args, &session.with_fleet(&args.fleet)),
        Command::Watch(args) => watch::watch(&args, &session.with_fleet(&args.fleet)),
        Command::Doctor(args) => doctor::doctor(&args, &session.with_fleet(&args.fleet)),
        Command::Pause(args) => {
            control(&args, &session.with_fleet(&args.fleet), &Action::Hold(Paused))
        }
        Command::Cancel(args) => {
            control(&args, &session.with_fleet(&args.fleet), &Action::Hold(Cancelled))
        }
        Command::Resume(args) => control(&args, &session.with_fleet(&args.fleet), &Action::Resume),
        Command::Retry(args) => control(&args, &session.with_fleet(&args.fleet), &Action::Retry),
    }
}
