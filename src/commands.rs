//! One file a verb, and what several verbs share: the store, the run file, the signals.
//!
//! Every verb takes its arguments and the settings, prints its answer and says how the program ends.
//! No verb knows another.

mod bench_gpu;
mod chart;
mod compare;
mod completions;
mod computing;
mod control;
mod doctor;
mod dry_run;
mod enqueue;
mod evaluate;
mod export;
mod forget;
mod gc;
mod import;
mod init;
mod lost;
mod man;
mod policies;
mod replay;
mod report;
mod run;
mod score;
mod serve;
mod show;
mod sources;
mod status;
mod tune;
mod verify;
mod watch;
mod worker;

use std::fs::OpenOptions;
use std::future::Future;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use agrpo_jobs::{Address, Hold, Store, regular};
use agrpo_scorer::Programs;
use agrpo_spec::{Base, Inputs, Run, RunConfig, Source, utf_8};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch::{Receiver, channel};

use crate::cli::{CacheArgs, Cli, Command, RunFileArgs, StoreArgs};
use crate::exit::{Exit, Failure};
use crate::machine;
use crate::numerics;
use crate::output;
use crate::settings::{Resolved, Settings};
use crate::shell;
use crate::telemetry;

/// Does what the command line asks for.
pub(crate) fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    let settings = Settings::from_environment()?;
    let level = if matches!(cli.command, Command::Worker(_)) { "info" } else { "warn" };
    telemetry::start(&settings, cli.log_format, level)?;
    for stranger in settings.strangers() {
        output::talk(format!("warning: {stranger}"));
    }
    #[cfg(feature = "failpoints")]
    crate::failpoints::arm(&settings)?;
    match cli.command {
        Command::Init(args) => init::init(&args),
        Command::Man(args) => man::man(&args),
        Command::Run(args) => run::run(&args, &settings),
        Command::Enqueue(args) => enqueue::enqueue(&args, &settings),
        Command::Worker(args) => worker::worker(&args, &settings),
        Command::Status(args) => status::status(&args, &settings),
        Command::Pause(args) => control::hold(&args.control, &settings, Hold::Paused),
        Command::Resume(args) => control::resume(&args.control, &settings),
        Command::Cancel(args) => control::hold(&args.control, &settings, Hold::Cancelled),
        Command::Retry(args) => control::retry(&args.control, &settings),
        Command::Show(args) => show::show(&args, &settings),
        Command::Report(args) => report::report(&args, &settings),
        Command::Watch(args) => watch::watch(&args, &settings),
        Command::Serve(args) => serve::serve(&args, &settings),
        Command::Export(args) => export::export(&args, &settings),
        Command::Import(args) => import::import(&args, &settings),
        Command::Replay(args) => replay::replay(&args, &settings),
        Command::Verify(args) => verify::verify(&args, &settings),
        Command::Gc(args) => gc::gc(&args, &settings),
        Command::Forget(args) => forget::forget(&args, &settings),
        Command::Evaluate(args) => evaluate::evaluate(&args, &settings),
        Command::Compare(args) => compare::compare(&args, &settings),
        Command::Tune(args) => tune::tune(&args, &settings),
        Command::Score(args) => score::score(&args, &settings),
        Command::Doctor(args) => doctor::doctor(&args, &settings),
        Command::BenchGpu(args) => bench_gpu::bench_gpu(&args, &settings),
        Command::Completions(args) => completions::completions(&args),
    }
}

/// Runs a verb's asynchronous part. Stages run on the blocking pool, so two threads serve the rest.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Unexpected, format!("cannot start threads: {error}")))?
        .block_on(work)
}

/// The store to write to, made if it is a folder that is not there yet. A server has to create objects
/// only where there are none, which is found out once.
async fn create_store(settings: &Settings, flag: Option<&str>) -> Result<Store, Failure> {
    static ASKED: AtomicBool = AtomicBool::new(false);
    let store = connect(settings, flag).await?;
    if !ASKED.swap(true, Ordering::Relaxed) {
        store.check_creates(&machine::environment().worker).await?;
    }
    Ok(store)
}

