//! Stores of each kind for the unit tests of the store and of the fleet, and what happens behind a store's back.
//!
//! The module that includes this one names the store's types: in the store they are the crate's own.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agrpo_spec::{RunId, StageDigest, record};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{Error, ObjectStore, ObjectStoreExt};
use tempfile::TempDir;

use super::{Control, Hold, Repair, Store, Versions};

/// The same store, in which blobs of more bytes than this count as large.
pub(crate) fn with_large(store: &Store, whole: u64) -> Store {
    store.with_limits(|limits| limits.whole = whole)
}

/// A store in memory that can be slowed down, and gives up an answer after a second and a half.
pub(crate) fn throttled() -> (Store, Arc<ThrottledStore<InMemory>>) {
    let objects = Arc::new(ThrottledStore::new(InMemory::new(), ThrottleConfig::default()));
    let store = Store::over(Arc::clone(&objects) as _);
    let answer = Duration::from_millis(1500);
    (store.with_limits(|limits| limits.answer = answer), objects)
}

/// The versions of a program whose rollouts have another one.
pub(crate) fn other_versions() -> Versions {
    let mut versions = serde_json::to_value(Versions::own()).unwrap();
    versions["rollout"] = 99.into();
    serde_json::from_value(versions).unwrap()
}

/// As if a person held the run.
pub(crate) async fn hold(store: &Store, run: RunId, state: Hold) {
    store
        .records
        .put_control(run, &Control { state, unix_ms: 0, by: "anna".to_owned() })
        .await
        .unwrap();
}

/// The stages of a run that were computed again; all of these records can be read.
pub(crate) async fn repairs(store: &Store, run: RunId) -> Vec<Repair> {
    let (all, unreadable) = store.records.readable_repairs(run).await.unwrap();
    assert_eq!(unreadable, []);
    all
}

/// What is under a store: read, written and deleted behind its back.
#[derive(Clone, Debug)]
pub(crate) struct Objects(pub(crate) Arc<dyn ObjectStore>);

impl Objects {
    /// The names of all objects below a folder, sorted.
    pub(crate) async fn names(&self, folder: &str) -> Vec<String> {
        let listing = self.0.list(Some(&folder.into()));
        let all: Vec<_> = listing.try_collect().await.unwrap();
        let mut names: Vec<_> = all.iter().map(|meta| meta.location.to_string()).collect();
        names.sort_unstable();
        names
    }

    /// Puts any bytes in the place of an object.
    pub(crate) async fn put(&self, name: &str, bytes: impl Into<Bytes>) {
        self.0.put(&name.into(), bytes.into().into()).await.unwrap();
    }

    /// An object's bytes.
    pub(crate) async fn get(&self, name: &str) -> Option<Bytes> {
        match self.0.get(&name.into()).await {
            Ok(found) => Some(found.bytes().await.unwrap()),
            Err(Error::NotFound { .. }) => None,
            Err(error) => panic!("{name}: {error}"),
        }
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.0.delete(&name.into()).await.unwrap();
    }

    /// Removes a spec or writes something else in its place.
    pub(crate) async fn damage_spec(&self, stage: StageDigest, with: Option<&'static str>) {
        let name = format!("specs/{stage}");
        match with {
            Some(text) => self.put(&name, text).await,
            None => self.delete(&name).await,
        }
    }

    /// Loses a run's index and the notes about its policies.
    pub(crate) async fn drop_index(&self, run: RunId) {
        for folder in ["stages", "policies"] {
            for name in self.names(&format!("runs/{run}/{folder}")).await {
                self.delete(&name).await;
            }
        }
    }

    /// As if a program with another version of rollouts had begun the run.
    pub(crate) async fn pin_other_versions(&self, run: RunId) {
        let name = format!("runs/{run}/versions.json");
        self.put(&name, record::seal(&other_versions())).await;
    }
}

/// A store and, where it has one, its folder, which goes with the value.
pub(crate) struct TestStore {
    pub(crate) store: Store,
    /// What is under it.
    pub(crate) objects: Objects,
    folder: Option<TempDir>,
}

impl TestStore {
    pub(crate) async fn memory() -> Self {
        Self::over(Arc::new(InMemory::new()))
    }

    /// A store on some objects.
    pub(crate) fn over(objects: Arc<dyn ObjectStore>) -> Self {
        Self { store: Store::over(Arc::clone(&objects)), objects: Objects(objects), folder: None }
    }

    pub(crate) async fn file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap(), &[]).await.unwrap();
        let objects = Objects(Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap()));
        Self { store, objects, folder: Some(folder) }
    }

    /// A local store in which blobs of more bytes than this count as large.
    pub(crate) async fn file_with_large(large: u64) -> Self {
        let test = Self::file().await;
        Self { store: with_large(&test.store, large), ..test }
    }

    /// One store of each kind.
    pub(crate) async fn each() -> [Self; 2] {
        [Self::memory().await, Self::file().await]
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// The store as a new process sees it.
    pub(crate) fn reopened(&self) -> Store {
        self.store.fresh()
    }

    /// The same as silent corruption does it: neither the file nor its times tell.
    pub(crate) fn flip_silently(&self, name: &str) {
        let path = self.path(name);
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        let middle = file.metadata().unwrap().len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, middle).unwrap();
        file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
        file.set_modified(modified).unwrap();
    }

    /// Changes one bit in the middle of a stored object.
    pub(crate) fn flip(&self, name: &str) {
        let mut bytes = std::fs::read(self.path(name)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// Cuts a stored object in half.
    pub(crate) fn truncate(&self, name: &str) {
        let bytes = std::fs::read(self.path(name)).unwrap();
        std::fs::write(self.path(name), &bytes[..bytes.len() / 2]).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }
}
