//! Reads that do not give what they should: repeated, until one is right or two agree on what is stored.
//!
//! Wrong bytes of a single read are no damage: a cable, a proxy or a disk may have given them.

use crate::cache::checked::READS;
use crate::error::JobsError;
use crate::store::Store;

impl Store {
    /// Notes what a read of an object gave that is not right, beside what reads before it gave. True where one
    /// of these gave the same, so that it is what is stored; an error where no two of [`READS`] reads agree.
    pub(crate) fn is_certain<T: PartialEq>(
        &self,
        name: &str,
        before: &mut Vec<T>,
        found: T,
    ) -> Result<bool, JobsError> {
        if before.contains(&found) {
            return Ok(true);
        }
        before.push(found);
        if before.len() < READS {
            return Ok(false);
        }
        Err(self.unsteady(name))
    }

    /// No two reads of an object agree.
    pub(crate) fn unsteady(&self, name: &str) -> JobsError {
        let url = self.url();
        JobsError::Unavailable(format!(
            "{name} in {url}: {READS} reads gave {READS} different contents; check the disk, or what lies \
             between this machine and the store"
        ))
    }

    /// One read of an object gave other bytes than a later one, which was right.
    pub(crate) fn log_bad_read(&self, name: &str) {
        if self.news.is_news("bad read") {
            let url = self.url();
            tracing::warn!(
                name,
                url,
                "one read gave wrong bytes, and the next was right; said once"
            );
        } else {
            tracing::debug!(name, "one read gave wrong bytes, and the next was right");
        }
    }
}
