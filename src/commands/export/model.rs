//! A policy as a folder: a whole model, a model with its adapter merged, or the adapter alone. Files are copied
//! unchanged where possible; large ones in windows, so that little of a model is in memory.

use std::collections::BTreeMap;

use agrpo_compute::model::{MergedWeights, ModelConfig, Part};
use agrpo_export::card::{Card, Model, Origin};
use agrpo_export::history::{History, Row};
use agrpo_export::shards::{self, Shard, Tensor};
use agrpo_fleet::replay::recorded;
use agrpo_spec::{ArtifactDigest, Content, Files, WINDOW};
use agrpo_view::history::RunHistory;
use serde_json::{Map, Value, json};

use super::target::{Folder, Summary};
use super::whole_history::{not_begun, whole_history};
use crate::args::{ExportArgs, FormatArg};
use crate::commands::prelude::{Failure, Result, Store, cannot, output};
use crate::commands::resolve::{Named, find};

/// PEFT's two files.
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
/// Bytes of tensors in a file: the default of Hugging Face's tools.
const SHARD: u64 = 5_000_000_000;
/// Bytes of a configuration or a tokenizer at most.
const SMALL: u64 = 256 << 20;

/// The policy to export, and the run and iteration if one was named.
type Chosen = (ArtifactDigest, Option<(RunHistory, u32)>);

pub(super) async fn export(store: &Store, args: &ExportArgs) -> Result<Summary> {
    let (policy, of_run) = choose(store, args).await?;
    let files = store.cas.load_folder(policy).await?;
    let config = check(policy, &files, args.format)?;
    let mut folder = Folder::begin(&args.output, args.force)?;
    let model = match args.format {
        FormatArg::Peft => adapter(&mut folder, &files, args.base.as_deref())?,
        FormatArg::Merged => merged(&mut folder, &files)?,
        _ => whole(&mut folder, &files, args.shard_size.unwrap_or(SHARD))?,
    };
    let card = Card {
        family: config.family,
        model,
        policy,
        base: args.base.clone(),
        mask: config.mask_token_id,
        end: config.eos_token_id,
        origin: of_run.as_ref().map(|(history, iteration)| origin(history, *iteration)),
    };
    folder.write("README.md", card.readme().as_bytes())?;
    let (mut run, mut name, mut iteration) = (None, None, None);
    if let Some((history, number)) = &of_run {
        let config = history.run().config();
        let text = toml::to_string(config).map_err(cannot("write the run file"))?;
        folder.write("run.toml", text.as_bytes())?;
        (run, name, iteration) =
            (Some(history.run().id()), Some(config.name.clone()), Some(*number));
    }
    let about = json!({
        "format": args.format, "policy": policy, "run": run, "name": name,
        "iteration": iteration,
    });
    let files = folder.finish(&about)?;
    let (format, output) = (args.format, args.output.display().to_string());
    Ok(Summary { format, output, run, name, iteration, policy: Some(policy), rows: None, files })
}

/// The policy that `RUN|HASH` and `--iteration` name.
async fn choose(store: &Store, args: &ExportArgs) -> Result<Chosen> {
    let named = find(store, &args.what).await?;
    if let (Named::Stage(_) | Named::Artifact(_), Some(_)) = (&named, args.iteration) {
        return Err(Failure::usage(format!(
            "--iteration: expected a run before it, and {} names one policy alone",
            args.what
        )));
    }
    match named {
        Named::Run(run) => {
            let history = whole_history(store, run).await?;
            let row = row(&history, args.iteration.and_then(|iteration| iteration.0))?;
            Ok((row.policy, Some((history, row.iteration))))
        }
        Named::Artifact(policy) => Ok((policy, None)),
        Named::Stage(stage) => {
            let manifest = recorded(store, stage).await?;
            let policy = manifest.output("policy").ok_or_else(|| {
                Failure::usage(format!(
                    "{} is a stage of kind {}, which makes no policy: expected a run, a policy, or a stage of \
                     sft or update",
                    stage.short(),
                    manifest.spec.kind()
                ))
                .hint("agrpo show RUN lists the policies of a run")
            })?;
            Ok((policy, None))
        }
    }
}

fn row(history: &RunHistory, iteration: Option<u32>) -> Result<Row> {
    let mut rows = History::of(history).rows;
    let newest = rows.last().map(|row| row.iteration);
    let newest = newest.ok_or_else(|| not_begun(history))?;
    let wanted = iteration.unwrap_or(newest);
    rows.retain(|row| row.iteration == wanted);
    rows.pop().ok_or_else(|| {
        Failure::usage(format!(
            "--iteration {wanted}: {} has come to iteration {newest}; expected base, latest or 0 to {newest}",
            output::run(history.run())
        ))
    })
}

/// Whether the artifact is a policy of the kind that the format is for.
fn check(policy: ArtifactDigest, files: &Files, format: FormatArg) -> Result<ModelConfig> {
    let short = policy.short();
    let Some(config) = files.get("config.json") else {
        let why = "is no policy: expected a folder with config.json and weights";
        return Err(Failure::usage(format!("{short} {why}")));
    };
    let is_adapted = ADAPTER.iter().all(|name| files.contains_key(*name));
    let why = match format {
        FormatArg::Peft | FormatArg::Merged if !is_adapted => {
            "has no adapter: all of its weights are its own; expected --format hf"
        }
        FormatArg::Hf if is_adapted => {
            "is a base with an adapter; expected --format merged for one model, or --format peft for the adapter"
        }
        _ => return Ok(ModelConfig::from_json(&small("config.json", config)?)?),
    };
    Err(Failure::usage(format!("--format {}: policy {short} {why}", output::name_of(&format))))
}

