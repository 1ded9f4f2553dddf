//! Files of which chosen reads give a flipped bit, as a bad cable does. Only tests see this file.

use std::collections::{BTreeMap, VecDeque};
use std::{fs::File, os::unix::fs::MetadataExt, sync::Mutex};

/// What is flipped in the first byte of a file's next reads, by its inode.
static NEXT: Mutex<BTreeMap<u64, VecDeque<u8>>> = Mutex::new(BTreeMap::new());

/// The next reads of a file give these bits of their first byte flipped.
pub(super) fn spoil(file: &File, flips: &[u8]) {
    let inode = file.metadata().unwrap().ino();
    NEXT.lock().unwrap().insert(inode, flips.iter().copied().collect());
}

/// How many of the reads to spoil are yet to come.
pub(super) fn unspoiled(file: &File) -> usize {
    NEXT.lock().unwrap().get(&file.metadata().unwrap().ino()).map_or(0, VecDeque::len)
}

/// Passes a read of a file.
pub(super) fn pass(file: &File, bytes: &mut [u8]) {
    let mut next = NEXT.lock().unwrap();
    let flips = next.get_mut(&file.metadata().unwrap().ino());
    if let (Some(flip), Some(byte)) = (flips.and_then(VecDeque::pop_front), bytes.first_mut()) {
        *byte ^= flip;
    }
}
