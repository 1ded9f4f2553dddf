//! Run files and the records in JSON: runs, specs, manifests, listings, names.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use agrpo_spec::record::{self, Opened};
use agrpo_spec::{
    ArtifactDigest, CHECKPOINT, Environment, FolderListing, Manifest, OutputRecord, Phases, Plan,
    Run, RunConfig, RunId, StageDigest, StageKey, StageKind, StageSpec, sources, with_digests,
};

const FILES: [&str; 6] = [
    include_str!("../../jobs/runs/smoke.toml"),
    include_str!("../../jobs/runs/sudoku.toml"),
    include_str!("../../jobs/runs/llada-8b-gsm8k.toml"),
    include_str!("../../jobs/runs/countdown.toml"),
    include_str!("../../jobs/runs/word-puzzle/word-puzzle.toml"),
    include_str!("../../jobs/runs/sdar-8b-gsm8k.toml"),
];

/// Contents in place of sources.
fn settled(text: &str) -> String {
    let named = sources(text).unwrap_or_default();
    let of = |key: String| (key.clone(), ArtifactDigest::of(key.as_bytes()));
    let is_named = |key: &str| named.iter().any(|source| source.key == key);
    // Readers of a checkpoint's folder name two of its files as well.
    let inside = ["checkpoint.config", "checkpoint.tokenizer"].map(str::to_owned).into_iter();
    let inside = inside.filter(|_| is_named(CHECKPOINT));
    let digests = named.iter().map(|source| source.key.clone()).chain(inside).map(of).collect();
    with_digests(text, &digests).unwrap_or_else(|_| text.to_owned())
}

fn runs() -> Vec<Run> {
    FILES.iter().map(|text| Run::parse(&settled(text)).expect("the project's own file")).collect()
}

pub(crate) fn run_files() -> Vec<Vec<u8>> {
    FILES.iter().map(|text| settled(text).into_bytes()).collect()
}

/// As `agrpo run` reads it: the sources, the digests in their places, the run, its plan.
pub(crate) fn run_file(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let named = sources(text);
    let digest = ArtifactDigest::of(b"content");
    let keys = named.iter().flatten().map(|source| (source.key.clone(), digest)).collect();
    drop(with_digests(text, &keys));
    match Run::parse(text) {
        Ok(run) => {
            begin(run);
            true
        }
        // What people read is one line.
        Err(error) => {
            let message = error.to_string();
            assert!(!message.contains('\n') || text.contains('\n'), "{message}");
            false
        }
    }
}

/// A plan holds every shard of an iteration, as many as the run asks for.
fn begin(run: Run) {
    assert!(Plan::total_stages(&run) > 0);
    if run.config().rollout.shards <= 8 {
        assert!(!Plan::new(run).pending().is_empty());
    }
}

pub(crate) fn run_records() -> Vec<Vec<u8>> {
    let sealed = |run: &Run| record::seal(run.config());
    // From before records were sealed.
    let plain = |run: &Run| serde_json::to_vec_pretty(run.config()).expect("serialises");
    let runs = runs();
    runs.iter().map(sealed).chain(runs.iter().take(1).map(plain)).collect()
}

pub(crate) fn run_record(bytes: &[u8]) -> bool {
    let Ok(config) = record::open::<RunConfig>(bytes) else { return false };
    Run::resolve(config.value).map(begin).is_ok()
}

/// One of each kind, and more.
fn all_specs() -> Vec<StageSpec> {
    let mut all = vec![];
    for run in runs() {
        let mut plan = Plan::new(run);
        let mut kinds = BTreeMap::new();
        for _ in 0..200 {
            let Some((&key, spec)) = plan.pending().first_key_value() else { break };
            kinds.entry(key.kind).or_insert_with(|| spec.clone());
            let name = spec.digest().to_string();
            let output =
                |output: &str| Some(ArtifactDigest::of(format!("{name} {output}").as_bytes()));
            plan.finished(key, output).expect("it was pending");
        }
        all.extend(kinds.into_values());
    }
    all
}

