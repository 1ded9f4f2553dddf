//! Large blobs on each kind of store: checked at every read, handed out in windows, passed on without being read;
//! and folders that come from elsewhere. What counts as large is made small here.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::Ordering;

use agrpo_spec::{
    Artifact, Files, FolderListing, OutputRecord, Outputs, StageError, StageSpec, Windows,
};
use bytes::Bytes;
use object_store::memory::InMemory;

use super::*;
use crate::Store;
use crate::cas::checked::{Blocks, Hashing, OnDisk};
use crate::cas::files::StreamedBlobs;
use crate::cas::spoiled::{spoil, unspoiled};
use crate::flaky_store::flaky;
use crate::objects::{Backend, Objects, open};
use crate::testing::{finished, run, with_large};

/// Bytes above which a blob is large in these tests.
const LARGE: u64 = 1 << 20;

impl Cas {
    /// Stores a file under its digest.
    pub(crate) async fn put_file(&self, path: &Path) -> Result<OutputRecord> {
        self.put_source(path, OnDisk::open(path).unwrap().content()).await
    }
}

struct Shop {
    store: Store,
    folder: tempfile::TempDir,
}

impl Shop {
    /// A local store.
    async fn file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let opened = open(store.to_str().unwrap(), &[]).await.unwrap();
        Self::of(opened, folder)
    }

    /// A store that behaves as a server's bucket.
    fn bucket() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let backend = Backend { bucket: Some("b".to_owned()), ..Backend::default() };
        Self::of(Objects::new(Arc::new(InMemory::new()), None, backend), folder)
    }

    fn of(objects: Objects, folder: tempfile::TempDir) -> Self {
        let store = with_large(&Store::on(objects), LARGE);
        let streamed = Arc::new(StreamedBlobs::in_folder(Some(folder.path().to_owned())));
        let cas = Cas { streamed, ..store.cas.clone() };
        let store = Store { cas, ..store };
        Self { store, folder }
    }

    async fn each() -> [Self; 2] {
        [Self::file().await, Self::bucket()]
    }

    fn path(&self, digest: ArtifactDigest) -> PathBuf {
        self.folder.path().join("store").join(paths::blob(digest))
    }

    /// A model's folder: a large file, a small one, and what is none of a model's.
    fn model(&self) -> PathBuf {
        let model = self.folder.path().join("model");
        fs::create_dir_all(model.join("original")).unwrap();
        fs::write(model.join("model-00001.safetensors"), &many(2)[..]).unwrap();
        fs::write(model.join("config.json"), b"{}").unwrap();
        fs::write(model.join("README.md"), b"hello").unwrap();
        fs::write(model.join("modeling.py"), b"import os").unwrap();
        model
    }
}

/// Some MiB and a bit, so that the last window is short.
fn many(mib: usize) -> Bytes {
    (0..mib << 18).flat_map(|n: usize| n.to_le_bytes()[..4].to_vec()).chain([1, 2, 3]).collect()
}

fn sound(_: &Files) -> Result<(), StageError> {
    Ok(())
}

#[tokio::test]
async fn a_file_goes_in_and_comes_out_in_windows() {
    for shop in Shop::each().await {
        let bytes = many(20);
        let path = shop.folder.path().join("file");
        fs::write(&path, &bytes).unwrap();
        let record = shop.store.cas.put_file(&path).await.unwrap();
        assert_eq!(record.digest, ArtifactDigest::of(&bytes));
        assert_eq!(record.size, bytes.len() as u64);
        assert_eq!(shop.store.cas.put_file(&path).await.unwrap(), record);
        for store in [&shop.store, &shop.store.fresh()] {
            let content = store.cas.content(record.digest, record.size).await.unwrap();
            let Content::Elsewhere(windows) = &content else { panic!("not streamed") };
            assert_eq!(windows.digest(), Some(record.digest));
            assert_eq!(content, bytes.clone().into());
            assert_eq!(store.cas.verified_size(record.digest).await.unwrap(), record.size);
        }
    }
}

#[tokio::test]
async fn a_small_file_comes_as_bytes() {
    for shop in Shop::each().await {
        let path = shop.folder.path().join("file");
        fs::write(&path, b"small").unwrap();
        let record = shop.store.cas.put_file(&path).await.unwrap();
        let content = shop.store.cas.open(record.digest).await.unwrap();
        assert!(matches!(content, Content::Memory(bytes) if bytes == "small"));
        let error = shop.store.cas.content(record.digest, 6).await.unwrap_err();
        assert!(error.to_string().contains("has 5 bytes, expected 6"), "{error}");
    }
}

