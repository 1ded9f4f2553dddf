//! A run file, from its text to a checked run. A run has no paths and no addresses, so the files that a run file names
//! are fetched into the store, unless it has them, and their addresses replaced by digests before the text is parsed.
//! They are checked here too, before a stage is computed for hours. Computes nothing.

use std::{collections::BTreeMap, path::Path};

use agrpo_compute::{check_folder, model::check_weights, text::chat::other_layout};
use agrpo_programs::Programs;
use agrpo_spec::{
    Artifact, ArtifactDigest, Base, CHECKPOINT, Files, FolderListing, Inputs, Run, RunConfig,
    Source, StageError, sources, with_digests,
};
use agrpo_store::{JobsError, fetch, redact};

use super::files::{name_of, read_text};
use super::prelude::{Failure, Result, Session, Settings, Store, output};
use crate::{args::RunFileArgs, numerics, shell};

/// Prefix of the keys of a grading program's files, which are beside the run file and need no digest.
pub(super) const PROGRAM: &str = "reward.files.";

/// Files of a model's folder that a run names by itself, each with its key.
const CHECKPOINT_FILES: [(&str, &str); 2] =
    [("checkpoint.config", "config.json"), ("checkpoint.tokenizer", "tokenizer.json")];

/// The checked run of a text, with another seed where one is given, and the text that a restart hands
/// over. The files that it names are in the store.
pub(super) fn fetch_run(
    asked: &RunFileArgs,
    (named, text): (&[Source], String),
    session: &Session,
) -> Result<(Run, String)> {
    let text = match named {
        [] => text,
        named => session
            .block_on(fetched(&text, named, session))
            .map_err(|failure| failure.at(name_of(&asked.file)))?,
    };
    let run = parse_run(&text, asked)?;
    // Before a restart it was checked already.
    if numerics::handed_over(&session.settings).is_none() {
        let problems = run.config().evaluation.problems;
        check_run(&run, problems, session)
            .map_err(|failure| placed(failure, named).at(name_of(&asked.file)))?;
    }
    Ok((run, text))
}

/// The run file's text, and the files that it names.
pub(super) fn read_sources(
    asked: &RunFileArgs,
    settings: &Settings,
) -> Result<(Vec<Source>, String)> {
    let text = match numerics::handed_over(settings) {
        Some(text) => return Ok((vec![], text.to_owned())),
        None => read_text(&asked.file).map_err(|failure| {
            failure.hint("jobs/runs/smoke.toml is a small run with every key explained")
        })?,
    };
    let named = named(&text, &asked.file, &asked.sources);
    Ok((named.map_err(|failure| failure.at(name_of(&asked.file)))?, text))
}

/// The run that a text without addresses describes, with another seed or numerics class where one is given.
pub(super) fn parse_run(text: &str, asked: &RunFileArgs) -> Result<Run> {
    let run = Run::parse(text).and_then(|run| {
        let config = run.config();
        let seed = asked.seed.unwrap_or(config.seed);
        let numerics = asked.numerics.unwrap_or(config.numerics);
        Run::resolve(RunConfig { seed, numerics, ..config.clone() })
    });
    run.map_err(|error| Failure::from(error).at(name_of(&asked.file)))
}

/// Refuses a run whose problems are too few or too long before anything is computed for it.
pub(super) fn check_run(run: &Run, problems: u32, session: &Session) -> Result<()> {
    let material = run.config().material();
    let mut digests: Vec<_> = material.into_iter().map(|(_, digest)| digest).collect();
    if let Base::Checkpoint(checkpoint) = run.base() {
        digests.extend([checkpoint.config, checkpoint.tokenizer]);
    }
    let mut inputs = Inputs::default();
    // A task whose problems are drawn needs no store.
    if !digests.is_empty() {
        session.block_on(async {
            let store = session.writable_store().await?;
            for digest in digests {
                inputs.insert(digest, Artifact::Blob(store.cas.get(digest).await?.into()));
            }
            Ok(())
        })?;
    }
    // The run file is wrong, or what it names is: nothing that was computed is.
    let programs = Programs::new(session.settings.path());
    agrpo_compute::check_run(run, problems, &inputs, &programs).map_err(Failure::refused)
}

