//! A file that is read in windows, each of them checked as it is read.
//!
//! The pass that computes a file's digest stores the state of the hash before every block. A later read is extended to
//! whole blocks, and hashing a block from its state has to give the next state. A block that fails is read again, and
//! is damaged where two reads give the same wrong bytes. So bytes that changed on the disk are never returned, even
//! where the file's times did not change. A file whose digest was not computed is read unchecked.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::{fs::File, ops::Range, os::unix::fs::FileExt, path::Path};

use agrpo_spec::{ArtifactDigest, Content, DigestStream, Windows};
use bytes::Bytes;

use crate::{objects::READS, regular, span::locked};

/// Bytes of a block. A hash's state takes about 100 bytes, so 16 GB of weights take 2 MB.
const BLOCK: u64 = 1 << 20;

/// The hashes of a file's blocks, from one pass over the file.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) digest: ArtifactDigest,
    pub(super) size: u64,
    /// The hash of everything before each block.
    before: Vec<DigestStream>,
    is_invalid: AtomicBool,
}

impl Blocks {
    /// Whether a read found other bytes: the file has to be checked as a whole again.
    pub(super) fn is_invalid(&self) -> bool {
        self.is_invalid.load(Ordering::Relaxed)
    }

    /// About how much memory it takes.
    pub(super) fn taken(&self) -> u64 {
        (self.before.len() * size_of::<DigestStream>()) as u64
    }

    fn around(&self, at: u64) -> Range<u64> {
        let start = at - at % BLOCK;
        start..self.size.min(start + BLOCK)
    }

    /// Compares the bytes of a block with those of the first pass. The error is the digest of the wrong bytes.
    fn check(&self, block: &Range<u64>, bytes: &[u8]) -> Result<(), ArtifactDigest> {
        let index = usize::try_from(block.start / BLOCK).unwrap_or(usize::MAX);
        let mut stream = self.before.get(index).cloned().unwrap_or_default();
        stream.update(bytes);
        let expected = match self.before.get(index + 1) {
            Some(next) => next.clone().finish(),
            None => self.digest,
        };
        let found = stream.finish();
        if found == expected { Ok(()) } else { Err(found) }
    }

    /// Marks the file as changed since the first pass.
    fn invalidate(&self, at: u64) -> io::Error {
        self.is_invalid.store(true, Ordering::Relaxed);
        let message = format!("its bytes from {at} on are not those of {}", self.digest);
        io::Error::new(ErrorKind::InvalidData, message)
    }
}

/// Hashes a file's bytes in their order.
#[derive(Debug, Default)]
pub(super) struct Hashing {
    stream: DigestStream,
    size: u64,
    before: Vec<DigestStream>,
}

impl Hashing {
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let within = self.size % BLOCK;
            if within == 0 {
                self.before.push(self.stream.clone());
            }
            let room = usize::try_from(BLOCK - within).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.stream.update(now);
            self.size += now.len() as u64;
            bytes = later;
        }
    }

    /// The hashes of all bytes.
    pub(super) fn finish(self) -> Blocks {
        let Self { stream, size, before } = self;
        Blocks { digest: stream.finish(), size, before, is_invalid: AtomicBool::new(false) }
    }
}

/// A file that is read in windows.
#[derive(Debug)]
pub(super) struct OnDisk {
    pub(super) file: File,
    size: u64,
    blocks: Option<Arc<Blocks>>,
    /// The last block that was read in part: the next read usually begins in it.
    last: Mutex<Option<(u64, Bytes)>>,
}

