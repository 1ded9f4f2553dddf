//! Checks, for each numerics class of the processor, that a row of a product does not depend on the rows beside it.
//! Only then are ratios of fresh trajectories exactly 1.
//!
//! Each class is checked in its own process, since libraries read their switches once. Changes nothing.

use std::io;
use std::process::{Child, Command, Stdio};

use agrpo_compute::model::check_rows;
use agrpo_spec::Numerics;
use serde::{Deserialize, Serialize};

use super::check::Check;
use crate::exit::{Exit, Failure};
use crate::numerics;
use crate::output;
use crate::settings::Settings;

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
pub(super) fn compute(class: Numerics, settings: &Settings) -> Result<Exit, Failure> {
    numerics::enter(settings, class, None, None)?;
    let report = check_rows(LARGEST, ROWS);
    output::json(&Found { shapes: report.shapes, failing: report.failing })?;
    Ok(Exit::Done)
}

/// The running processes of both classes.
pub(super) struct Checks(Vec<(Numerics, &'static str, io::Result<Child>)>);

/// Starts them.
pub(super) fn begin() -> Checks {
    let advice = [
        (
            Numerics::CpuPortable,
            "report it with the processor's name; libtorch may be another build",
        ),
        (Numerics::CpuNative, "use numerics = \"cpu-portable\" on this machine, and report it"),
    ];
    Checks(advice.map(|(class, advice)| (class, advice, spawn(class))).into())
}

impl Checks {
    /// Waits for their results.
    pub(super) fn end(self) -> Vec<Check> {
        let checks = self.0.into_iter();
        checks.map(|(class, advice, child)| check(class, advice, found(child))).collect()
    }
}

fn check(class: Numerics, advice: &str, found: Result<Found, String>) -> Check {
    let bad = |why: String| {
        Check::bad("rows", &Failure::new(Exit::Unavailable, format!("{class}: {why}")), advice)
    };
    match found {
        Ok(Found { shapes, failing }) => match &failing[..] {
            [] => Check::ok(
                "rows",
                format!("{class}: in {shapes} small shapes no row depends on the rows beside it"),
            ),
            [first, ..] => bad(format!(
                "in {} of {shapes} small shapes a row depends on the rows beside it; {first}",
                failing.len()
            )),
        },
        Err(why) => bad(format!("the small shapes cannot be computed: {why}")),
    }
}

/// Starts a process of this program that checks a class.
fn spawn(class: Numerics) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["doctor", "--rows", &class.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
}

/// The result of such a process.
fn found(child: io::Result<Child>) -> Result<Found, String> {
    let said = child.and_then(Child::wait_with_output).map_err(|error| error.to_string())?;
    serde_json::from_slice(&said.stdout).map_err(|error| format!("{}: {error}", said.status))
}
