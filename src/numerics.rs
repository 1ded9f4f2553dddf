//! The pins of a numerics class, and the one restart that puts them in place.
//!
//! libtorch, oneDNN, MKL and OpenMP read their switches from the environment before the first tensor
//! operation, so a process that computes starts itself again once with the switches of its class set
//! and everything else that could move a bit unset. Commands that compute nothing never restart.

use std::os::unix::process::CommandExt;
use std::process::Command;

use agrpo_spec::Numerics;

use crate::exit::{Exit, Failure};
use crate::settings::Settings;

/// Says which class the environment was made for, so that a restart happens at most once.
const MARKER: &str = "AGRPO_NUMERICS";
/// A run file that could be read only once (a pipe), handed through the restart.
const RUN_TEXT: &str = "AGRPO_RUN_TEXT";

/// Every class that a processor can honour.
pub(crate) const ALL: [Numerics; 2] = [Numerics::CpuPortable, Numerics::CpuNative];

/// Every variable that can move a bit, with its value in the class; `None` has to be unset.
fn pins(class: Numerics) -> [(&'static str, Option<&'static str>); 10] {
    let portable = |value| match class {
        Numerics::CpuPortable => Some(value),
        Numerics::CpuNative => None,
    };
    [
        ("ATEN_CPU_CAPABILITY", portable("avx2")),
        ("ONEDNN_MAX_CPU_ISA", portable("AVX2")),
        ("MKL_CBWR", portable("COMPATIBLE")),
        ("OMP_NUM_THREADS", Some("1")),
        ("MKL_NUM_THREADS", Some("1")),
        ("DNNL_MAX_CPU_ISA", None),
        ("MKL_ENABLE_INSTRUCTIONS", None),
        ("MKL_DEBUG_CPU_TYPE", None),
        ("ONEDNN_DEFAULT_FPMATH_MODE", None),
        ("DNNL_DEFAULT_FPMATH_MODE", None),
    ]
}

/// Whether this process runs under the pins of the class.
pub(crate) fn is_pinned(settings: &Settings, class: Numerics) -> bool {
    pins(class).iter().all(|&(name, value)| settings.variable(name) == value)
}

/// The class's switches, for people: `ATEN_CPU_CAPABILITY=avx2 ...`.
pub(crate) fn describe(class: Numerics) -> String {
    let set =
        pins(class).into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    set.collect::<Vec<_>>().join(" ")
}

/// Puts the process under the pins of the class: returns if it is, and starts again if it is not.
/// `run_text` is what [`handed_over`] answers after a restart.
pub(crate) fn enter(
    settings: &Settings,
    class: Numerics,
    run_text: Option<&str>,
) -> Result<(), Failure> {
    if is_pinned(settings, class) {
        agrpo_stages::use_one_thread();
        return Ok(());
    }
    if settings.variable(MARKER) == Some(class.name()) {
        return Err(Failure::new(
            Exit::Unexpected,
            format!("the numerics pins of {class} did not survive a restart of the program"),
        )
        .hint(format!("unset {MARKER}, and start agrpo without a wrapper that sets variables")));
    }
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(Exit::Unexpected, format!("cannot find itself: {error}")))?;
    let mut command = Command::new(&program);
    command.args(std::env::args_os().skip(1)).env(MARKER, class.name());
    for (name, value) in pins(class) {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(text) = run_text {
        command.env(RUN_TEXT, text);
    }
    // Only a failure comes back.
    let error = command.exec();
    Err(Failure::new(Exit::Unexpected, format!("cannot restart {}: {error}", program.display())))
}

/// The class that the last restart was for.
pub(crate) fn entered(settings: &Settings) -> Option<Numerics> {
    let name = settings.variable(MARKER)?;
    ALL.into_iter().find(|class| class.name() == name)
}

/// The run file's text, where the process before the restart has already read it.
pub(crate) fn handed_over(settings: &Settings) -> Option<&str> {
    settings.variable(MARKER).and_then(|_| settings.variable(RUN_TEXT))
}
