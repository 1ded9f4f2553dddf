//! One line of doctor's answer: what was checked, how it ended and what to do.
//!
//! Checks nothing itself.

use serde::Serialize;

use crate::exit::{Exit, Failure};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    /// Not good, but no requested service needs it.
    Note,
    Bad,
}

#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    pub(super) found: String,
    /// What to do; empty where nothing is to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) advice: String,
    #[serde(skip)]
    pub(super) exit: Exit,
}

impl Check {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            advice: String::new(),
            exit: Exit::Done,
        }
    }

    pub(super) fn note(
        name: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Note, advice: advice.into(), ..Self::ok(name, found) }
    }

    pub(super) fn bad(name: &'static str, failure: &Failure, advice: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Bad,
            advice: advice.into(),
            // Any other defect of a service counts as the service being unavailable.
            exit: if failure.exit() == Exit::Data { Exit::Data } else { Exit::Unavailable },
            ..Self::ok(name, failure.message())
        }
    }
}