impl OnDisk {
    /// A file whose digest is not computed yet. Error where it is no regular file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = regular::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { file, size, blocks: None, last: Mutex::default() })
    }

    /// A file of which every read is checked. It has to have the length of the pass.
    pub(super) fn checked(file: File, blocks: Arc<Blocks>) -> Self {
        Self { file, size: blocks.size, blocks: Some(blocks), last: Mutex::default() }
    }

    pub(super) fn content(self) -> Content {
        Content::Elsewhere(Arc::new(self))
    }

    pub(super) fn hash(&self) -> io::Result<Blocks> {
        let mut hashing = Hashing::default();
        let mut piece = vec![0; 1 << 20];
        while hashing.size < self.size {
            let left = usize::try_from(self.size - hashing.size).unwrap_or(usize::MAX);
            piece.truncate(left);
            self.read_at(&mut piece, hashing.size)?;
            hashing.update(&piece);
        }
        Ok(hashing.finish())
    }

    fn read_at(&self, target: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(target, at)?;
        #[cfg(test)]
        super::spoiled::pass(&self.file, target);
        Ok(())
    }

    /// A block as a whole, checked.
    fn block(&self, blocks: &Blocks, block: &Range<u64>) -> io::Result<Bytes> {
        let last = || locked(&self.last);
        if let Some((_, bytes)) = last().as_ref().filter(|(start, _)| *start == block.start) {
            return Ok(bytes.clone());
        }
        let mut bytes = vec![0; length(block)?];
        self.read(blocks, block, &mut bytes)?;
        let bytes = Bytes::from(bytes);
        *last() = Some((block.start, bytes.clone()));
        Ok(bytes)
    }

    /// Reads and checks a block. The file is damaged where two reads give the same wrong bytes.
    fn read(&self, blocks: &Blocks, block: &Range<u64>, target: &mut [u8]) -> io::Result<()> {
        let mut before = vec![];
        while before.len() < READS {
            match self.read_at(target, block.start) {
                // Cut short since it was checked.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Err(blocks.invalidate(block.start));
                }
                Err(error) => return Err(error),
                Ok(()) => {}
            }
            let Err(found) = blocks.check(block, target) else { return Ok(()) };
            if before.contains(&found) {
                return Err(blocks.invalidate(block.start));
            }
            before.push(found);
        }
        let message =
            format!("{READS} reads of its bytes from {} on gave {READS} contents", block.start);
        Err(io::Error::other(message))
    }
}

fn length(range: &Range<u64>) -> io::Result<usize> {
    usize::try_from(range.end - range.start).map_err(io::Error::other)
}

