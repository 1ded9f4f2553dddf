//! A resident base changes no byte of any stage, on any number of threads, is read once for all adapters on it, and is
//! dropped when its memory is needed.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use agrpo_spec::{
    Artifact, ArtifactDigest, Content, Files, Inputs, LoraConfig, Outputs, Plan, Run, Seed,
    StageError, StageKey, StageKind, StageSpec, Windows,
};
use bytes::Bytes;
use tch::Kind;

use super::*;
use crate::testing::{computed, run_file, shape};
use crate::{Device, Resources, Threads, model::ModelConfig, problems::NoPrograms};

/// Two iterations of everything that reads policies.
fn text() -> String {
    run_file::run_file(&[
        ("name", "\"policy-cache\""),
        ("model.d_model", "16"),
        ("model.n_layers", "2"),
        ("model.mlp_hidden_size", "16"),
        ("sft.steps", "2"),
        ("sft.micro_batch", "1"),
        ("rollout.prompts", "2"),
        ("rollout.steps", "4"),
        ("rollout.micro_batch", "1"),
        ("estimator.micro_batch", "1"),
        ("training.iterations", "2"),
        ("evaluation.problems", "2"),
        ("evaluation.every", "1"),
        ("evaluation.steps", "[4]"),
    ])
}

const LORA: &str = "\n[lora]\nrank = 2\nalpha = 4.0\nhead = false\n";

/// Every stage of a run with the digests of its outputs.
fn digests(
    run: &str,
    execute: impl Fn(&StageSpec, &Inputs) -> Result<Outputs, StageError>,
) -> Vec<(StageKey, Vec<ArtifactDigest>)> {
    let of = |(key, _, made): (StageKey, StageSpec, Outputs)| {
        (key, made.artifacts.values().map(|made| made.digest().unwrap()).collect())
    };
    computed(run, execute).0.into_iter().map(of).collect()
}

#[test]
fn stages_give_the_same_bytes_with_a_kept_policy_and_on_several_threads() {
    let lora = "\n[lora]\nrank = 2\nalpha = 4.0\nhead = true\n";
    let merged = "\n[lora]\nrank = 2\nalpha = 4.0\nhead = false\nmerge_for_sampling = true\n";
    let text = text();
    let more = text.replace("k = 2\n", "k = 2\nkl = 0.1\ninner_updates = 2\n");
    for run in [more, format!("{text}{lora}"), format!("{text}{merged}")] {
        let threads = Threads::new(NonZeroUsize::new(3).unwrap());
        let execute =
            crate::execute_with(Device::Cpu, Resources::of(threads), Arc::new(NoPrograms));
        let kept = digests(&run, execute);
        assert_eq!(kept, digests(&run, crate::execute), "{run}");
        assert!(kept.len() > 10);
    }
}

const WEIGHTS: &str = "model.safetensors";

/// Weights outside of memory that count how many of their bytes are read.
#[derive(Debug)]
struct Counted {
    bytes: Bytes,
    read: Arc<AtomicU64>,
}

impl Windows for Counted {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn digest(&self) -> Option<ArtifactDigest> {
        Some(ArtifactDigest::of(&self.bytes))
    }

    fn window(&self, range: Range<u64>) -> std::io::Result<Bytes> {
        self.read.fetch_add(range.end - range.start, Ordering::Relaxed);
        Content::from(self.bytes.clone()).window(range)
    }
}

/// A policy's folder, and how many bytes of its base were read.
struct Folder {
    digest: ArtifactDigest,
    files: Files,
    read: Arc<AtomicU64>,
}

impl Folder {
    fn of(mut files: Files) -> Self {
        let digest = Artifact::Folder(files.clone()).digest().unwrap();
        let read = Arc::default();
        let bytes = files[WEIGHTS].bytes(1 << 20).unwrap();
        let counted = Counted { bytes, read: Arc::clone(&read) };
        files.insert(WEIGHTS.to_owned(), Content::Elsewhere(Arc::new(counted)));
        Self { digest, files, read }
    }

    /// A base.
    fn new(seed: u64) -> Self {
        let config = ModelConfig::new(&shape(0.5), 10, 8, 9, 6);
        Self::of(Policy::draw(config, 0.5, Seed::new(seed)).unwrap().to_files().unwrap())
    }

    /// The same base with an adapter.
    fn adapted(&self, seed: u64) -> Self {
        let base = Policy::from_folder(&self.files).unwrap();
        let adapted = base.with_new_adapter(&lora(), Seed::new(seed)).unwrap();
        let files = self.files.clone().into_iter().chain(adapted.adapter_files().unwrap().unwrap());
        Self::of(files.collect())
    }

    /// How often the whole of the weights was read since the last call.
    fn reads(&self) -> u64 {
        let size = self.files[WEIGHTS].size();
        let read = self.read.swap(0, Ordering::Relaxed);
        assert_eq!(read % size, 0, "read in part");
        read / size
    }
}

fn lora() -> LoraConfig {
    let adapters = format!("{}{LORA}", text());
    Run::parse(&adapters).unwrap().config().lora.clone().unwrap()
}

