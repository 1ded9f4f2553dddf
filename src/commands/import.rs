//! `agrpo import`: checks a base in a Hugging Face folder and stores it by content. Prints the section of a run file
//! that names it. Never changes the folder; weights stream into the store.

use std::collections::{BTreeMap, BTreeSet};
use std::{path::Path, sync::mpsc};

use agrpo_compute::model::{MergedWeights, ModelConfig};
use agrpo_spec::{ArtifactDigest, CheckpointShape, Files, OutputRecord, StageError};
use agrpo_store::JobsError;

use super::files::{names, unreadable};
use super::prelude::{Exit, Failure, Result, Serialize, Session, cannot, output};
use super::run_file::check_model;
use crate::args::ImportArgs;

/// What the headers of the weights contain.
#[derive(Debug, Serialize)]
struct Facts {
    parameters: u64,
    dtypes: BTreeSet<&'static str>,
    precision: &'static str,
    shape: CheckpointShape,
}

#[derive(Debug, Serialize)]
struct Report {
    folder: ArtifactDigest,
    from: String,
    #[serde(flatten)]
    facts: Facts,
    files: BTreeMap<String, OutputRecord>,
    left_out: Vec<String>,
    section: String,
}

pub(super) fn import(args: &ImportArgs, session: &Session) -> Result<Exit> {
    check_names(&args.folder)?;
    let (send, received) = mpsc::sync_channel(1);
    let imported = session.block_on(async {
        let store = session.writable_store().await?;
        let check = move |files: &Files| {
            // The receiver outlives this call.
            send.send(facts(files)?).map_err(|error| StageError::Internal(error.to_string().into()))
        };
        let imported = store.cas.import_folder(&args.folder, check).await;
        imported.map_err(|error| match error {
            // The folder is wrong, not the store.
            JobsError::Data(message) => Failure::usage(message.to_string()),
            error => error.into(),
        })
    })?;
    let facts = received.recv().map_err(cannot("read the weights"))?;
    let from = std::path::absolute(&args.folder).unwrap_or_else(|_| args.folder.clone());
    let mut report = Report {
        folder: imported.digest,
        from: from.display().to_string(),
        facts,
        files: imported.listing.files,
        left_out: imported.ignored,
        section: String::new(),
    };
    report.section = report.describe();
    output::answer(args.answer.json, &report, || report.section.clone())
}

/// Refuses a folder that is no model by the names of its files, before anything is read.
fn check_names(folder: &Path) -> Result<()> {
    let names = names(folder).map_err(|error| unreadable(folder, &error))?;
    let has = |name: &str| names.contains(name);
    let other = ["safetensors", "bin", "pt", "pth"]
        .iter()
        .find_map(|end| names.iter().find(|name| name.ends_with(&format!(".{end}"))));
    let why = match other {
        _ if !has("config.json") && has("adapter_config.json") => {
            "an adapter and no base; expected a whole model: agrpo export RUN --format merged makes one"
        }
        _ if !has("config.json") => {
            "no config.json; expected a model as Hugging Face's tools save it"
        }
        None => "no *.safetensors; expected the model's weights",
        Some(other) if !other.ends_with(".safetensors") => &format!(
            "{other} and no *.safetensors; save the model again with \
             save_pretrained(.., safe_serialization=True)"
        ),
        _ if has("adapter_model.safetensors") => {
            "an adapter beside its base; expected the base alone, or merged"
        }
        _ if !has("tokenizer.json") => "no tokenizer.json; a run needs it to read and write text",
        _ => return Ok(()),
    };
    Err(Failure::usage(format!("{}: the folder has {why}", folder.display())))
}

/// Checks the folder, and reads sizes and types from its headers.
fn facts(files: &Files) -> Result<Facts, StageError> {
    check_model(files)?;
    let model = MergedWeights::open(files)?;
    let (config, parts) = (model.config(), model.parts());
    let count = |shape: &[usize]| shape.iter().map(|&n| n as u64).product::<u64>();
    let dtypes: BTreeSet<_> = parts.iter().map(|part| part.dtype).collect();
    // Narrower weights gain nothing in f32; f16 has digits that bf16 would round off.
    let is_narrow = dtypes.contains("BF16") && !dtypes.contains("F16");
    Ok(Facts {
        parameters: parts.iter().map(|part| count(&part.shape)).sum(),
        precision: if is_narrow { "bf16" } else { "f32" },
        dtypes,
        shape: shape(config)?,
    })
}

