//! Every way in which a large blob that is there comes into use again makes it young, on every kind of store.

use agrpo_spec::{ArtifactDigest, Content};
use bytes::Bytes;

use super::*;
use crate::s3_server::S3Server;
use crate::testing::with_large;

/// Bytes above which a blob is large in these tests.
const LARGE: u64 = 1 << 20;
/// Longer than what counts as young here, and than a second, in which some servers count.
const LATER: Duration = Duration::from_millis(2100);

/// How long ago a blob was written, in milliseconds of the store's own clock. A gc goes by it; the fleet's tests of gc
/// cannot ask here, as what counts as young is shorter in this crate's tests alone.
async fn age(store: &Store, digest: ArtifactDigest) -> i64 {
    let written = store.object(&blob_name(digest)).await.unwrap().unwrap().written_ms;
    store.now_ms().await.unwrap() - written
}

async fn stored(url: &str, options: &[(String, String)]) {
    let store = with_large(&Store::open(url, options).await.unwrap(), LARGE);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let bytes: Bytes = (0..5u32 << 20).flat_map(u32::to_le_bytes).chain([7]).collect();
    std::fs::write(&path, &bytes).unwrap();
    let record = store.put_file(&path).await.unwrap();
    let (digest, size) = (record.digest, record.size);
    let mut last = 0;
    let ways = ["file", "blob", "handed on", "claimed", "folder"];
    for way in ways {
        let written = store.object(&blob_name(digest)).await.unwrap().unwrap().written_ms;
        assert!(written > last, "{url}: before {way}");
        last = written;
        tokio::time::sleep(LATER).await;
        match way {
            "file" => drop(store.put_file(&path).await.unwrap()),
            "blob" => drop(store.put_blob(bytes.clone()).await.unwrap()),
            "handed on" => {
                let content = store.content(digest, size).await.unwrap();
                assert_eq!(matches!(content, Content::Elsewhere(_)), url != "memory://");
                store.put_content(digest, content).await.unwrap();
            }
            "claimed" => assert!(store.claim(digest).await.unwrap()),
            _ => {
                std::fs::rename(&path, folder.path().join("model.safetensors")).unwrap();
                store.import_folder(folder.path(), |_| Ok(())).await.unwrap();
            }
        }
        // As old as it was, a gc of this grace would take it.
        assert!(age(&store, digest).await < 1900, "{url}: {way}");
        assert_eq!(store.fresh().content(digest, size).await.unwrap(), bytes.clone().into());
    }
    assert!(!store.claim(ArtifactDigest::of(b"nothing")).await.unwrap());
    assert!(!store.claim_sized(digest, Some(size - 1)).await.unwrap());
    // Nothing keeps it for ever.
    tokio::time::sleep(LATER).await;
    assert!(age(&store, digest).await >= 1900, "{url}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_or_claimed_again_is_young_in_memory_and_in_files() {
    stored("memory://", &[]).await;
    let folder = tempfile::tempdir().unwrap();
    stored(folder.path().join("store").to_str().unwrap(), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_or_claimed_again_is_young_on_a_real_server() {
    let server = S3Server::start();
    let set = server.environment().map(|(name, value)| (name.to_owned(), value.to_owned()));
    stored("s3://agrpo/claims", &set).await;
}

/// What is young already costs a look: a base is handed on by every update.
#[tokio::test]
async fn what_is_young_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap(), &[]).await.unwrap();
    let store = with_large(&store, LARGE);
    let digest = store.put_blob(vec![7; 2 << 20].into()).await.unwrap().digest;
    let written = || async { store.object(&blob_name(digest)).await.unwrap().unwrap().written_ms };
    let first = written().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(store.claim(digest).await.unwrap());
    assert_eq!(written().await, first);
    assert_eq!(store.objects("aside").await.unwrap(), []);
}