#[tokio::test]
async fn damage_is_found_whenever_it_happens_and_mended_by_the_file() {
    let shop = Shop::file().await;
    let path = shop.folder.path().join("file");
    fs::write(&path, many(2)).unwrap();
    let OutputRecord { digest, size } = shop.store.cas.put_file(&path).await.unwrap();
    let open = || shop.store.cas.content(digest, size);
    open().await.unwrap();
    let mut damaged = many(2).to_vec();
    damaged[1 << 20] ^= 1;
    fs::write(shop.path(digest), &damaged).unwrap();
    // In the same file, it is found when it is read.
    assert!(open().await.unwrap().window(0..size).is_err());
    let error = open().await.unwrap_err();
    assert!(matches!(&error, JobsError::Lost { digest: lost, .. } if *lost == digest));
    assert!(error.to_string().contains(&format!("cas/{digest} in file://")), "{error}");
    assert!(error.to_string().contains("is corrupt"), "{error}");
    shop.store.cas.put_file(&path).await.unwrap();
    let content = open().await.unwrap();
    fs::write(shop.path(digest), b"cut").unwrap();
    assert!(content.window(size - 10..size).is_err(), "an error, not a signal");
    fs::remove_file(shop.path(digest)).unwrap();
    assert!(open().await.unwrap_err().to_string().contains("is missing"));
}

/// Flips a bit and leaves no trace of it in the file's times.
fn flip(file: &File, at: u64) {
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    file.set_modified(modified).unwrap();
}

#[tokio::test]
async fn bytes_that_change_after_the_first_check_are_never_returned() {
    let shop = Shop::file().await;
    let path = shop.folder.path().join("file");
    fs::write(&path, many(3)).unwrap();
    let OutputRecord { digest, size } = shop.store.cas.put_file(&path).await.unwrap();
    let seen = shop.store.cas.content(digest, size).await.unwrap();
    assert_eq!(seen.window(0..size).unwrap(), many(3));
    let file = fs::File::options().read(true).write(true).open(shop.path(digest)).unwrap();
    let look =
        || file.metadata().map(|meta| (meta.len(), meta.mtime(), meta.mtime_nsec())).unwrap();
    let looked = look();
    flip(&file, 2 << 20);
    assert_eq!(look(), looked, "the file's metadata is unchanged");
    for content in [seen, shop.store.cas.content(digest, size).await.unwrap()] {
        assert_eq!(content.window(0..9).unwrap(), many(3)[..9]);
        let error = content.window((2 << 20) + 5..(2 << 20) + 6).unwrap_err();
        assert!(error.to_string().contains("from 2097152 on are not those"), "{error}");
        assert!(content.digest().is_ok() && content.bytes(size).is_err());
        assert_eq!(content.damaged(), Some(digest));
    }
    let error = shop.store.cas.content(digest, size).await.unwrap_err();
    assert!(matches!(error, JobsError::Lost { digest: lost, .. } if lost == digest));
    // Nothing is stored from it either.
    let stale = OnDisk::checked(file, Arc::clone(&blocks_of(&many(3)))).content();
    fs::remove_file(shop.path(digest)).unwrap();
    let error = shop.store.cas.put_content(digest, stale).await.unwrap_err();
    assert!(matches!(error, JobsError::Lost { digest: lost, .. } if lost == digest));
    assert!(!shop.store.cas.has(digest).await.unwrap());
    // An import mends what a process took for sound.
    shop.store.cas.put_file(&path).await.unwrap();
    flip(&fs::File::options().read(true).write(true).open(shop.path(digest)).unwrap(), 9);
    shop.store.cas.put_file(&path).await.unwrap();
    let content = shop.store.cas.content(digest, size).await.unwrap();
    assert_eq!(content.window(0..size).unwrap(), many(3));
}

fn blocks_of(bytes: &[u8]) -> Arc<Blocks> {
    let mut hashing = Hashing::default();
    hashing.update(bytes);
    Arc::new(hashing.finish())
}

