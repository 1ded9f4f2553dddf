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
mod gc;
mod import;
mod init;
mod live;
mod prelude;
mod recovery;
mod replay;
mod report;
mod resolve;
mod run;
mod run_file;
mod score;
mod show;
mod status;
mod tune;
mod verify;
mod worker;

use agrpo_store::Hold::{Cancelled, Paused};

use self::control::{Action, control};
use crate::args::{Cli, Command};
use crate::exit::{Exit, Result};
use crate::{output, session::Session, settings::Settings, telemetry};

pub(crate) fn dispatch(cli: Cli) -> Result<Exit> {
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
        Command::Show(args) => show::show(&args, &session.with_store(&args.answer.place)),
        Command::Report(args) => report::report(&args, &session.with_store(&args.store)),
        Command::Export(args) => export::export(&args, &session.with_store(&args.answer.place)),
        Command::Import(args) => import::import(&args, &session.with_store(&args.answer.place)),
        Command::Replay(args) => replay::replay(&args, &session.with_store(&args.answer.place)),
        Command::Verify(args) => verify::verify(&args, &session.with_store(&args.answer.place)),
        Command::Gc(args) => gc::gc(&args, &session.with_store(&args.answer.place)),
        Command::Forget(args) => gc::forget(&args, &session.with_store(&args.answer.place)),
        Command::Evaluate(args) => {
            evaluate::evaluate(&args, &session.with_store(&args.answer.place))
        }
        Command::Compare(args) => compare::compare(&args, &session.with_store(&args.store)),
        Command::Tune(args) => tune::tune(&args, &session.with_store(&args.answer.place)),
        Command::Enqueue(args) => enqueue::enqueue(&args, &session.with_fleet(&args.answer.place)),
        Command::Worker(args) => worker::worker(&args, &session.with_fleet(&args.fleet)),
        Command::Status(args) => status::status(&args, &session.with_fleet(&args.answer.place)),
        Command::Serve(args) => live::serve(&args, &session.with_fleet(&args.fleet)),
        Command::Watch(args) => live::watch(&args, &session.with_fleet(&args.fleet)),
        Command::Doctor(args) => doctor::doctor(&args, &session.with_fleet(&args.fleet)),
        Command::Pause(args) => control(&args, session, &Action::Hold(Paused)),
        Command::Cancel(args) => control(&args, session, &Action::Hold(Cancelled)),
        Command::Resume(args) => control(&args, session, &Action::Resume),
        Command::Retry(args) => control(&args, session, &Action::Retry),
    }
}