/// The files of a run file, with addresses from the command line in place of its own. A relative path of
/// the run file is one beside it, or else one in the working directory.
pub(super) fn named(text: &str, file: &Path, instead: &[(String, String)]) -> Result<Vec<Source>> {
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
async fn fetched(text: &str, named: &[Source], session: &Session) -> Result<String> {
    let store = session.writable_store().await?;
    let mut digests = BTreeMap::new();
    for source in named {
        let digest = one(source, &store, session).await?;
        if source.sha256.is_none() && !source.key.starts_with(PROGRAM) {
            output::talk(format!(
                "{} has the SHA-256 {digest}; write it into the run file to hold on to it",
                source.key
            ));
        }
        digests.insert(source.key.clone(), digest);
        if source.key == CHECKPOINT {
            let files = FolderListing::from_bytes(&store.cas.get(digest).await?)
                .ok_or_else(|| Failure::usage(format!("{CHECKPOINT} = {digest}: not a folder")))?;
            for (key, file) in CHECKPOINT_FILES {
                let entry = files.files.get(file).ok_or_else(|| {
                    Failure::usage(format!("{CHECKPOINT}: the folder has no {file}"))
                })?;
                digests.insert(key.to_owned(), entry.digest);
            }
        }
    }
    Ok(with_digests(text, &digests)?)
}

/// The run file for the plan alone: files without a digest get a placeholder.
pub(super) fn unfetched(text: &str, named: &[Source]) -> Result<String> {
    let nothing: ArtifactDigest = "0".repeat(64).parse().expect("64 digits");
    let mut digests: BTreeMap<_, _> =
        named.iter().map(|source| (source.key.clone(), source.sha256.unwrap_or(nothing))).collect();
    if digests.contains_key(CHECKPOINT) {
        digests.extend(CHECKPOINT_FILES.map(|(key, _)| (key.to_owned(), nothing)));
    }
    Ok(with_digests(text, &digests)?)
}

/// Adds the address of a file that an error names by its key. Errors carry the key in their text alone.
fn placed(failure: Failure, named: &[Source]) -> Failure {
    let mut all = named.iter().filter_map(|source| Some((&source.key, source.from.as_ref()?)));
    match all.find(|(key, _)| failure.message.contains(key.as_str())) {
        Some((key, from)) => failure.hint(format!("{key} is {}", redact::address(from))),
        None => failure,
    }
}

async fn one(source: &Source, store: &Store, session: &Session) -> Result<ArtifactDigest> {
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
        let folder = store.cas.import_folder(Path::new(from), check_model).await;
        // The folder is wrong, not the store.
        let imported = folder.map_err(|error| missing(Failure::refused(error)))?;
        if !imported.ignored.is_empty() {
            output::talk(format!("{key}: left out {}", imported.ignored.join(", ")));
        }
        imported.digest
    } else {
        let bytes = fetch(from, &session.settings.object_store_options()).await;
        let bytes = bytes.map_err(|error| missing(error.into()))?;
        let digest = ArtifactDigest::of(&bytes);
        check_pin(source, from, digest)?;
        store.cas.put(bytes).await?.digest
    };
    check_pin(source, from, digest)?;
    Ok(digest)
}

/// Checks a model's folder down to its last weight; what differs from the usual layout is only reported.
pub(super) fn check_model(files: &Files) -> Result<(), StageError> {
    check_folder(files)?;
    for note in [check_weights(files)?, other_layout(files)?].into_iter().flatten() {
        output::talk(note);
    }
    Ok(())
}

/// Whether the store has it, with all files of a folder. Renews its age, so that a gc does not delete it before the
/// run uses it. A damaged file counts as missing; the files of a folder are checked by the stages that read them.
async fn is_whole(source: &Source, pinned: ArtifactDigest, store: &Store) -> Result<bool> {
    if !store.cas.claim(pinned).await? {
        return Ok(false);
    }
    let content = match store.cas.open(pinned).await {
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
        if !store.cas.claim(entry.digest).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn check_pin(source: &Source, from: &str, found: ArtifactDigest) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_names_a_file_by_its_key_gets_the_address() {
        let (key, from) = ("task.dataset.train".to_owned(), Some("rows.jsonl".to_owned()));
        let named = [Source { key, from, sha256: None }];
        let text = |message: &str| placed(Failure::usage(message), &named).to_string();
        assert_eq!(
            text("task.dataset.train: line 3: no answer"),
            "error: task.dataset.train: line 3: no answer\n\nhint: task.dataset.train is rows.jsonl"
        );
        assert_eq!(text("seed = -1"), "error: seed = -1");
    }
}
