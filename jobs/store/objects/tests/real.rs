//! The store on a real SeaweedFS.

use std::time::Duration;

use agrpo_spec::ArtifactDigest;
use bytes::Bytes;

use crate::Store;
use crate::objects::open;
use crate::paths;
use crate::s3_server::S3Server;

async fn store(server: &S3Server) -> Store {
    let set = server.environment().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let opened = open("s3://agrpo/tests", &set).await.unwrap();
    Store::on(opened)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_creates_once_and_takes_blobs_of_any_size() {
    let server = S3Server::start();
    let store = store(&server).await;
    store.objects.check().await.unwrap();
    store.objects.check_creates("probe-of-a-test").await.unwrap();
    let parts: Bytes = (0..18u32 << 20).flat_map(u32::to_le_bytes).collect();
    for bytes in [Bytes::new(), parts.slice(..70_000), parts] {
        let record = store.cas.put(bytes.clone()).await.unwrap();
        let content = store.fresh().cas.content(record.digest, record.size).await.unwrap();
        assert_eq!(content, bytes.into());
    }
    // Other bytes than were promised do not appear.
    let wrong = ArtifactDigest::of(b"wrong");
    let content = Bytes::from(vec![7; 20 << 20]).into();
    let sent = store.objects.replace_in_parts(&format!("cas/{wrong}"), &content, wrong).await;
    assert!(sent.unwrap().is_err() && !store.cas.has(wrong).await.unwrap());
    assert_eq!(store.objects.list("probe").await.unwrap(), [""; 0]);
}

/// At the real limit of what is large: claiming a blob that is there already makes it young, while others age.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_makes_a_large_blob_of_a_real_server_young() {
    let server = S3Server::start();
    let store = store(&server).await;
    let store = store.with_limits(|limits| limits.young = Duration::from_secs(1));
    let bytes: Bytes = (0..20u32 << 20).flat_map(u32::to_le_bytes).collect();
    let witness = store.cas.put(Bytes::from_static(b"as old as the other")).await.unwrap();
    let record = store.cas.put(bytes).await.unwrap();
    assert!(record.size > agrpo_spec::LARGE);
    let name = paths::blob(record.digest);
    let written = async || store.objects.entry(&name).await.unwrap().unwrap().written_ms;
    let begun = written().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(store.fresh().cas.claim(record.digest).await.unwrap());
    let claimed = written().await;
    let age = u64::try_from(claimed - begun).unwrap();
    assert!(age >= 4000, "{age} ms");
    let witness = store.objects.entry(&paths::blob(witness.digest)).await.unwrap().unwrap();
    assert!(witness.written_ms < claimed, "what was not claimed stays old");
    assert_eq!(store.fresh().cas.verified_size(record.digest).await.unwrap(), record.size);
}
