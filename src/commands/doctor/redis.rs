//! What doctor finds out about Redis, and how far the clocks are apart.
//!
//! Everything that a worker would be refused for is bad here, before one is started. Redis is left as it was.

use agrpo_jobs::{Fleet, JobsError, Skew};

use super::Check;
use crate::cli::DoctorArgs;
use crate::exit::Failure;
use crate::machine;
use crate::settings::Settings;

/// What only some commands need.
const OPTIONAL: &str = "only agrpo enqueue and agrpo worker need it; agrpo run does not";

/// One line for the server, and one for each thing that is not as it should be.
pub(super) async fn redis(args: &DoctorArgs, settings: &Settings) -> Vec<Check> {
    let wanted = settings.redis(args.redis.redis.as_deref());
    let objection = |error: JobsError, advice: &str| match wanted.given {
        true => Check::bad("redis", &error.into(), advice),
        false => Check::note("redis", error.to_string(), OPTIONAL),
    };
    let fleet = match Fleet::connect(&wanted.value).await {
        Ok(fleet) => fleet,
        Err(error) => {
            return vec![objection(
                error,
                "check --redis or AGRPO_REDIS, and that the server runs",
            )];
        }
    };
    let findings = agrpo_jobs::inspect(&fleet, &machine::environment().worker).await;
    let mut checks: Vec<Check> = findings
        .into_iter()
        .map(|finding| match finding.error {
            // Its message says what to do as well.
            Some(error) => objection(error, ""),
            None if finding.advice.is_empty() => Check::ok("redis", finding.found),
            None => Check::note("redis", finding.found, finding.advice),
        })
        .collect();
    match agrpo_jobs::clock_skew(&fleet, &machine::clock()).await {
        Ok(skew) => {
            let check = clock(skew, &format!("that of Redis at {}", fleet.place()));
            let unasked = !wanted.given && check.exit != crate::exit::Exit::Done;
            checks.push(if unasked { Check::note("clock", check.found, OPTIONAL) } else { check });
        }
        Err(error) => checks.push(objection(error, "")),
    }
    checks
}

/// This machine's clock beside another.
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
