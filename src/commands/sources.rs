//! Files that a run file names: fetched into the store, and named by content from then on.
//!
//! A run knows no path and no address, so a run file that names some is rewritten before it is read as a
//! run. What the store has already is not fetched again. Whether the files are any good is asked here
//! too, before a stage is computed for hours.

use std::collections::BTreeMap;
use std::path::Path;

use agrpo_jobs::{JobsError, Store, fetch, redact};
use agrpo_spec::{
    Artifact, ArtifactDigest, Base, CHECKPOINT, FolderListing, Inputs, Run, Source, sources,
    with_digests,
};

use crate::commands::create_store;
use crate::commands::import::look_through;
use crate::exit::Failure;
use crate::output;
use crate::settings::Settings;
use crate::shell;

/// What the keys of a grading program's files begin with. Their digests are nobody's to pin by hand: the
/// files lie beside the run file.
pub(super) const PROGRAM: &str = "reward.files.";

/// Stands for what nobody has fetched yet, where nothing is computed.
const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The files of a run file, with addresses from the command line in place of its own. A relative path of
/// the run file is one beside it, or else one in the working directory.
pub(super) fn named(
    text: &str,
    file: &Path,
    instead: &[(String, String)],
) -> Result<Vec<Source>, Failure> {
    let mut found = sources(text)?;
    for from in found.iter_mut().filter_map(|source| source.from.as_mut()) {
        let beside = file.parent().map(|folder| folder.join(&*from));
        if let Some(beside) = beside.filter(|place| !from.contains("://") && place.exists()) {
            *from = beside.display().to_string();
        }
    }
    for (key, address) in instead {
        let keys: Vec<_> = found.iter().map(|source| source.key.clone()).collect();
        let source = found.iter_mut().find(|source| source.key == *key).ok_or_else(|| {
            let keys = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
            Failure::usage(format!("--source {key}: the run file names these files: {keys}"))
        })?;
        source.from = Some(address.clone());
    }
    Ok(found)
}

/// The run file with contents in place of addresses, all of them in the store.
pub(super) async fn fetched(
    text: &str,
    named: &[Source],
    settings: &Settings,
    store: Option<&str>,
) -> Result<String, Failure> {
    let store = create_store(settings, store).await?;
    let mut digests = BTreeMap::new();
    for source in named {
        let digest = one(source, &store, settings).await?;
        if source.sha256.is_none() && !source.key.starts_with(PROGRAM) {
            output::talk(format!(
                "{} has the SHA-256 {digest}; write it into the run file to hold on to it",
                source.key
            ));
        }
        digests.insert(source.key.clone(), digest);
        if source.key == CHECKPOINT {
            let files = FolderListing::from_bytes(&store.get_blob(digest).await?)
                .ok_or_else(|| Failure::usage(format!("{CHECKPOINT} = {digest}: not a folder")))?;
            for (key, file) in
                [("checkpoint.config", "config.json"), ("checkpoint.tokenizer", "tokenizer.json")]
            {
                let entry = files.files.get(file).ok_or_else(|| {
                    Failure::usage(format!("{CHECKPOINT}: the folder has no {file}"))
                })?;
                digests.insert(key.to_owned(), entry.digest);
            }
        }
    }
    Ok(with_digests(text, &digests)?)
}

/// The run file for a look at the plan alone: what was not pinned is nothing in particular.
pub(super) fn unfetched(text: &str, named: &[Source]) -> Result<String, Failure> {
    let nothing: ArtifactDigest = NOTHING.parse().expect("64 digits");
    let mut digests: BTreeMap<_, _> =
        named.iter().map(|source| (source.key.clone(), source.sha256.unwrap_or(nothing))).collect();
    if digests.contains_key(CHECKPOINT) {
        digests.extend(
            ["checkpoint.config", "checkpoint.tokenizer"].map(|key| (key.to_owned(), nothing)),
        );
    }
    Ok(with_digests(text, &digests)?)
}