#[tokio::test]
async fn a_bad_read_of_a_large_file_is_no_damage() {
    let shop = Shop::file().await;
    let OutputRecord { digest, size } = shop.store.cas.put(many(3)).await.unwrap();
    let file = File::open(shop.path(digest)).unwrap();
    let open = async || shop.store.fresh().cas.content(digest, size).await;
    spoil(&file, &[1]);
    assert_eq!(open().await.unwrap().bytes(size).unwrap(), many(3));
    // The first pass has four reads; what follows is read of the windows.
    spoil(&file, &[0, 0, 2, 0, 0, 4, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(open().await.unwrap().bytes(size).unwrap(), many(3));
    assert_eq!(unspoiled(&file), 0, "the reads were bad");
    let every_pass: Vec<u8> = (1..=8).flat_map(|n| [n, 0, 0, 0]).collect();
    spoil(&file, &every_pass);
    let error = open().await.unwrap_err();
    assert!(
        matches!(&error, JobsError::Unavailable(message) if message.contains("8 reads")),
        "{error}"
    );
    assert_eq!(unspoiled(&file), 0);
    spoil(&file, &[0, 1, 0, 0, 3, 0, 0, 0, 0, 1, 0, 0]);
    assert!(
        matches!(open().await.unwrap_err(), JobsError::Lost { digest: lost, .. } if lost == digest)
    );
}

#[tokio::test]
async fn a_bad_read_of_a_server_s_large_object_is_no_damage() {
    let (objects, reads) = flaky();
    let backend = Backend { bucket: Some("b".to_owned()), ..Backend::default() };
    let objects = Objects::new(objects, None, backend);
    let shop = Shop::of(objects, tempfile::tempdir().unwrap());
    let OutputRecord { digest, size } = shop.store.cas.put(many(3)).await.unwrap();
    while reads.bad.load(Ordering::Relaxed) < 5 {
        let content = shop.store.fresh().cas.content(digest, size).await.unwrap();
        assert_eq!(content.bytes(size).unwrap(), many(3));
    }
}

#[tokio::test]
async fn a_copy_of_a_server_s_object_that_changes_is_copied_again() {
    let shop = Shop::bucket();
    let OutputRecord { digest, size } = shop.store.cas.put(many(3)).await.unwrap();
    let content = shop.store.fresh();
    let first = content.cas.content(digest, size).await.unwrap();
    let Some(Known::Copied(copy, _)) = content.cas.streamed.get(digest) else {
        panic!("it is copied")
    };
    flip(&copy.file, 2 << 20);
    assert!(first.bytes(size).is_err());
    assert_eq!(first.damaged(), Some(digest));
    let second = content.cas.content(digest, size).await.unwrap();
    assert_eq!(second.bytes(size).unwrap(), many(3));
    assert_eq!(second.damaged(), None);
}

/// A base that every update passes on costs one request each time.
#[tokio::test]
async fn what_came_from_the_store_is_passed_on_unread() {
    #[derive(Debug)]
    struct Unreadable(u64, ArtifactDigest);
    impl Windows for Unreadable {
        fn size(&self) -> u64 {
            self.0
        }
        fn digest(&self) -> Option<ArtifactDigest> {
            Some(self.1)
        }
        fn window(&self, _: Range<u64>) -> io::Result<Bytes> {
            Err(io::Error::other("never shown"))
        }
    }
    for shop in Shop::each().await {
        let imported = shop.store.cas.import_folder(&shop.model(), sound).await.unwrap();
        let entry = &imported.listing.files["model-00001.safetensors"];
        let outputs = |digest| {
            let base = Content::Elsewhere(Arc::new(Unreadable(entry.size, digest)));
            let files = Files::from([("model-00001.safetensors".to_owned(), base)]);
            let artifacts = BTreeMap::from([("policy", Artifact::Folder(files))]);
            Outputs { artifacts, metrics: BTreeMap::new() }
        };
        let records = shop.store.cas.put_outputs(&outputs(entry.digest)).await.unwrap();
        assert_eq!(records["policy/model-00001.safetensors"].digest, entry.digest);
        // Where the store has it no longer, it has to be read after all.
        let gone = ArtifactDigest::of(b"gone");
        assert!(shop.store.cas.put_outputs(&outputs(gone)).await.is_err());
        assert!(!shop.store.cas.has(gone).await.unwrap());
    }
}

#[tokio::test]
async fn a_file_that_changes_on_its_way_is_not_stored() {
    for shop in Shop::each().await {
        let path = shop.folder.path().join("file");
        fs::write(&path, many(2)).unwrap();
        let disk = OnDisk::open(&path).unwrap();
        let digest = ArtifactDigest::of(b"as it was");
        let content = disk.content();
        let error = shop.store.cas.put_content(digest, content).await.unwrap_err();
        assert!(error.to_string().contains("it has changed"), "{error}");
        assert!(!shop.store.cas.has(digest).await.unwrap());
    }
}

#[tokio::test]
async fn a_folder_is_taken_without_what_is_none_of_a_model_s() {
    for shop in Shop::each().await {
        let model = shop.model();
        let imported = shop.store.cas.import_folder(&model, sound).await.unwrap();
        assert_eq!(imported.ignored, ["README.md", "modeling.py", "original/"]);
        let names: Vec<_> = imported.listing.files.keys().collect();
        assert_eq!(names, ["config.json", "model-00001.safetensors"]);
        let listing = shop.store.cas.get(imported.digest).await.unwrap();
        assert_eq!(FolderListing::from_bytes(&listing).unwrap(), imported.listing);
        let files = shop.store.cas.load_folder(imported.digest).await.unwrap();
        assert_eq!(files["model-00001.safetensors"], many(2).into());
        assert_eq!(shop.store.cas.import_folder(&model, sound).await.unwrap(), imported);
    }
}

#[tokio::test]
async fn a_folder_that_is_refused_leaves_nothing_behind() {
    let shop = Shop::file().await;
    let refuse = |files: &Files| {
        assert_eq!(files["config.json"].bytes(9).unwrap(), "{}");
        Err(StageError::Data("model.safetensors lies".into()))
    };
    let error = shop.store.cas.import_folder(&shop.model(), refuse).await.unwrap_err();
    assert!(
        matches!(&error, JobsError::Data(message) if message.ends_with("/model: model.safetensors lies"))
    );
    assert!(!shop.folder.path().join("store/cas").exists());
    let error =
        shop.store.cas.import_folder(&shop.folder.path().join("no"), sound).await.unwrap_err();
    assert!(
        matches!(&error, JobsError::Invalid(message) if message.contains("/no cannot be read"))
    );
}

/// Eight readers at once, and a bucket whose object is damaged.
#[tokio::test]
async fn a_copy_of_a_server_s_object_is_made_once() {
    let shop = Shop::bucket();
    let path = shop.folder.path().join("file");
    fs::write(&path, many(20)).unwrap();
    let record = shop.store.cas.put_file(&path).await.unwrap();
    let reads = (0..8).map(|_| shop.store.cas.content(record.digest, record.size));
    let copies = futures::future::try_join_all(reads).await.unwrap();
    let Content::Elsewhere(first) = &copies[0] else { panic!("it is large") };
    let same = |copy: &Content| matches!(copy, Content::Elsewhere(c) if Arc::ptr_eq(c, first));
    assert!(copies.iter().all(same));
    let left: Vec<_> = fs::read_dir(shop.folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "copies have no name that could stay behind: {left:?}");
    let wrong = ArtifactDigest::of(b"wrong");
    shop.store.objects.replace(&paths::blob(wrong), many(2)).await.unwrap();
    let error = shop.store.cas.open(wrong).await.unwrap_err();
    assert!(error.to_string().contains("is corrupt"), "{error}");
    let error = shop.store.cas.content(wrong, 3 << 20).await.unwrap_err();
    assert!(error.to_string().contains("expected 3145728"), "{error}");
}

/// An update of many shards would not fit into memory otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_gradients_and_moments_are_handed_to_an_update_in_windows() {
    for shop in Shop::each().await {
        finished(&shop.store, run()).await;
        let stages = shop.store.records.recorded_stages(run().id()).await.unwrap();
        let mut updates = vec![];
        for stage in stages.into_values() {
            let spec = shop.store.records.manifest(stage).await.unwrap().unwrap().spec;
            updates.extend(if let StageSpec::Update(spec) = spec { Some(spec) } else { None });
        }
        let mut spec = updates.remove(0);
        let (gradient, moments) = (many(2), many(3));
        spec.gradients.push(shop.store.cas.put(gradient.clone()).await.unwrap().digest);
        spec.optimizer_state = Some(shop.store.cas.put(moments.clone()).await.unwrap().digest);
        let inputs =
            shop.store.fresh().cas.load_inputs(&StageSpec::Update(spec.clone())).await.unwrap();
        let small = inputs.content(spec.gradients[0]).unwrap();
        assert!(matches!(small, Content::Memory(_)));
        let large = [*spec.gradients.last().unwrap(), spec.optimizer_state.unwrap()];
        for (digest, bytes) in large.into_iter().zip([gradient, moments]) {
            let content = inputs.content(digest).unwrap();
            assert!(matches!(content, Content::Elsewhere(_)));
            assert_eq!(*content, Content::from(bytes));
            let message = inputs.blob(digest).unwrap_err().to_string();
            assert!(message.contains("in windows, expected in memory"), "{message}");
        }
    }
}