impl Windows for OnDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn digest(&self) -> Option<ArtifactDigest> {
        self.blocks.as_ref().map(|blocks| blocks.digest)
    }

    fn is_damaged(&self) -> bool {
        self.blocks.as_ref().is_some_and(|blocks| blocks.is_invalid())
    }

    fn window(&self, range: Range<u64>) -> io::Result<Bytes> {
        let mut bytes = vec![0; length(&range)?];
        let Some(blocks) = &self.blocks else {
            self.read_at(&mut bytes, range.start)?;
            return Ok(bytes.into());
        };
        let (mut at, mut left) = (range.start, bytes.as_mut_slice());
        while !left.is_empty() {
            let block = blocks.around(at);
            let (target, rest) = left.split_at_mut(length(&(at..block.end.min(range.end)))?);
            if target.len() == length(&block)? {
                self.read(blocks, &block, target)?;
            } else {
                let skipped = length(&(block.start..at))?;
                let whole = self.block(blocks, &block)?;
                target.copy_from_slice(&whole[skipped..skipped + target.len()]);
            }
            at += target.len() as u64;
            left = rest;
        }
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::cas::spoiled::{spoil, unspoiled};

    fn bytes(length: u64) -> Vec<u8> {
        (0..length).map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()[2]).collect()
    }

    fn at(offset: u64) -> usize {
        usize::try_from(offset).unwrap()
    }

    fn checked(bytes: &[u8]) -> (tempfile::NamedTempFile, OnDisk) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let disk = OnDisk::open(file.path()).unwrap();
        let blocks = disk.hash().unwrap();
        assert_eq!(blocks.digest, ArtifactDigest::of(bytes));
        (file, OnDisk::checked(disk.file, Arc::new(blocks)))
    }

    #[test]
    fn a_window_is_the_same_bytes_wherever_it_begins_and_ends() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 77] {
            let bytes = bytes(length);
            let (_file, disk) = checked(&bytes);
            let edges = [0, 1, 5, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK, length];
            for start in edges.into_iter().filter(|start| *start <= length) {
                for end in edges.into_iter().filter(|end| (start..=length).contains(end)) {
                    let expected = &bytes[at(start)..at(end)];
                    assert_eq!(disk.window(start..end).unwrap(), expected, "{start}..{end}");
                }
            }
            assert!(!disk.is_damaged());
        }
    }

    #[test]
    fn every_flipped_bit_is_found_by_the_reads_of_its_block_alone() {
        let bytes = bytes(3 * BLOCK + 77);
        for place in [0, 7, BLOCK - 1, BLOCK, 2 * BLOCK + 9, 3 * BLOCK, 3 * BLOCK + 76] {
            let (file, disk) = checked(&bytes);
            let flipped = bytes[at(place)] ^ 0x10;
            file.as_file().write_all_at(&[flipped], place).unwrap();
            let block = place / BLOCK;
            let elsewhere = if block == 0 { BLOCK..2 * BLOCK } else { 0..BLOCK };
            disk.window(elsewhere).unwrap();
            assert!(!disk.is_damaged());
            // A window beside the flipped byte, in its block.
            let beside = block * BLOCK..(block * BLOCK + 2).min(bytes.len() as u64);
            let error = disk.window(beside).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert!(disk.is_damaged());
            assert!(disk.window(0..bytes.len() as u64).is_err());
        }
    }

    #[test]
    fn a_file_cut_short_is_damaged() {
        let bytes = bytes(2 * BLOCK);
        let (file, disk) = checked(&bytes);
        file.as_file().set_len(BLOCK + 5).unwrap();
        assert_eq!(disk.window(3..9).unwrap(), &bytes[3..9]);
        assert!(disk.window(BLOCK..BLOCK + 3).is_err());
        assert!(disk.is_damaged());
    }

    #[test]
    fn one_bad_read_of_a_block_is_no_damage() {
        let bytes = bytes(3 * BLOCK + 77);
        for window in [0..bytes.len() as u64, BLOCK + 5..BLOCK + 9] {
            let (file, disk) = checked(&bytes);
            spoil(file.as_file(), &[1, 2, 4]);
            let expected = &bytes[at(window.start)..at(window.end)];
            assert_eq!(disk.window(window.clone()).unwrap(), expected);
            assert!(!disk.is_damaged());
            assert_eq!(unspoiled(file.as_file()), 0);
            // No two agree.
            spoil(file.as_file(), &[1, 2, 3, 4, 5, 6, 7, 8]);
            // Without the block that was read last.
            let disk = OnDisk::checked(file.reopen().unwrap(), disk.blocks.unwrap());
            assert!(disk.window(window.clone()).unwrap_err().to_string().contains("8 contents"));
            assert!(!disk.is_damaged());
            spoil(file.as_file(), &[1, 2, 1]);
            assert_eq!(disk.window(window).unwrap_err().kind(), ErrorKind::InvalidData);
            assert!(disk.is_damaged());
        }
    }

    /// Numbers of a tensor are read in pieces that do not begin at blocks.
    #[test]
    fn reading_on_hashes_every_block_once() {
        let bytes = bytes(4 * BLOCK);
        let (file, disk) = checked(&bytes);
        let step = 300_001;
        for start in (0..4 * BLOCK).step_by(step) {
            let end = (start + step as u64).min(4 * BLOCK);
            assert_eq!(disk.window(start..end).unwrap(), &bytes[at(start)..at(end)]);
            if start % BLOCK != 0 && end < 4 * BLOCK {
                // The last block is cached: a change of the file on the disk does not reach it.
                let block = end - end % BLOCK;
                file.as_file().write_all_at(&[!bytes[at(block)]], block).unwrap();
                disk.window(end..end + 1).unwrap();
                file.as_file().write_all_at(&[bytes[at(block)]], block).unwrap();
            }
        }
        assert!(!disk.is_damaged());
    }
}
