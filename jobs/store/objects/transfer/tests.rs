//! Connections that break in the middle, in both directions and at any size; and uploads that fail.

use super::*;
use crate::objects::tests::server::Server;
use crate::paths;

/// Bytes above which a blob is large in these tests.
const LARGE: u64 = 1 << 20;

/// Some MiB that repeat nowhere, and a bit.
fn many(mib: u32) -> Bytes {
    (0..mib << 18).flat_map(u32::to_le_bytes).chain([1, 2, 3]).collect()
}

#[tokio::test]
async fn a_small_blob_arrives_though_connections_break() {
    let server = Server::start().await;
    let store = server.store(LARGE).await;
    let bytes = many(0);
    server.cut("PUT cas/", 2);
    let digest = store.cas.put(bytes.clone()).await.unwrap().digest;
    assert_eq!(server.object(&paths::blob(digest)).unwrap(), bytes);
    assert_eq!(server.count("PUT cas/"), 3);
    server.cut("GET cas/", 2);
    assert_eq!(server.store(LARGE).await.cas.get(digest).await.unwrap(), bytes);
    assert_eq!(server.count("GET cas/"), 3);
}

/// A creation is repeated as well: the object that exists then comes from the first try.
#[tokio::test]
async fn a_record_is_created_once_though_connections_break() {
    let server = Server::start().await;
    let store = server.store(LARGE).await;
    server.cut("PUT stages/", 2);
    let created = store.objects.create("stages/x", many(0)).await.unwrap();
    assert_eq!(created, None);
    assert_eq!(server.object("stages/x").unwrap(), many(0));
    let standing = store.objects.create("stages/x", Bytes::from_static(b"other")).await.unwrap();
    assert_eq!(standing, Some(many(0)));
}

#[tokio::test]
async fn of_a_large_blob_only_the_cut_parts_and_pieces_are_repeated() {
    let server = Server::start().await;
    let store = server.store(LARGE).await;
    let bytes = many(40);
    server.cut("part", 2);
    let record = store.cas.put(bytes.clone()).await.unwrap();
    assert_eq!(server.object(&paths::blob(record.digest)).unwrap(), bytes);
    let asked = server.asked();
    let count = |what: &str| asked.iter().filter(|asked| asked.starts_with(what)).count();
    assert_eq!((count("begin"), count("part"), count("complete")), (1, 3 + 2, 1), "{asked:?}");
    server.cut("GET cas/", 2);
    let content = server.store(LARGE).await.cas.content(record.digest, record.size).await.unwrap();
    assert_eq!(content, bytes.into());
    assert_eq!(server.count("GET cas/"), 6 + 2);
}

#[tokio::test]
async fn an_upload_that_fails_leaves_nothing_behind() {
    let server = Server::start().await;
    let store = server.store(LARGE).await;
    server.answer("part", "403 Forbidden");
    let error = store.cas.put(many(40)).await.unwrap_err();
    assert!(error.to_string().contains("credentials were refused"), "{error}");
    assert_eq!((server.open_uploads(), server.objects()), (0, 0));
    assert_eq!(server.count("abort"), 1);
}

/// A file that has changed does not replace the object that exists.
#[tokio::test]
async fn an_upload_of_a_wrong_digest_is_not_completed() {
    let server = Server::start().await;
    let store = server.store(LARGE).await;
    let (name, digest) = ("cas/x", ArtifactDigest::of(b"as it was"));
    server.put(name, Bytes::from_static(b"stands"));
    let sent = store.objects.replace_in_parts(name, &many(20).into(), digest).await.unwrap();
    assert_eq!(sent, Err(ArtifactDigest::of(&many(20))));
    assert_eq!(server.object(name).unwrap(), "stands");
    assert_eq!((server.open_uploads(), server.count("abort")), (0, 1));
}

/// A stage's small outputs cost one request each, whether or not they are there.
#[tokio::test]
async fn a_small_blob_is_one_request() {
    let server = Server::start().await;
    let bytes = Bytes::from_static(b"small");
    for _ in 0..2 {
        let store = server.store(LARGE).await;
        let digest = store.cas.put(bytes.clone()).await.unwrap().digest;
        assert_eq!(server.asked(), [format!("PUT cas/{digest}")]);
        store.cas.put(bytes.clone()).await.unwrap();
        assert_eq!(server.asked(), [format!("PUT cas/{digest}")], "known, but young again");
        let damaged = Bytes::from_static(b"smell");
        server.put(&paths::blob(digest), damaged);
    }
}
