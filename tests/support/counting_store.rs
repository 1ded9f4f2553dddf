//! An object store in memory that counts what it is asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Requests by verb and by the first part of the object's name: `GET stages`.
pub(crate) type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

#[derive(Debug)]
struct Counting {
    objects: InMemory,
    counts: Counts,
}

/// A new one, and its counts.
pub(crate) fn counting() -> (Arc<dyn ObjectStore>, Counts) {
    let counts = Counts::default();
    (Arc::new(Counting { objects: InMemory::new(), counts: Arc::clone(&counts) }), counts)
}

impl Counting {
    fn count(&self, verb: &str, path: Option<&Path>) {
        let path = path.map(ToString::to_string).unwrap_or_default();
        let parts: Vec<_> = path.split('/').collect();
        let kind = match parts[..] {
            ["runs", _, what, ..] => format!("{verb} runs/{what}"),
            _ => format!("{verb} {}", parts[0]),
        };
        *self.counts.lock().unwrap().entry(kind).or_default() += 1;
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counting")
    }
}

#[async_trait]
impl ObjectStore for Counting {
    async fn put_opts(&self, at: &Path, bytes: PutPayload, how: PutOptions) -> Result<PutResult> {
        self.count("PUT", Some(at));
        self.objects.put_opts(at, bytes, how).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.count("PUT", Some(at));
        self.objects.put_multipart_opts(at, how).await
    }

    async fn get_opts(&self, at: &Path, how: GetOptions) -> Result<GetResult> {
        self.count(if how.head { "HEAD" } else { "GET" }, Some(at));
        self.objects.get_opts(at, how).await
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.count("GET", Some(at));
        self.objects.get_ranges(at, ranges).await
    }

    fn delete_stream(
        &self,
        all: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.count("DELETE", None);
        self.objects.delete_stream(all)
    }

    fn list(&self, under: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count("LIST", under);
        self.objects.list(under)
    }

    async fn list_with_delimiter(&self, under: Option<&Path>) -> Result<ListResult> {
        self.count("LIST", under);
        self.objects.list_with_delimiter(under).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.count("COPY", Some(to));
        self.objects.copy_opts(from, to, how).await
    }
}
