//! What this process has logged once and does not log again.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// What this process has said in its log and need not say again.
#[derive(Debug, Default)]
pub(crate) struct News(Mutex<BTreeSet<String>>);

impl News {
    /// Whether this is the first time.
    pub(crate) fn is_news(&self, what: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(what.to_owned())
    }
}