/// Says where the files lie that an error names by their keys alone.
pub(super) fn placed(failure: Failure, named: &[Source]) -> Failure {
    let mut all = named.iter().filter_map(|source| Some((&source.key, source.from.as_ref()?)));
    match all.find(|(key, _)| failure.message().contains(key.as_str())) {
        Some((key, from)) => failure.hint(format!("{key} is {}", redact::address(from))),
        None => failure,
    }
}

async fn one(
    source: &Source,
    store: &Store,
    settings: &Settings,
) -> Result<ArtifactDigest, Failure> {
    let Source { key, from, sha256 } = source;
    if let Some(pinned) = sha256
        && is_whole(source, *pinned, store).await?
    {
        return Ok(*pinned);
    }
    let Some(from) = from else {
        let pinned = sha256.map(|digest| digest.to_string()).unwrap_or_default();
        return Err(Failure::usage(format!("{key} = {pinned}: {} does not have it", store.url()))
            .hint(format!("say where it is to be had: --source {}=PATH", shell::word(key))));
    };
    if from.starts_with("s3://") && redact::holds_secret(from) {
        return Err(Failure::usage(format!("{key}: the address holds a password or a key"))
            .hint("keys of a bucket belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
    }
    let missing = |failure: Failure| {
        let key_word = shell::word(key);
        failure.at(key).hint(format!("--source {key_word}=PATH names another place"))
    };
    let digest = if key == CHECKPOINT {
        let folder = store.import_folder(Path::new(from), look_through).await;
        // Whatever is wrong with it, it is not what was asked for: nothing stored is.
        let told = |error: JobsError| missing(Failure::usage(error.to_string()));
        let imported = folder.map_err(told)?;
        if !imported.ignored.is_empty() {
            output::talk(format!("{key}: left out {}", imported.ignored.join(", ")));
        }
        imported.digest
    } else {
        let bytes = fetch(from, &settings.object_store_options()).await;
        let bytes = bytes.map_err(|error| missing(error.into()))?;
        let digest = ArtifactDigest::of(&bytes);
        check_pin(source, from, digest)?;
        store.put_blob(bytes).await?.digest
    };
    check_pin(source, from, digest)?;
    Ok(digest)
}

/// Whether the store has it, with all files of a folder. What it has is young then, so that a gc leaves it to
/// the run. A file that is damaged counts as none; the files of a folder are checked by the stages that read them.
async fn is_whole(source: &Source, pinned: ArtifactDigest, store: &Store) -> Result<bool, Failure> {
    if !store.claim(pinned).await? {
        return Ok(false);
    }
    let content = match store.open_blob(pinned).await {
        Err(JobsError::Lost { .. }) => return Ok(false),
        content => content?,
    };
    if source.key != CHECKPOINT {
        return Ok(true);
    }
    let listing = content.bytes(content.size()).ok();
    let Some(listing) = listing.and_then(|bytes| FolderListing::from_bytes(&bytes)) else {
        return Ok(false);
    };
    for entry in listing.files.values() {
        if !store.claim(entry.digest).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn check_pin(source: &Source, from: &str, found: ArtifactDigest) -> Result<(), Failure> {
    match source.sha256 {
        Some(pinned) if pinned != found => Err(Failure::usage(format!(
            "{}: {} has the SHA-256 {found}, expected {pinned}: it is not the file that the run was \
             written for",
            source.key,
            redact::address(from)
        ))),
        _ => Ok(()),
    }
}

/// The small files that a run's problems and grades come from.
pub(super) async fn material(run: &Run, store: &Store) -> Result<Inputs, Failure> {
    let mut digests: Vec<_> =
        run.config().material().into_iter().map(|(_, digest)| digest).collect();
    if let Base::Checkpoint(checkpoint) = run.base() {
        digests.extend([checkpoint.config, checkpoint.tokenizer]);
    }
    let mut inputs = Inputs::default();
    for digest in digests {
        inputs.insert(digest, Artifact::Blob(store.get_blob(digest).await?.into()));
    }
    Ok(inputs)
}
