//! Which kinds of operation a server has done before.
//!
//! A refusal by a server that served the same kind of request a moment ago is often temporary: keys are rotated, a
//! clock is set, a gateway answers for a server that restarts. It is retried a bounded number of times.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Refusals in a row that may be about the moment: with the usual pauses, a minute.
const REFUSALS: u32 = 20;

/// Refusals of each kind of operation since it last worked; none of a kind that never did. Rights differ by kind.
#[derive(Debug, Default)]
pub(crate) struct Trust(Mutex<BTreeMap<&'static str, u32>>);

impl Trust {
    pub(crate) fn worked(&self, action: &str) {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.insert(kind(action), 0);
    }

    /// An operation failed: whether trying again may help, even if the server refused it.
    pub(crate) fn holds(&self, action: &str) -> bool {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.get_mut(kind(action)).is_some_and(|refused| {
            *refused += 1;
            *refused <= REFUSALS
        })
    }
}

/// The right that an operation takes, by the first word of its name.
fn kind(action: &str) -> &'static str {
    match action.split(' ').next() {
        Some("read" | "look") => "read",
        Some("write" | "abort") => "write",
        Some("delete") => "delete",
        _ => "list",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_worked_may_be_refused_for_a_while_and_what_never_did_may_not() {
        let trust = Trust::default();
        assert!(!trust.holds("write cas/ab"));
        trust.worked("write cas/ab");
        let tries = || (0..100).filter(|_| trust.holds("write cas/cd")).count();
        assert_eq!(tries(), REFUSALS as usize);
        trust.worked("write x");
        assert_eq!(tries(), REFUSALS as usize, "counted from the last success on");
        assert!(!trust.holds("delete x"), "rights differ by kind");
        trust.worked("look for x");
        assert!(trust.holds("read x"));
    }
}