/// PEFT's files unchanged, except for the base's name where one is given.
fn adapter(folder: &mut Folder, files: &Files, base: Option<&str>) -> Result<Model> {
    let [settings, tensors] = ADAPTER;
    match base {
        None => copy(folder, settings, &files[settings])?,
        Some(base) => {
            let corrupt = |error| Failure::data(format!("{settings}: {error}"));
            let mut document: Value =
                serde_json::from_slice(&small(settings, &files[settings])?).map_err(corrupt)?;
            document["base_model_name_or_path"] = base.into();
            folder.write(settings, format!("{document:#}\n").as_bytes())?;
        }
    }
    copy(folder, tensors, &files[tensors]).map(|()| Model::Adapter)
}

/// The base's files, with the adapter merged into the matrices that it changes.
fn merged(folder: &mut Folder, files: &Files) -> Result<Model> {
    let model = MergedWeights::open(files)?;
    let parts = model.parts();
    for (name, content) in files.iter().filter(|(name, _)| !ADAPTER.contains(&name.as_str())) {
        if !name.ends_with(".safetensors") {
            copy(folder, name, content)?;
            continue;
        }
        folder.fill(name, |sink| {
            sink.write(&model.header(name)?)?;
            let mut own = parts.iter().filter(|part| part.file == *name);
            own.try_for_each(|part| model.read(part, |piece| sink.write(piece)))
        })?;
    }
    Ok(Model::Merged)
}

/// The policy's files; weights in shards where one of them is too large.
fn whole(folder: &mut Folder, files: &Files, most: u64) -> Result<Model> {
    let model = MergedWeights::open(files)?;
    let is_weights = |name: &str| name.ends_with(".safetensors");
    let is_cut = files.iter().any(|(name, content)| is_weights(name) && content.size() > most);
    for (name, content) in files {
        if !(is_cut && (is_weights(name) || name == shards::INDEX)) {
            copy(folder, name, content)?;
        }
    }
    if is_cut {
        cut(folder, &model, most)?;
    }
    let tokenizer = files.get("tokenizer.json").map(|file| small("tokenizer.json", file));
    if let Some(tokenizer) = tokenizer.transpose()?
        && !files.contains_key("tokenizer_config.json")
    {
        for (name, document) in companions(model.config(), &tokenizer) {
            if !files.contains_key(name) {
                folder.write(name, format!("{document:#}\n").as_bytes())?;
            }
        }
    }
    Ok(Model::Whole)
}

fn cut(folder: &mut Folder, model: &MergedWeights, most: u64) -> Result<()> {
    let parts = model.parts();
    let tensor = |Part { name, dtype, shape, bytes, .. }: &Part| Tensor {
        name: name.clone(),
        dtype,
        shape: shape.clone(),
        bytes: *bytes,
    };
    let tensors: Vec<Tensor> = parts.iter().map(tensor).collect();
    let shards = shards::cut(&tensors, most).map_err(cannot("cut the weights"))?;
    for Shard { file, tensors, head } in &shards {
        folder.fill(file, |sink| {
            sink.write(head)?;
            let mut own = parts[tensors.clone()].iter();
            own.try_for_each(|part| model.read(part, |piece| sink.write(piece)))
        })?;
    }
    if shards.len() > 1 {
        folder.write(shards::INDEX, &shards::index(&tensors, &shards))?;
    }
    Ok(())
}

/// What transformers needs beside `tokenizer.json`, for this project's own tokenizers.
fn companions(config: &ModelConfig, tokenizer: &[u8]) -> [(&'static str, Value); 3] {
    let document: Value = serde_json::from_slice(tokenizer).unwrap_or_default();
    let added = document["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text =
        |id: i64| added.iter().find(|token| token["id"] == id).map(|token| &token["content"]);
    let ids = [
        ("eos_token", config.eos_token_id),
        ("mask_token", config.mask_token_id),
        ("pad_token", config.pad()),
    ];
    let special = ids.into_iter().filter_map(|(key, id)| Some((key.to_owned(), text(id)?.clone())));
    let special: Map<String, Value> = special.collect();
    let mut about = special.clone();
    about.extend([
        ("clean_up_tokenization_spaces".to_owned(), json!(false)),
        ("model_max_length".to_owned(), json!(config.max_sequence_length)),
        ("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast")),
    ]);
    let generation = json!({ "eos_token_id": config.eos_token_id, "pad_token_id": config.pad() });
    [
        ("generation_config.json", generation),
        ("special_tokens_map.json", special.into()),
        ("tokenizer_config.json", about.into()),
    ]
}

fn origin(history: &RunHistory, iteration: u32) -> Origin {
    let config = history.run().config();
    let steps = config.evaluation.steps.first().copied().unwrap_or(config.rollout.steps);
    let evaluated = |number| Some((number, history.evaluations.get(&number)?.clone()));
    let evaluations: BTreeMap<_, _> = [0, iteration].into_iter().filter_map(evaluated).collect();
    Origin {
        run: history.run().id(),
        name: config.name.clone(),
        iteration,
        iterations: config.training.iterations,
        sampler: config.evaluation_sampler(steps),
        evaluations: evaluations.into_iter().collect(),
    }
}

fn copy(folder: &mut Folder, name: &str, content: &Content) -> Result<()> {
    folder.fill(name, |sink| {
        for range in content.ranges(WINDOW) {
            let lost = |error| Failure::data(format!("{name} cannot be read: {error}"));
            sink.write(&content.window(range).map_err(lost)?)?;
        }
        Ok(())
    })
}

fn small(name: &str, content: &Content) -> Result<bytes::Bytes> {
    content.bytes(SMALL).map_err(|error| Failure::data(format!("{name} cannot be read: {error}")))
}
