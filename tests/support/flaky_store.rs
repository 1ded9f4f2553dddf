//! An object store in memory of which one read in ten gives a flipped bit, as a bad cable or proxy does.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// One read in so many is bad.
const BAD: u64 = 10;

/// How many reads there were, and how many of them gave a flipped bit.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    pub(crate) all: AtomicU64,
    pub(crate) bad: AtomicU64,
}

#[derive(Debug)]
struct Flaky {
    objects: InMemory,
    reads: Arc<Reads>,
}

/// A new one, and the counts of its reads.
pub(crate) fn flaky() -> (Arc<dyn ObjectStore>, Arc<Reads>) {
    let reads = Arc::<Reads>::default();
    (Arc::new(Flaky { objects: InMemory::new(), reads: Arc::clone(&reads) }), reads)
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
