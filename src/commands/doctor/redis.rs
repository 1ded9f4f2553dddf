//! Checks Redis and the clocks' difference.
//!
//! Whatever a worker would refuse at its start is bad here. Leaves Redis as it was.

use agrpo_fleet::Skew;
use agrpo_store::JobsError;

use super::check::Check;
use crate::exit::Failure;
use crate::machine;
use crate::session::Session;

/// The advice about a Redis that was not asked for.
const OPTIONAL: &str = "only agrpo enqueue and agrpo worker need it; agrpo run does not";

/// A check for the server, and one for each setting that is wrong.
pub(super) async fn redis(session: &Session) -> Vec<Check> {
    let is_asked = session.names_redis();
    let objection = |error: JobsError, advice: &str| match is_asked {
        true => Check::bad("redis", &error.into(), advice),
        false => Check::note("redis", error.to_string(), OPTIONAL),
    };
    let fleet = match session.fleet().await {
        Ok(fleet) => fleet,
        Err(error) => {
            return vec![objection(
                error,
                "check --redis or AGRPO_REDIS, and that the server runs",
            )];
        }
    };
    let findings = agrpo_fleet::inspect(&fleet, &machine::environment().worker).await;
    let mut checks: Vec<Check> = findings
        .into_iter()
        .map(|finding| match finding.error {
            // Its message already says what to do.
            Some(error) => objection(error, ""),
            None if finding.advice.is_empty() => Check::ok("redis", finding.found),
            None => Check::note("redis", finding.found, finding.advice),
        })
        .collect();
    match agrpo_fleet::clock_skew(&fleet, &machine::clock()).await {
        Ok(skew) => {
            let check = clock(skew, &format!("that of Redis at {}", fleet.place()));
            let unasked = !is_asked && check.exit != crate::exit::Exit::Done;
            checks.push(if unasked { Check::note("clock", check.found, OPTIONAL) } else { check });
        }
        Err(error) => checks.push(objection(error, "")),
    }
    checks
}

/// Compares this machine's clock with another.
pub(super) fn clock(Skew { ahead_ms, is_too_much }: Skew, other: &str) -> Check {
    if !is_too_much {
        return Check::ok("clock", format!("this machine's agrees with {other}"));
    }
    let seconds = std::time::Duration::from_millis(ahead_ms.unsigned_abs()).as_secs_f64();
    let side = if ahead_ms > 0 { "ahead of" } else { "behind" };
    let found = format!("this machine's clock is {seconds:.1} s {side} {other}");
    Check::bad(
        "clock",
        &Failure::new(crate::exit::Exit::Unavailable, found),
        "workers refuse more than 4 s: set both by NTP (`timedatectl set-ntp true`)",
    )
}