pub(crate) fn specs() -> Vec<Vec<u8>> {
    let plain = |spec: &StageSpec| serde_json::to_vec(spec).expect("serialises");
    let all = all_specs();
    all.iter().map(record::seal).chain(all.iter().map(plain)).collect()
}

/// As a spec is read by its name: its digest is computed.
pub(crate) fn spec(bytes: &[u8]) -> bool {
    let Ok(Opened { value: spec, .. }) = record::open::<StageSpec>(bytes) else { return false };
    let again: Opened<StageSpec> = record::open(&record::seal(&spec)).expect("was written here");
    assert_eq!(spec.digest(), again.value.digest());
    drop(spec.inputs());
    true
}

fn manifest_values() -> &'static [Manifest] {
    static VALUES: OnceLock<Vec<Manifest>> = OnceLock::new();
    VALUES.get_or_init(|| {
        let manifest = |spec: StageSpec| {
            let record =
                |name: &str| OutputRecord { digest: ArtifactDigest::of(name.as_bytes()), size: 9 };
            let names = ["policy", "policy/config.json", "optimizer"];
            Manifest {
                stage: spec.digest(),
                spec,
                outputs: names.map(|name| (name.to_owned(), record(name))).into(),
                metrics: [("loss".to_owned(), 0.5), ("kl".to_owned(), -1e-9)].into(),
                environment: Environment { threads: 1, ..Environment::default() },
                phases: Phases { fetch_ms: 1.0, compute_ms: 2.5, store_ms: 0.0 },
            }
        };
        all_specs().into_iter().map(manifest).collect()
    })
}

pub(crate) fn manifests() -> Vec<Vec<u8>> {
    let plain = |manifest: &Manifest| serde_json::to_vec_pretty(manifest).expect("serialises");
    let all = manifest_values();
    all.iter().map(Manifest::to_bytes).chain(all.iter().map(plain)).collect()
}

pub(crate) fn manifest(bytes: &[u8]) -> bool {
    // It is looked up by its own digest if it has one.
    let known = manifest_values();
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]);
    let bears = |known: &&Manifest| head.contains(&known.stage.to_string());
    let stage = known.iter().find(bears).unwrap_or(&known[0]).stage;
    Manifest::open(stage, bytes).is_ok()
}

pub(crate) fn listings() -> Vec<Vec<u8>> {
    let files = |count: usize| {
        let file = |n: usize| (format!("file-{n}.json"), vec![0; n].into());
        FolderListing::of(&(0..count).map(file).collect()).expect("in memory").to_bytes().to_vec()
    };
    [0, 1, 3, 40].map(files).into()
}

pub(crate) fn listing(bytes: &[u8]) -> bool {
    FolderListing::from_bytes(bytes).is_some()
}

/// A place in a run, as text.
pub(crate) fn some_key() -> String {
    StageKey::new(StageKind::Gradient, 12, 3).of_update(2).to_string()
}

pub(crate) fn names() -> Vec<Vec<u8>> {
    let digest = ArtifactDigest::of(b"name").to_string();
    let kinds = StageKind::ALL.into_iter().map(|kind| StageKey::new(kind, 7, 1).to_string());
    let others = [some_key(), digest, "cpu-portable".to_owned(), "cuda:90".to_owned()];
    kinds.chain(others).map(String::into_bytes).collect()
}

/// Digests, places in a run, classes of numerics: what people type and what objects are called.
pub(crate) fn name(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let key = text.parse::<StageKey>();
    if let Ok(key) = &key {
        let again: StageKey = key.to_string().parse().expect("was written here");
        assert_eq!(*key, again);
    }
    let digests = [
        text.parse::<ArtifactDigest>().is_ok(),
        text.parse::<StageDigest>().is_ok(),
        text.parse::<RunId>().is_ok(),
    ];
    key.is_ok() || digests[0] || text.parse::<agrpo_spec::Numerics>().is_ok()
}