/// The store to write to, with this host's cache of blobs.
async fn cached_store(
    settings: &Settings,
    flag: Option<&str>,
    cache: &CacheArgs,
) -> Result<Store, Failure> {
    let limit = settings.cache_size(cache.cache_size)?;
    let store = create_store(settings, flag).await?;
    let folder = settings.cache(cache.cache.as_deref());
    Ok(folder.map_or_else(|| store.clone(), |folder| store.with_cache(&folder, limit)))
}

async fn connect(settings: &Settings, flag: Option<&str>) -> Result<Store, Failure> {
    let url = settings.store(flag).value;
    Store::open(&url, &settings.object_store_options()).await.map_err(|error| {
        let failure = Failure::from(error);
        match failure.exit() {
            Exit::Unavailable => failure.hint(format!("agrpo doctor{}", store_option(flag))),
            _ => failure,
        }
    })
}

/// The store, which has to be there: asking about results creates nothing.
async fn open_store(settings: &Settings, flag: Option<&str>) -> Result<Store, Failure> {
    let Resolved { value, given } = settings.store(flag);
    if let Some(folder) = local_folder(&value)
        && !folder.is_dir()
    {
        let place = std::path::absolute(&folder).unwrap_or(folder);
        let failure = Failure::usage(format!("no store at {}", place.display()));
        return Err(if given {
            failure.hint("name another with --store or AGRPO_STORE; agrpo run FILE creates one")
        } else {
            failure.hint("agrpo run FILE creates it").hint(
                "if it is elsewhere: go to the folder where agrpo run was started, or name it with --store",
            )
        });
    }
    connect(settings, flag).await
}

/// The folder of a store on this machine; `None` for the others, and for what is no store.
fn local_folder(url: &str) -> Option<PathBuf> {
    Address::parse(url).ok()?.folder()
}

/// ` --store URL` for commands that are suggested; empty where they need none.
fn store_option(flag: Option<&str>) -> String {
    flag.map(|url| format!(" --store {}", shell::word(url))).unwrap_or_default()
}

/// Bytes of the longest run file, and of a file that is written like one.
const LONGEST_TEXT: u64 = 1 << 20;

/// A file's text; `-` is standard input. No more is read than tells that it is too long.
fn read_text(file: &Path) -> Result<String, Failure> {
    let refuse = |why: &str| Failure::usage(format!("cannot read {}: {why}", name_of(file)));
    let refuse_io = |error: std::io::Error| refuse(&plain(&error));
    let mut source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(regular::open(file).map_err(refuse_io)?)
    };
    let mut bytes = vec![];
    let read = source.by_ref().take(LONGEST_TEXT + 1).read_to_end(&mut bytes).map_err(refuse_io)?;
    if read as u64 > LONGEST_TEXT {
        return Err(refuse(&format!("more than {LONGEST_TEXT} bytes: this is no run file")));
    }
    // Some editors put a mark of byte order first.
    let text = utf_8(&bytes).map_err(|why| refuse(&why))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned())
}

