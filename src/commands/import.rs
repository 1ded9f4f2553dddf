//! `agrpo import`: checks a base in a Hugging Face folder and stores it by content.
//!
//! Prints the section of a run file that names it. Never changes the folder; weights stream into the store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc;

use agrpo_compute::model::{MergedWeights, ModelConfig};
use agrpo_spec::{ArtifactDigest, Files, FolderEntry, StageError};
use agrpo_store::{Imported, JobsError};
use serde::Serialize;

use crate::args::ImportArgs;
use crate::commands::files::plain;
use crate::commands::sources::check_model;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::session::Session;

/// The base's sizes, as a run file gives them.
#[derive(Debug, Serialize)]
struct Shape {
    d_model: i64,
    n_layers: i64,
    n_heads: i64,
    mlp_hidden_size: i64,
    embedding_size: i64,
    max_sequence_length: i64,
}

/// What the headers of the weights contain.
#[derive(Debug)]
struct Facts {
    shape: Shape,
    parameters: u64,
    dtypes: BTreeSet<&'static str>,
}

/// The answer.
#[derive(Debug, Serialize)]
struct Report {
    folder: ArtifactDigest,
    from: String,
    parameters: u64,
    dtypes: BTreeSet<&'static str>,
    precision: &'static str,
    shape: Shape,
    files: BTreeMap<String, FolderEntry>,
    left_out: Vec<String>,
    section: String,
}

/// Stores the folder, and prints how a run file names it.
pub(super) fn import(args: &ImportArgs, session: &Session) -> Result<Exit, Failure> {
    check_names(&args.folder)?;
    let (send, received) = mpsc::sync_channel(1);
    let imported = session.block_on(async {
        let store = session.writable_store().await?;
        let check = move |files: &Files| {
            // The receiver outlives this call.
            send.send(facts(files)?).map_err(|error| StageError::Internal(error.to_string()))
        };
        let imported = store.import_folder(&args.folder, check).await;
        imported.map_err(|error| match error {
            // The folder is wrong, not the store.
            JobsError::Data(message) => Failure::usage(message),
            error => error.into(),
        })
    })?;
    let facts = received.recv();
    let facts = facts.map_err(|error| Failure::new(Exit::Unexpected, error.to_string()))?;
    let report = Report::new(&args.folder, imported, facts);
    if args.json.json {
        output::json(&report)?;
    } else {
        output::line(&report.section)?;
    }
    Ok(Exit::Done)
}

/// Refuses a folder that is no model by the names of its files, before anything is read.
fn check_names(folder: &Path) -> Result<(), Failure> {
    let place = folder.display();
    let unreadable = |error: std::io::Error| {
        Failure::usage(format!("{place}: cannot read the folder: {}", plain(&error)))
    };
    let mut names = BTreeSet::new();
    for entry in folder.read_dir().map_err(unreadable)? {
        names.insert(entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned());
    }
    let has = |end: &str| names.iter().find(|name| name.ends_with(end));
    let refuse = |why: &str| Err(Failure::usage(format!("{place}: {why}")));
    if !names.contains("config.json") {
        if names.contains("adapter_config.json") {
            return refuse(
                "the folder has an adapter and no base; expected a whole model: agrpo export RUN --format \
                 merged makes one",
            );
        }
        return refuse(
            "the folder has no config.json; expected a model as Hugging Face's tools save it",
        );
    }
    if has(".safetensors").is_none() {
        return match has(".bin").or_else(|| has(".pt")).or_else(|| has(".pth")) {
            Some(other) => refuse(&format!(
                "the folder has {other} and no *.safetensors; save the model again with \
                 save_pretrained(.., safe_serialization=True)"
            )),
            None => refuse("the folder has no *.safetensors; expected the model's weights"),
        };
    }
    if names.contains("adapter_model.safetensors") {
        return refuse(
            "the folder has an adapter beside its base; expected the base alone, or merged",
        );
    }
    if !names.contains("tokenizer.json") {
        return refuse("the folder has no tokenizer.json; a run needs it to read and write text");
    }
    Ok(())
}

/// Checks the folder, and reads sizes and types from its headers.
fn facts(files: &Files) -> Result<Facts, StageError> {
    check_model(files)?;
    let model = MergedWeights::open(files)?;
    let ModelConfig { d_model, n_layers, n_heads, .. } = *model.config();
    let ModelConfig { mlp_hidden_size, embedding_size, max_sequence_length, .. } = *model.config();
    let parts = model.parts();
    let count = |shape: &[usize]| shape.iter().map(|&n| n as u64).product::<u64>();
    Ok(Facts {
        shape: Shape {
            d_model,
            n_layers,
            n_heads,
            mlp_hidden_size,
            embedding_size,
            max_sequence_length,
        },
        parameters: parts.iter().map(|part| count(&part.shape)).sum(),
        dtypes: parts.iter().map(|part| part.dtype).collect(),
    })
}

impl Report {
    fn new(folder: &Path, imported: Imported, facts: Facts) -> Self {
        let from = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let mut report = Self {
            folder: imported.digest,
            from: from.display().to_string(),
            parameters: facts.parameters,
            // Narrower weights gain nothing in f32; f16 has digits that bf16 would round off.
            precision: match facts.dtypes.contains("BF16") && !facts.dtypes.contains("F16") {
                true => "bf16",
                false => "f32",
            },
            dtypes: facts.dtypes,
            shape: facts.shape,
            files: imported.listing.files,
            left_out: imported.ignored,
            section: String::new(),
        };
        report.section = report.describe();
        report
    }

    /// A section of a run file, with sizes and file names in comments.
    fn describe(&self) -> String {
        let dtypes = self.dtypes.iter().copied().collect::<Vec<_>>().join(", ");
        let file = |(name, entry): (&String, &FolderEntry)| {
            vec![entry.digest.to_string(), name.clone(), output::size(entry.size)]
        };
        let files = output::table(&self.files.iter().map(file).collect::<Vec<_>>());
        let mut lines = vec![format!("# {} parameters, {dtypes}", self.parameters)];
        if self.dtypes.contains("F16") {
            lines.push("# F16 is computed in f32 without loss; bf16 would round it".to_owned());
        }
        lines.extend(files.lines().map(|line| format!("#   {line}")));
        if !self.left_out.is_empty() {
            lines.push(format!("# left out: {}", self.left_out.join(", ").replace('\n', " ")));
        }
        let Shape { d_model, n_layers, n_heads, .. } = self.shape;
        let Shape { mlp_hidden_size, embedding_size, max_sequence_length, .. } = self.shape;
        let from = toml::Value::from(self.from.clone());
        lines.push(format!(
            "[checkpoint]\n\
             folder = {{ from = {from}, sha256 = \"{}\" }}\n\
             precision = \"{}\"\n\n\
             [checkpoint.shape]\n\
             d_model = {d_model}\n\
             n_layers = {n_layers}\n\
             n_heads = {n_heads}\n\
             mlp_hidden_size = {mlp_hidden_size}\n\
             embedding_size = {embedding_size}\n\
             max_sequence_length = {max_sequence_length}",
            self.folder, self.precision
        ));
        lines.join("\n")
    }
}
