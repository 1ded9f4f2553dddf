//! Several processes on one cache, each a store handle; damage, limits, and processes that died or were stopped.

use futures::future::try_join_all;

use super::*;
use crate::objects::tests::server::Server;
use crate::{Cas, Store};

/// Bytes above which a blob is large in these tests.
const LARGE: u64 = 1 << 20;

/// 64 KiB times `n`, all alike.
fn blob(n: usize, byte: u8) -> Bytes {
    vec![byte; n << 16].into()
}

struct Host {
    server: Server,
    folder: tempfile::TempDir,
}

impl Host {
    async fn new() -> Self {
        Self { server: Server::start().await, folder: tempfile::tempdir().unwrap() }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// A store as a new process on this host has it.
    async fn process(&self, limit: u64) -> Store {
        self.server.store(LARGE).await.with_cache(&self.cache(), Some(limit))
    }

    /// A blob that only the server has.
    fn give(&self, bytes: &Bytes) -> ArtifactDigest {
        let digest = ArtifactDigest::of(bytes);
        self.server.put(&format!("cas/{digest}"), bytes.clone());
        digest
    }

    fn file(&self, digest: ArtifactDigest) -> PathBuf {
        let name = digest.to_string();
        self.cache().join("blobs").join(&name[..2]).join(name)
    }

    fn cached(&self) -> u64 {
        let folders = files_in(&self.cache().join("blobs")).unwrap();
        let files = folders.iter().flat_map(|folder| files_in(folder).unwrap());
        let drafts = files_in(&self.cache().join("new")).unwrap();
        files.chain(drafts).map(|file| fs::metadata(file).unwrap().len()).sum()
    }
}

async fn read(store: &Store, digest: ArtifactDigest, bytes: &Bytes) {
    let content = store.cas.content(digest, bytes.len() as u64).await.unwrap();
    assert_eq!(content, bytes.clone().into());
}

#[tokio::test]
async fn a_blob_that_one_process_fetched_or_wrote_is_fetched_by_no_other() {
    let host = Host::new().await;
    let sizes = [blob(2, 1), blob(320, 2)];
    let given = sizes.each_ref().map(|bytes| host.give(bytes));
    let made = blob(3, 3);
    let first = host.process(1 << 30).await;
    for (digest, bytes) in given.iter().zip(&sizes) {
        read(&first, *digest, bytes).await;
    }
    let made_digest = first.cas.put(made.clone()).await.unwrap().digest;
    host.server.asked();
    let second = host.process(1 << 30).await;
    for (digest, bytes) in given.iter().zip(&sizes).chain([(&made_digest, &made)]) {
        read(&second, *digest, bytes).await;
    }
    assert_eq!(host.server.asked(), [""; 0]);
    // Checks of what the store holds bypass the cache.
    second.fresh().cas.get(given[0]).await.unwrap();
    second.cas.get(given[0]).await.unwrap();
    assert_eq!(host.server.count("GET"), 2);
}

#[tokio::test]
async fn processes_that_want_one_blob_at_once_fetch_it_once() {
    let host = Host::new().await;
    for (bytes, requests) in [(blob(4, 1), 1), (blob(320, 2), 3)] {
        let digest = host.give(&bytes);
        let mut processes = vec![];
        for _ in 0..8 {
            processes.push(host.process(1 << 30).await);
        }
        host.server.asked();
        let reads = processes.iter().map(|store| store.cas.content(digest, bytes.len() as u64));
        for content in try_join_all(reads).await.unwrap() {
            assert_eq!(content, bytes.clone().into());
        }
        assert_eq!(host.server.count("GET"), requests);
    }
}

#[tokio::test]
async fn a_flipped_byte_is_found_and_fetched_again() {
    let host = Host::new().await;
    for bytes in [blob(2, 1), blob(320, 2)] {
        let digest = host.give(&bytes);
        read(&host.process(1 << 30).await, digest, &bytes).await;
        let mut damaged = bytes.to_vec();
        damaged[70_000] ^= 1;
        fs::write(host.file(digest), &damaged).unwrap();
        host.server.asked();
        read(&host.process(1 << 30).await, digest, &bytes).await;
        assert!(host.server.count("GET") > 0);
        assert_eq!(fs::read(host.file(digest)).unwrap(), bytes, "the damaged one is gone");
    }
}

/// The file was checked by this very process, and its times tell nothing.
#[tokio::test]
async fn a_byte_flipped_after_the_first_look_is_found_at_the_next_read() {
    let host = Host::new().await;
    for bytes in [blob(2, 1), blob(320, 2)] {
        let (digest, size) = (host.give(&bytes), bytes.len() as u64);
        let store = host.process(1 << 30).await;
        read(&store, digest, &bytes).await;
        let file = File::options().write(true).open(host.file(digest)).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[9], 70_000).unwrap();
        file.set_modified(modified).unwrap();
        // As other blobs push it out of memory.
        let cas = Cas { memory: Default::default(), ..store.cas.clone() };
        let store = Store { cas, ..store };
        let content = store.cas.content(digest, size).await.unwrap();
        if size > LARGE {
            assert_eq!(content.window(0..9).unwrap_err().kind(), ErrorKind::InvalidData);
            assert_eq!(content.damaged(), Some(digest));
        }
        let content = store.cas.content(digest, size).await.unwrap();
        assert_eq!(content.bytes(size).unwrap(), bytes);
        assert_eq!(fs::read(host.file(digest)).unwrap(), bytes, "fetched again");
    }
}

