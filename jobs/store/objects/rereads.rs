//! Repeats reads that give wrong bytes, until one is right or two agree on the wrong ones.
//!
//! Wrong bytes of a single read are no damage: a cable, a proxy or a disk may have changed them.

use super::client::Objects;
use crate::{JobsError, Result, span::locked};

/// Reads of an object at most, until one is right or two agree.
pub(crate) const READS: usize = 8;

impl Objects {
    /// Reads an object until a read is right (`Ok`), or wrong as one before (`Err`). `None` where it is missing; an
    /// error where no two of [`READS`] reads agree.
    pub(crate) async fn reread<T, W: PartialEq, F>(
        &self,
        name: &str,
        mut read: impl FnMut() -> F,
    ) -> Result<Option<Result<T, W>>>
    where
        F: Future<Output = Result<Option<Result<T, W>>>>,
    {
        let mut wrong = vec![];
        while wrong.len() < READS {
            match read().await? {
                Some(Err(found)) if !wrong.contains(&found) => wrong.push(found),
                found => {
                    if matches!(found, Some(Ok(_))) && !wrong.is_empty() {
                        self.log_bad_read(name);
                    }
                    return Ok(found);
                }
            }
        }
        Err(self.unsteady(name))
    }

    fn log_bad_read(&self, name: &str) {
        let (url, what) = (self.url(), "one read gave wrong bytes, and the next was right");
        match self.is_first("bad read") {
            true => tracing::warn!(name, url, "{what}; this is logged once"),
            false => tracing::debug!(name, "{what}"),
        }
    }

    /// The error where no two reads of an object agree.
    pub(crate) fn unsteady(&self, name: &str) -> JobsError {
        let url = self.url();
        JobsError::unavailable(format!(
            "{name} in {url}: {READS} reads gave {READS} different contents; check the disk, or what lies \
             between this machine and the store"
        ))
    }

    /// Whether this process logs something for the first time.
    pub(crate) fn is_first(&self, what: &str) -> bool {
        locked(&self.logged).insert(what.to_owned())
    }
}
