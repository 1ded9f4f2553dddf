//! A store in memory of which one read in ten gives a flipped bit, as a bad cable or proxy does, and files of
//! which chosen reads do. Only tests see this file.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use agrpo_spec::ArtifactDigest;

use super::Store;
use super::backend::Backend;
use super::errors::Place;

/// One read in so many is bad.
const BAD: u64 = 10;

/// How many reads there were, and how many of them gave a flipped bit.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    pub(crate) all: AtomicU64,
    pub(crate) bad: AtomicU64,
}

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

#[derive(Debug)]
struct Flaky {
    objects: InMemory,
    reads: Arc<Reads>,
}

/// What such a store is on.
pub(super) fn flaky(place: Place) -> (Backend, Arc<Reads>) {
    let reads = Arc::<Reads>::default();
    let objects = Flaky { objects: InMemory::new(), reads: Arc::clone(&reads) };
    (Backend::new(Arc::new(objects), None, place), reads)
}

impl Store {
    /// A new store in memory with bad reads, and their counts.
    pub(crate) fn flaky() -> (Self, Arc<Reads>) {
        let (backend, reads) = flaky(Place::new("memory://".to_owned()));
        (Self::on(backend), reads)
    }

    /// Every object's name, and what is really there.
    pub(crate) async fn names_below(&self, folder: &str) -> Vec<String> {
        let entries = self.backend.entries(folder).await.unwrap();
        let mut names: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        names
    }

    /// Puts any bytes in the place of an object.
    pub(crate) async fn put_raw(&self, name: &str, bytes: impl Into<Bytes>) {
        self.backend.replace(name, bytes.into()).await.unwrap();
    }

    /// An object's bytes.
    pub(crate) async fn raw(&self, name: &str) -> Option<Bytes> {
        self.backend.read(name).await.unwrap()
    }
}

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flaky")
    }
}

#[async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(&self, at: &Path, bytes: PutPayload, how: PutOptions) -> Result<PutResult> {
        self.objects.put_opts(at, bytes, how).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(at, how).await
    }

    async fn get_opts(&self, at: &Path, how: GetOptions) -> Result<GetResult> {
        let is_read = !how.head;
        let found = self.objects.get_opts(at, how).await?;
        if !is_read {
            return Ok(found);
        }
        let number = self.reads.all.fetch_add(1, Ordering::Relaxed);
        // Which reads are bad, and which of their bits, follows from their number.
        let draw = ArtifactDigest::of(&number.to_le_bytes()).to_string();
        let draw = u64::from_str_radix(&draw[..15], 16).unwrap();
        if !draw.is_multiple_of(BAD) || found.meta.size == 0 {
            return Ok(found);
        }
        self.reads.bad.fetch_add(1, Ordering::Relaxed);
        let (meta, range) = (found.meta.clone(), found.range.clone());
        let (attributes, extensions) = (found.attributes.clone(), found.extensions.clone());
        let mut bytes = found.bytes().await?.to_vec();
        let bit = usize::try_from(draw / BAD).unwrap() % (8 * bytes.len());
        bytes[bit / 8] ^= 1 << (bit % 8);
        let flipped = futures::stream::once(async move { Ok(Bytes::from(bytes)) }).boxed();
        let payload = GetResultPayload::Stream(flipped);
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.objects.get_ranges(at, ranges).await
    }

    fn delete_stream(
        &self,
        all: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(all)
    }

    fn list(&self, under: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(under)
    }

    async fn list_with_delimiter(&self, under: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(under).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, how).await
    }
}