/// What messages call a file.
fn name_of(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

/// An operating system's error without its number, for a message that names the path itself.
fn plain(error: &std::io::Error) -> String {
    let text = regular::reason(error).unwrap_or_else(|| error.to_string());
    let text = text.split(" (os error").next().unwrap_or_default();
    text.chars().take(1).flat_map(char::to_lowercase).chain(text.chars().skip(1)).collect()
}

/// A checked run, with another seed where one is given, and the text it came from, which a restart
/// hands over. The files that it names are in the store.
fn read_run(
    asked: &RunFileArgs,
    store: &StoreArgs,
    settings: &Settings,
) -> Result<(Run, String), Failure> {
    let (named, text) = read_sources(asked, settings)?;
    fetch_run(asked, (&named, text), store, settings)
}

/// The run of a text, once the files that it names are in the store.
fn fetch_run(
    asked: &RunFileArgs,
    (named, text): (&[Source], String),
    store: &StoreArgs,
    settings: &Settings,
) -> Result<(Run, String), Failure> {
    let flag = store.store.as_deref();
    let text = match named {
        [] => text,
        named => block_on(sources::fetched(&text, named, settings, flag))
            .map_err(|failure| failure.at(name_of(&asked.file)))?,
    };
    let run = parse_run(&text, asked)?;
    // Before a restart it was looked at already.
    if numerics::handed_over(settings).is_none() {
        let problems = run.config().evaluation.problems;
        check_run(&run, problems, settings, flag)
            .map_err(|failure| sources::placed(failure, named).at(name_of(&asked.file)))?;
    }
    Ok((run, text))
}

/// The run file's text, and the files that it names.
fn read_sources(
    asked: &RunFileArgs,
    settings: &Settings,
) -> Result<(Vec<Source>, String), Failure> {
    let text = match numerics::handed_over(settings) {
        Some(text) => return Ok((vec![], text.to_owned())),
        None => read_text(&asked.file).map_err(|failure| {
            failure.hint("jobs/runs/smoke.toml is a small run with every key explained")
        })?,
    };
    let named = sources::named(&text, &asked.file, &asked.sources);
    Ok((named.map_err(|failure| failure.at(name_of(&asked.file)))?, text))
}

/// The run that a text without addresses describes, with another seed or numerics class where one is
/// given.
fn parse_run(text: &str, asked: &RunFileArgs) -> Result<Run, Failure> {
    let run = Run::parse(text).and_then(|run| {
        let config = run.config();
        let seed = asked.seed.unwrap_or(config.seed);
        let numerics = asked.numerics.unwrap_or(config.numerics);
        Run::resolve(RunConfig { seed, numerics, ..config.clone() })
    });
    run.map_err(|error| Failure::from(error).at(name_of(&asked.file)))
}

/// Refuses a run whose problems are too few or too long before anything is computed for it.
fn check_run(
    run: &Run,
    problems: u32,
    settings: &Settings,
    store: Option<&str>,
) -> Result<(), Failure> {
    let is_drawn = run.config().material().is_empty() && matches!(run.base(), Base::Scratch(..));
    let inputs = if !is_drawn {
        block_on(async { sources::material(run, &create_store(settings, store).await?).await })?
    } else {
        Inputs::default()
    };
    // The run file is wrong, or what it names is: nothing that was computed is.
    let programs = Programs::new(settings.path());
    agrpo_stages::check_run(run, problems, &inputs, &programs)
        .map_err(|error| Failure::usage(error.to_string()))
}

/// Finds out before hours of work that a file cannot be written; what it holds stays. A FIFO or a device is
/// refused: opening one may wait for ever.
fn try_writing(place: &Path) -> std::io::Result<()> {
    let is_new = !place.exists();
    regular::open_with(place, OpenOptions::new().append(true).create(true))?;
    if is_new { std::fs::remove_file(place) } else { Ok(()) }
}

/// Turns true at the first Ctrl-C or SIGTERM, after `tell`; the second one ends the program.
fn stop_signal(tell: fn()) -> Result<Receiver<bool>, Failure> {
    let (stop, stopped) = channel(false);
    on_signals(move |first| {
        if first {
            tell();
            stop.send_replace(true);
        } else {
            output::talk("stopped at once");
            Exit::Interrupted.at_once();
        }
    })?;
    Ok(stopped)
}

/// Calls `told` at the first Ctrl-C or SIGTERM with true, and with false at those that follow.
fn on_signals(told: impl Fn(bool) + Send + 'static) -> Result<(), Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| {
            Failure::new(Exit::Unexpected, format!("cannot listen for signals: {error}"))
        })
    };
    let (mut interrupt, mut terminate) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    #[expect(clippy::disallowed_methods, reason = "lives until the program ends, and cannot fail")]
    let listener = tokio::spawn(async move {
        let mut first = true;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            told(first);
            first = false;
        }
    });
    drop(listener);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_are_folders() {
        assert_eq!(local_folder(".agrpo"), Some(".agrpo".into()));
        assert_eq!(local_folder("file:///data/x"), Some("/data/x".into()));
        assert_eq!(local_folder("s3://bucket/x"), None);
        assert_eq!(local_folder("s3:/bucket/x"), None);
    }
}
