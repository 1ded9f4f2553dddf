//! `agrpo import`: a base from a Hugging Face folder, checked and stored by content.
//!
//! Answers with the section of a run file that starts from it. The folder is read and never changed; weights
//! stream into the store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc;

use agrpo_jobs::{Imported, JobsError};
use agrpo_spec::{ArtifactDigest, Files, FolderEntry, StageError};
use agrpo_stages::chat::other_layout;
use agrpo_stages::model::{ModelConfig, WholeModel, check_folder, check_weights};
use serde::Serialize;

use crate::cli::ImportArgs;
use crate::commands::{block_on, create_store, plain};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::Settings;

/// What a run file has to say of the base.
#[derive(Debug, Serialize)]
struct Shape {
    d_model: i64,
    n_layers: i64,
    n_heads: i64,
    mlp_hidden_size: i64,
    embedding_size: i64,
    max_sequence_length: i64,
}

/// What the headers tell.
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

/// Takes the folder in, and prints how a run names it.
pub(super) fn import(args: &ImportArgs, settings: &Settings) -> Result<Exit, Failure> {
    look(&args.folder)?;
    let (tell, told) = mpsc::sync_channel(1);
    let imported = block_on(async {
        let store = create_store(settings, args.store.store.as_deref()).await?;
        let check = move |files: &Files| {
            // Nobody stops listening before this returns.
            tell.send(facts(files)?).map_err(|error| StageError::Internal(error.to_string()))
        };
        let imported = store.import_folder(&args.folder, check).await;
        imported.map_err(|error| match error {
            // Whatever is wrong with the folder, nothing stored is.
            JobsError::Data(told) => Failure::usage(told),
            error => error.into(),
        })
    })?;
    let facts = told.recv();
    let facts = facts.map_err(|error| Failure::new(Exit::Unexpected, error.to_string()))?;
    let report = Report::new(&args.folder, imported, facts);
    if args.json.json {
        output::json(&report)?;
    } else {
        output::line(&report.section)?;
    }
    Ok(Exit::Done)
}

/// A folder of something else is told by what lies there, before anything is read.
fn look(folder: &Path) -> Result<(), Failure> {
    let place = folder.display();
    let unreadable = |error: std::io::Error| {
        Failure::usage(format!("{place}: cannot read the folder: {}", plain(&error)))
    };
    let mut names = BTreeSet::new();
    for entry in folder.read_dir().map_err(unreadable)? {
        names.insert(entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned());
    }
    let has = |end: &str| names.iter().find(|name| name.ends_with(end));
    let refuse = |told: &str| Err(Failure::usage(format!("{place}: {told}")));
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

/// Checks a folder down to its last weight; says what is wrong and makes no difference.
pub(super) fn look_through(files: &Files) -> Result<(), StageError> {
    check_folder(files)?;
    for note in [check_weights(files)?, other_layout(files)?].into_iter().flatten() {
        output::talk(note);
    }
    Ok(())
}

/// Checks the folder, and reads off its headers what it is.
fn facts(files: &Files) -> Result<Facts, StageError> {
    look_through(files)?;
    let model = WholeModel::open(files)?;
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
            // What is no wider gains nothing in f32; f16 has digits that bf16 would round off.
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

    /// A section of a run file; what people want to know beside it is in comments.
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