/// The shape for a run file. What a family has by default is left out.
fn shape(config: &ModelConfig) -> Result<CheckpointShape, StageError> {
    let size =
        |size: i64| u32::try_from(size).map_err(|error| StageError::Data(error.to_string().into()));
    let keys = &config.family.traits().keys;
    let own = |found: i64, default: i64| (found != default).then(|| size(found)).transpose();
    let (heads, head_size) = (config.n_heads, config.d_model / config.n_heads.max(1));
    Ok(CheckpointShape {
        family: config.family,
        n_kv_heads: keys.n_kv_heads.map_or(Ok(None), |_| own(config.n_kv_heads, heads))?,
        head_size: keys.head_size.map_or(Ok(None), |_| own(config.head_size, head_size))?,
        attention_block: config.attention_block.map(size).transpose()?,
        n_experts: config.n_experts.map(size).transpose()?,
        experts_per_token: config.experts_per_token.map(size).transpose()?,
        d_model: size(config.d_model)?,
        n_layers: size(config.n_layers)?,
        n_heads: size(heads)?,
        mlp_hidden_size: size(config.mlp_hidden_size)?,
        embedding_size: size(config.embedding_size)?,
        max_sequence_length: size(config.max_sequence_length)?,
    })
}

impl Report {
    /// A section of a run file, with sizes and file names in comments.
    fn describe(&self) -> String {
        let Facts { parameters, dtypes, precision, shape } = &self.facts;
        let names = dtypes.iter().copied().collect::<Vec<_>>().join(", ");
        let mut lines = vec![format!("# {parameters} parameters, {names}")];
        if dtypes.contains("F16") {
            lines.push("# F16 is computed in f32 without loss; bf16 would round it".to_owned());
        }
        lines.extend(output::files(&self.files).lines().map(|line| format!("#   {line}")));
        if !self.left_out.is_empty() {
            lines.push(format!("# left out: {}", self.left_out.join(", ").replace('\n', " ")));
        }
        let from = toml::Value::from(self.from.clone());
        let shape = toml::to_string(shape).unwrap_or_default();
        lines.push(format!(
            "[checkpoint]\nfolder = {{ from = {from}, sha256 = \"{}\" }}\nprecision = \"{precision}\"\n\n\
             [checkpoint.shape]\n{}",
            self.folder,
            shape.trim_end()
        ));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use agrpo_spec::{Family, ModelShape, Real};

    use super::*;

    /// What the shape of a model of these heads says, as a run file writes it.
    fn written(family: Family, heads: (Option<u32>, Option<u32>, Option<u32>)) -> String {
        let real = |value| Real::new(value).unwrap();
        let (n_kv_heads, head_size, attention_block) = heads;
        let model = ModelShape {
            family,
            d_model: 32,
            n_layers: 2,
            n_heads: 4,
            n_kv_heads,
            head_size,
            attention_block,
            n_experts: None,
            experts_per_token: None,
            mlp_hidden_size: 56,
            rope_theta: real(1e6),
            rms_norm_eps: real(1e-6),
            init_std: real(0.02),
        };
        toml::to_string(&shape(&ModelConfig::new(&model, 160, 157, 158, 256)).unwrap()).unwrap()
    }

    #[test]
    fn a_shape_says_what_its_family_does_not_have_by_default() {
        let sizes = "mlp_hidden_size = 56\nembedding_size = 160\nmax_sequence_length = 256\n";
        let plain = "d_model = 32\nn_layers = 2\nn_heads = 4\n";
        assert_eq!(written(Family::Llada, (None, None, None)), format!("{plain}{sizes}"));
        let dream = format!("family = \"dream\"\n{plain}");
        assert_eq!(written(Family::Dream, (None, None, None)), format!("{dream}{sizes}"));
        let grouped = format!("{dream}n_kv_heads = 2\n{sizes}");
        assert_eq!(written(Family::Dream, (Some(2), None, None)), grouped);
        let sdar = format!(
            "family = \"sdar\"\n{plain}n_kv_heads = 2\nhead_size = 16\nattention_block = 4\n{sizes}"
        );
        assert_eq!(written(Family::Sdar, (Some(2), Some(16), Some(4))), sdar);
        // Eight is what four heads of 32 numbers have anyway.
        let same = format!("family = \"sdar\"\n{plain}attention_block = 4\n{sizes}");
        assert_eq!(written(Family::Sdar, (Some(4), Some(8), Some(4))), same);
    }
}
