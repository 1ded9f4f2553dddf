//! Deduplication of states: the rows of a group begin alike, and equal inputs need one forward pass.
//!
//! Exact for sampler and learner. On short completions with groups of 16, only a quarter of the states differ. Order is
//! that of first appearance, so it follows from the inputs alone.

use std::collections::BTreeMap;

/// Gives equal items the same number. By default, the items are states of a batch.
#[derive(Debug, Default)]
pub(crate) struct Distinct<T = Vec<i64>> {
    index: BTreeMap<T, usize>,
    all: Vec<T>,
}

impl<T: Ord + Clone> Distinct<T> {
    /// The number of this item, new or seen before.
    pub(crate) fn number(&mut self, item: T) -> usize {
        if let Some(&number) = self.index.get(&item) {
            return number;
        }
        let number = self.all.len();
        self.all.push(item.clone());
        self.index.insert(item, number);
        number
    }

    pub(crate) fn contains(&self, item: &T) -> bool {
        self.index.contains_key(item)
    }

    /// All items, by number.
    pub(crate) fn all(&self) -> &[T] {
        &self.all
    }
}
