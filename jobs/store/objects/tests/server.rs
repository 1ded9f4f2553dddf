//! The server of `tests/support` as unit tests of the store use it.

use bytes::Bytes;

use crate::Store;
pub(crate) use crate::fake_s3::{Odd, Server};
use crate::testing::with_large;

impl Server {
    /// A store in its bucket in which more than `large` bytes are large, as a new process opens it.
    pub(crate) async fn store(&self, large: u64) -> Store {
        let settings = super::settings(self.port);
        with_large(&Store::on(super::open("s3://results/agrpo", &settings).await.unwrap()), large)
    }

    /// Breaks the connection of the next requests that begin like this, halfway through their body.
    pub(crate) fn cut(&self, what: &'static str, times: usize) {
        self.with(|state| state.cuts.push((what, times)));
    }

    /// Answers requests that begin like this with a status.
    pub(crate) fn answer(&self, what: &'static str, status: &'static str) {
        self.odd(Odd::always(what, (status, "")));
    }

    pub(crate) fn overlook_conditions(&self) {
        self.with(|state| state.overlooks_conditions = true);
    }

    /// What was asked since the last look, sorted.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut asked = self.with(|state| std::mem::take(&mut state.asked));
        asked.sort_unstable();
        asked
    }

    /// How many of the requests since the last look begin like this.
    pub(crate) fn count(&self, what: &str) -> usize {
        self.asked().iter().filter(|asked| asked.starts_with(what)).count()
    }

    pub(crate) fn object(&self, name: &str) -> Option<Bytes> {
        self.with(|state| state.objects.get(name).cloned())
    }

    pub(crate) fn put(&self, name: &str, bytes: Bytes) {
        self.with(|state| state.objects.insert(name.to_owned(), bytes));
    }

    pub(crate) fn objects(&self) -> usize {
        self.with(|state| state.objects.len())
    }

    /// Uploads in parts that were neither completed nor aborted.
    pub(crate) fn open_uploads(&self) -> usize {
        self.with(|state| state.uploads.len())
    }
}
