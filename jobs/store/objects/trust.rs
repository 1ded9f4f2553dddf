//! Remembers which kinds of operation a server has performed.
//!
//! A refusal by a server that served the same kind of request a moment ago is often temporary: keys are rotated, a
//! clock is set, a gateway answers for a server that restarts. It is retried a bounded number of times.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::action::Action;
use crate::span::locked;

/// Refusals in a row that are retried: with the usual pauses, for a minute.
const REFUSALS: u32 = 20;

/// Refusals of each kind of operation since it last worked; no entry for a kind that never did. Rights differ by kind.
#[derive(Debug, Default)]
pub(crate) struct Trust(Mutex<BTreeMap<Action, u32>>);

impl Trust {
    pub(crate) fn worked(&self, action: Action) {
        let mut kinds = locked(&self.0);
        kinds.insert(action.right(), 0);
    }

    /// Counts a failed operation. Returns whether another try may help, even if the server refused it.
    pub(crate) fn holds(&self, action: Action) -> bool {
        let mut kinds = locked(&self.0);
        kinds.get_mut(&action.right()).is_some_and(|refused| {
            *refused += 1;
            *refused <= REFUSALS
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_worked_may_be_refused_for_a_while_and_what_never_did_may_not() {
        let trust = Trust::default();
        assert!(!trust.holds(Action::Write));
        trust.worked(Action::Write);
        let tries = || (0..100).filter(|_| trust.holds(Action::Write)).count();
        assert_eq!(tries(), REFUSALS as usize);
        trust.worked(Action::Abort);
        assert_eq!(tries(), REFUSALS as usize, "counted from the last success on");
        assert!(!trust.holds(Action::Delete), "rights differ by kind");
        trust.worked(Action::Look);
        assert!(trust.holds(Action::Read));
    }
}