fn get(cache: &PolicyCache, folder: &Folder, merge: bool) -> Policy {
    cache.policy(folder.digest, &folder.files, merge, Placement::CPU).unwrap()
}

/// The stages of a run, of which there is one of each kind.
fn spec(kind: StageKind, run: &str) -> StageSpec {
    let (mut plan, mut made) = (Plan::new(Run::parse(run).unwrap()), 0u32);
    loop {
        let (&key, spec) = plan.pending().iter().next().unwrap();
        if spec.kind() == kind {
            return spec.clone();
        }
        made += 1;
        let digest = ArtifactDigest::of(&made.to_le_bytes());
        plan.finished(key, |_| Some(digest)).unwrap();
    }
}

#[test]
fn a_base_is_read_once_whatever_adapters_are_put_on_it() {
    let (base, other) = (Folder::new(1), Folder::new(2));
    let adapted: Vec<_> = (3..6).map(|seed| base.adapted(seed)).collect();
    base.reads();
    let cache = PolicyCache::default();
    // The first iteration samples from the checkpoint itself.
    drop(get(&cache, &base, false));
    assert_eq!(base.reads(), 1);
    for folder in &adapted {
        let fresh = Policy::from_folder(&folder.files).unwrap().parameters();
        folder.reads();
        for _ in 0..2 {
            assert_eq!(get(&cache, folder, false).parameters(), fresh);
        }
        assert_eq!((folder.reads(), base.reads()), (0, 0));
    }
    // The base itself is still there, and goes when another one comes.
    drop(get(&cache, &base, true));
    assert_eq!(base.reads(), 0);
    drop(get(&cache, &other, false));
    drop(get(&cache, &adapted[0], false));
    assert_eq!((other.reads(), adapted[0].reads()), (1, 1));
}

#[test]
fn a_merged_policy_is_made_of_the_resident_base_and_takes_its_place() {
    let base = Folder::new(1);
    let adapted = base.adapted(2);
    let cache = PolicyCache::default();
    drop(get(&cache, &base, false));
    base.reads();
    let merged = get(&cache, &adapted, true);
    assert!(merged.adapter().is_none());
    let alone = Policy::from_folder(&adapted.files).unwrap().merged().parameters();
    assert_eq!(merged.parameters(), alone);
    adapted.reads();
    drop(get(&cache, &adapted, true));
    assert_eq!((base.reads(), adapted.reads()), (0, 0));
    assert!(get(&cache, &adapted, false).adapter().is_some());
    assert_eq!(adapted.reads(), 1, "two bases are never in memory");
}

#[test]
fn what_takes_memory_without_the_base_drops_it() {
    let base = Folder::new(1);
    let cache = PolicyCache::default();
    let plain = text();
    let adapters = format!("{plain}{LORA}");
    drop(get(&cache, &base, false));
    base.reads();
    for (kind, run, reads) in [
        (StageKind::Reward, &plain, 0),
        (StageKind::Update, &adapters, 0),
        (StageKind::Update, &plain, 1),
        (StageKind::Sft, &plain, 1),
    ] {
        cache.before(&spec(kind, run));
        drop(get(&cache, &base, false));
        assert_eq!(base.reads(), reads, "{kind}");
    }
    cache.clear();
    drop(get(&cache, &base, false));
    assert_eq!(base.reads(), 1);
}

#[test]
fn gradients_belong_to_who_asked_for_them() {
    let (one, cache) = (Folder::new(1), PolicyCache::default());
    let (trained, other) = (get(&cache, &one, false), get(&cache, &one, false));
    let pointer = |policy: &Policy| policy.parameters().into_values().next().unwrap().data_ptr();
    assert_eq!(pointer(&trained), pointer(&other), "they stand on one memory");
    trained.require_grad();
    trained.head(&tch::Tensor::ones([1, 8], tch::kind::FLOAT_CPU)).sum(Kind::Float).backward();
    let flowed = |policy: &Policy| {
        let gradients = policy.gradients().into_values();
        gradients.map(|gradient| gradient.abs().sum(Kind::Float).double_value(&[])).sum::<f64>()
    };
    assert!(flowed(&trained) > 0.0);
    assert_eq!(flowed(&other), 0.0);
    assert_eq!(flowed(&get(&cache, &one, false)), 0.0);
    assert_eq!(one.reads(), 1);
}

#[test]
fn a_folder_that_cannot_be_read_leaves_nothing_wrong_behind() {
    let (one, cache) = (Folder::new(1), PolicyCache::default());
    let adapted = one.adapted(2);
    one.reads();
    drop(get(&cache, &one, false));
    let digest = ArtifactDigest::of(b"broken");
    let mut broken = adapted.files.clone();
    broken.insert("adapter_model.safetensors".to_owned(), b"cut".to_vec().into());
    assert!(cache.policy(digest, &broken, false, Placement::CPU).is_err());
    // Its base was sound.
    drop(get(&cache, &one, false));
    assert_eq!(one.reads(), 1);
    broken.insert(WEIGHTS.to_owned(), b"cut".to_vec().into());
    assert!(cache.policy(digest, &broken, false, Placement::CPU).is_err());
    drop(get(&cache, &one, false));
    assert_eq!(one.reads(), 1, "what was in memory had made room");
}
