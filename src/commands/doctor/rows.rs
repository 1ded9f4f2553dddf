//! Checks, for each numerics class of the processor, that a row of a product does not depend on the rows beside it.
//! Only then are ratios of fresh trajectories exactly 1. Each class is checked in its own process, since libraries
//! read their switches once. Changes nothing.

use std::io;
use std::process::{Child, Command, Stdio};

use agrpo_compute::model::check_rows;
use agrpo_spec::Numerics;
use serde::{Deserialize, Serialize};

use crate::commands::prelude::{Exit, Failure, Result, Settings, output};
use crate::numerics;

/// Largest size and number of rows of the shapes: about a second of work in each class.
const LARGEST: i64 = 20;
const ROWS: i64 = 17;

/// What the process of one class finds.
#[derive(Debug, Deserialize, Serialize)]
struct Found {
    shapes: u64,
    failing: Vec<String>,
}

/// Computes the shapes in a class and prints what it found.
pub(super) fn compute(class: Numerics, settings: &Settings) -> Result<Exit> {
    numerics::enter(settings, class, None, None)?;
    let report = check_rows(LARGEST, ROWS);
    output::json(&Found { shapes: report.shapes, failing: report.failing })?;
    Ok(Exit::Done)
}

/// The check of a class that is under way.
pub(super) struct Begun(Numerics, io::Result<Child>);

pub(super) fn begin() -> [Begun; 2] {
    Numerics::OF_CPU.map(|class| Begun(class, spawn(class)))
}

impl Begun {
    /// What holds in the class, or else why it fails and what to do.
    pub(super) fn end(self) -> Result<String, (Failure, &'static str)> {
        let Self(class, child) = self;
        let advice = match class {
            Numerics::CpuNative => "use numerics = \"cpu-portable\" on this machine, and report it",
            _ => "report it with the processor's name; libtorch may be another build",
        };
        let why = match found(child) {
            Ok(Found { shapes, failing }) => match &failing[..] {
                [] => {
                    let sound = "small shapes no row depends on the rows beside it";
                    return Ok(format!("{class}: in {shapes} {sound}"));
                }
                [first, ..] => format!(
                    "in {} of {shapes} small shapes a row depends on the rows beside it; {first}",
                    failing.len()
                ),
            },
            Err(why) => format!("the small shapes cannot be computed: {why}"),
        };
        Err((Failure::unavailable(format!("{class}: {why}")), advice))
    }
}

/// Starts a process of this program that checks a class.
fn spawn(class: Numerics) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["doctor", "--rows", &class.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
}

fn found(child: io::Result<Child>) -> Result<Found, String> {
    let said = child.and_then(Child::wait_with_output).map_err(|error| error.to_string())?;
    serde_json::from_slice(&said.stdout).map_err(|error| format!("{}: {error}", said.status))
}
