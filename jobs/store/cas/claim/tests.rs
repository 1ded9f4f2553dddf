//! A claim leaves young blobs as they are, and passing a blob on claims it. The fleet's tests of gc cover the other ways
//! in which an old blob comes into use again.

use std::time::Duration;

use super::*;
use crate::s3_server::S3Server;
use crate::{Store, testing::with_large};

/// Stores a large blob, and passes it on when it is old: that has to renew its date.
async fn handed_on(url: &str, options: &[(String, String)]) {
    let store = with_large(&Store::open(url, options).await.unwrap(), 1 << 20);
    let store = store.with_limits(|limits| limits.young = Duration::from_secs(1));
    let bytes = vec![7; 20 << 20];
    let digest = store.cas.put(bytes.clone().into()).await.unwrap().digest;
    let written =
        || async { store.objects.entry(&paths::blob(digest)).await.unwrap().unwrap().written_ms };
    let before = written().await;
    // Longer than what counts as young here, and than a second, in which some servers count.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let content = store.cas.content(digest, bytes.len() as u64).await.unwrap();
    assert_eq!(matches!(content, Content::Elsewhere(_)), url != "memory://");
    store.cas.put_content(digest, content).await.unwrap();
    assert!(written().await - before >= 1000, "{url}");
    let content = store.fresh().cas.content(digest, bytes.len() as u64).await.unwrap();
    assert_eq!(content, Content::from(bytes));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_handed_on_is_young_in_memory_and_in_files() {
    handed_on("memory://", &[]).await;
    let folder = tempfile::tempdir().unwrap();
    handed_on(folder.path().join("store").to_str().unwrap(), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_handed_on_is_young_on_a_real_server() {
    let server = S3Server::start();
    let set = server.environment().map(|(name, value)| (name.to_owned(), value.to_owned()));
    handed_on("s3://agrpo/claims", &set).await;
}

/// What is young already costs a look: a base is handed on by every update.
#[tokio::test]
async fn what_is_young_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap(), &[]).await.unwrap();
    let store = with_large(&store, 1 << 20);
    let digest = store.cas.put(vec![7; 2 << 20].into()).await.unwrap().digest;
    let written =
        || async { store.objects.entry(&paths::blob(digest)).await.unwrap().unwrap().written_ms };
    let first = written().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(store.cas.claim(digest).await.unwrap());
    assert_eq!(written().await, first);
    // Of another size, it is not the blob that was meant.
    assert!(!store.cas.claim_sized(digest, Some(1)).await.unwrap());
    assert_eq!(store.objects.entries("aside").await.unwrap(), []);
}