/// A task that waits for another process holds no permit, so other blobs can be fetched.
#[tokio::test]
async fn waiting_for_another_process_holds_up_no_other_blob() {
    let host = Host::new().await;
    let cache = HostCache::open(&host.cache(), Some(1 << 30)).unwrap();
    let store = host.process(1 << 30).await;
    let blobs: Vec<_> = (1..4).map(|n| blob(32, n)).collect();
    let digests: Vec<_> = blobs.iter().map(|bytes| host.give(bytes)).collect();
    let others = [cache.turn(digests[0], 0).await, cache.turn(digests[1], 0).await];
    assert!(others.iter().all(Option::is_some), "their digests begin with other digits");
    let waiting = async {
        let slow = [0, 1].map(|n| read(&store, digests[n], &blobs[n]));
        futures::future::join_all(slow).await;
        "those that wait"
    };
    let going = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        read(&store, digests[2], &blobs[2]).await;
        "the one that can go on"
    };
    let (waiting, going) = (std::pin::pin!(waiting), std::pin::pin!(going));
    match futures::future::select(waiting, going).await {
        futures::future::Either::Left((first, _)) => panic!("{first} came first"),
        futures::future::Either::Right((_, waiting)) => waiting.await,
    };
}

#[tokio::test]
async fn the_bound_holds_and_what_was_used_longest_ago_goes() {
    let host = Host::new().await;
    let limit = 10 << 16;
    let mut digests = vec![];
    for n in 0..30 {
        let bytes = blob(1, n);
        digests.push(host.give(&bytes));
        let store = host.process(limit).await;
        read(&store, digests[usize::from(n)], &bytes).await;
        assert!(host.cached() <= limit, "{} bytes", host.cached());
        // The first one is used again and again.
        read(&host.process(limit).await, digests[0], &blob(1, 0)).await;
    }
    assert!(host.file(digests[0]).exists() && host.file(digests[29]).exists());
    assert!(!host.file(digests[1]).exists());
    // What does not fit at all is fetched, and kept nowhere with a name.
    let large = blob(320, 99);
    let digest = host.give(&large);
    read(&host.process(limit).await, digest, &large).await;
    assert!(!host.file(digest).exists() && host.cached() <= limit);
}

