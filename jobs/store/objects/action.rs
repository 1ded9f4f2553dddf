//! What is done with an object: its words in messages, and the right that it takes.

use std::fmt;

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    Read,
    /// Asks for length and age.
    Look,
    Write,
    /// Abandons a write in parts.
    Abort,
    Delete,
    List,
}

impl Action {
    /// The action whose right this one takes.
    pub(super) fn right(self) -> Self {
        match self {
            Self::Look => Self::Read,
            Self::Abort => Self::Write,
            other => other,
        }
    }
}

/// An action on the object or the folder of this name, as messages call it: `write cas/ab`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation<'a>(pub(crate) Action, pub(crate) &'a str);

impl fmt::Display for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(action, name) = self;
        let verb = match action {
            Action::Read => "read",
            Action::Look => "look for",
            Action::Write => "write",
            Action::Abort => "abort",
            Action::Delete => "delete",
            Action::List => "list",
        };
        write!(f, "{verb} {name}")
    }
}
