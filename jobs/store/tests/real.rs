//! The store on a real SeaweedFS.

use agrpo_spec::ArtifactDigest;
use bytes::Bytes;

use crate::Store;
use crate::s3_server::S3Server;
use crate::store::open;

async fn store(server: &S3Server) -> Store {
    let set = server.environment().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let backend = open::open("s3://agrpo/tests", &set).await.unwrap();
    Store::on(backend)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_creates_once_and_takes_blobs_of_any_size() {
    let server = S3Server::start();
    let store = store(&server).await;
    store.check().await.unwrap();
    store.check_creates("probe-of-a-test").await.unwrap();
    let parts: Bytes = (0..18u32 << 20).flat_map(u32::to_le_bytes).collect();
    for bytes in [Bytes::new(), parts.slice(..70_000), parts] {
        let record = store.put_blob(bytes.clone()).await.unwrap();
        let content = store.fresh().content(record.digest, record.size).await.unwrap();
        assert_eq!(content, bytes.into());
    }
    // Other bytes than were promised do not appear.
    let wrong = ArtifactDigest::of(b"wrong");
    let content = Bytes::from(vec![7; 20 << 20]).into();
    let sent = store.backend.replace_in_parts(&format!("cas/{wrong}"), &content, wrong).await;
    assert!(sent.unwrap().is_err() && !store.has_blob(wrong).await.unwrap());
    assert_eq!(store.backend.list("probe").await.unwrap(), [""; 0]);
}