/// The file is open: its readers keep it when it is deleted.
#[tokio::test]
async fn what_is_read_stays_readable_when_it_is_thrown_away() {
    let host = Host::new().await;
    let (bytes, limit) = (blob(32, 1), 40 << 16);
    let digest = host.give(&bytes);
    let store = host.process(limit).await;
    let content = store.cas.content(digest, bytes.len() as u64).await.unwrap();
    let other = blob(32, 2);
    read(&host.process(limit).await, host.give(&other), &other).await;
    assert!(!host.file(digest).exists());
    assert_eq!(content, bytes.clone().into());
    read(&store, digest, &bytes).await;
}

#[tokio::test]
async fn drafts_of_dead_processes_are_deleted_and_stopped_ones_block_no_other() {
    let host = Host::new().await;
    let bytes = blob(2, 1);
    let digest = host.give(&bytes);
    let limit = 4 << 16;
    let store = host.process(limit).await;
    // Killed while it wrote: the draft stays, its lock does not.
    let orphan = host.cache().join("new/.new-orphan");
    fs::write(&orphan, blob(4, 7)).unwrap();
    // Another process was stopped while it fetched.
    let cache = HostCache::open(&host.cache(), Some(limit)).unwrap();
    let stopped = cache.turn(digest, 0).await.unwrap();
    host.server.asked();
    let mut reading = std::pin::pin!(read(&store, digest, &bytes));
    tokio::time::timeout(TURN / 2, &mut reading).await.unwrap_err();
    assert_eq!(host.server.count("GET"), 0, "it waits for its turn first");
    reading.await;
    assert_eq!(host.server.count("GET"), 1, "it fetches though the other one holds the turn");
    drop(stopped);
    assert!(!orphan.exists() && host.file(digest).exists());
}

#[tokio::test]
async fn a_folder_that_breaks_turns_the_cache_off_and_fails_nothing() {
    let host = Host::new().await;
    let store = host.process(1 << 30).await;
    fs::remove_dir_all(host.cache().join("new")).unwrap();
    fs::write(host.cache().join("new"), b"no folder").unwrap();
    for n in 1..3 {
        let (small, large) = (blob(2, n), blob(32, n));
        read(&store, host.give(&small), &small).await;
        read(&store, host.give(&large), &large).await;
        store.cas.put(blob(3, n)).await.unwrap();
    }
    assert!(!store.cas.host.as_ref().unwrap().is_on());
    let nowhere = host.folder.path().join("file");
    fs::write(&nowhere, b"").unwrap();
    let store = host.server.store(LARGE).await.with_cache(&nowhere.join("x"), None);
    assert!(store.cas.host.is_none());
}

#[test]
fn the_folder_is_private_or_a_group_s_and_never_world_writable() {
    let folder = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    for (given, folders, files) in [(None, 0o700, 0o600), (Some(0o2770), 0o2770, 0o660)] {
        let cache = folder.path().join(format!("{given:?}"));
        if let Some(given) = given {
            fs::create_dir(&cache).unwrap();
            set(&cache, given);
        }
        let disk = HostCache::open(&cache, Some(1 << 20)).unwrap();
        let digest = ArtifactDigest::of(b"x");
        disk.put(digest, b"x").unwrap();
        let parent = disk.path(digest).parent().unwrap().to_owned();
        assert_eq!([mode(&cache), mode(&parent)], [folders; 2]);
        assert_eq!([mode(&disk.path(digest)), mode(&cache.join("room"))], [files; 2]);
    }
    set(folder.path(), 0o777);
    let error = HostCache::open(folder.path(), None).unwrap_err();
    assert!(error.to_string().contains("all users may write to it"), "{error}");
}

#[test]
fn without_a_limit_it_takes_a_share_of_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let cache = HostCache::open(&folder.path().join("cache"), None).unwrap();
    let disk = rustix::fs::statvfs(folder.path()).unwrap();
    assert!(cache.limit > 0 && cache.limit <= USUAL);
    assert!(cache.limit <= disk.f_blocks * disk.f_frsize / SHARE);
}
