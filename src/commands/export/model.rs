//! A policy as a folder: a whole model, a model with its adapter merged, or the adapter alone.
//!
//! Files are copied unchanged where possible; large ones in windows, so that little of a model is in memory.

use std::collections::BTreeMap;

use agrpo_compute::model::{MergedWeights, ModelConfig, Part};
use agrpo_export::card::{Card, Model, Origin};
use agrpo_export::history::{History, Row};
use agrpo_export::shards::{self, Shard, Tensor};
use agrpo_spec::{ArtifactDigest, Content, Files, RunId, WINDOW};
use agrpo_store::Store;
use agrpo_view::history::RunHistory;
use serde_json::{Map, Value, json};

use super::summary::Summary;
use super::target::{Folder, Sink};
use super::whole_history::{not_begun, whole_history};
use crate::args::{ExportArgs, FormatArg, Iteration};
use crate::commands::resolve::{Named, find};
use crate::exit::{Exit, Failure};

/// PEFT's two files.
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
/// Bytes of tensors in a file: the default of Hugging Face's tools.
const SHARD: u64 = 5_000_000_000;
/// Bytes of a configuration or a tokenizer at most.
const SMALL: u64 = 256 << 20;

/// The policy to export, and its run if one was named.
struct Chosen {
    policy: ArtifactDigest,
    of_run: Option<(RunHistory, u32)>,
}

/// Writes the folder.
pub(super) async fn export(store: &Store, args: &ExportArgs) -> Result<Summary, Failure> {
    let chosen = choose(store, args).await?;
    let policy = chosen.policy;
    let files = store.load_folder(policy).await?;
    let config = check(policy, &files, args.format)?;
    let mut folder = Folder::begin(&args.output, args.force)?;
    match args.format {
        FormatArg::Peft => adapter(&mut folder, &files, args.base.as_deref())?,
        FormatArg::Merged => merged(&mut folder, &files)?,
        _ => whole(&mut folder, &files, args.shard_size.unwrap_or(SHARD))?,
    }
    let origin = chosen.of_run.as_ref().map(|(history, iteration)| origin(history, *iteration));
    let card = Card {
        model: match args.format {
            FormatArg::Peft => Model::Adapter,
            FormatArg::Merged => Model::Merged,
            _ => Model::Whole,
        },
        policy,
        base: args.base.clone(),
        mask: config.mask_token_id,
        end: config.eos_token_id,
        origin,
    };
    folder.write("README.md", card.readme().as_bytes())?;
    let (mut run, mut name, mut iteration) = (None, None, None);
    if let Some((history, number)) = &chosen.of_run {
        let config = history.run().config();
        let text = toml::to_string(config).map_err(|error| {
            Failure::new(Exit::Unexpected, format!("cannot write the run file: {error}"))
        })?;
        folder.write("run.toml", text.as_bytes())?;
        (run, name, iteration) =
            (Some(history.run().id()), Some(config.name.clone()), Some(*number));
    }
    let about = json!({
        "format": args.format.name(), "policy": policy, "run": run, "name": name,
        "iteration": iteration,
    });
    let files = folder.finish(&about)?;
    let (format, output) = (args.format.name(), args.output.display().to_string());
    Ok(Summary { format, output, run, name, iteration, policy: Some(policy), rows: None, files })
}

/// The policy that `RUN|HASH` and `--iteration` name.
async fn choose(store: &Store, args: &ExportArgs) -> Result<Chosen, Failure> {
    let of_run = |run: RunId| async move {
        let history = whole_history(store, run).await?;
        let row = row(&history, args.iteration.unwrap_or(Iteration::Latest))?;
        Ok(Chosen { policy: row.policy, of_run: Some((history, row.iteration)) })
    };
    let named = find(store, &args.what).await?;
    if let (Named::Stage(_) | Named::Artifact(_), Some(_)) = (&named, args.iteration) {
        return Err(Failure::usage(format!(
            "--iteration: expected a run before it, and {} names one policy alone",
            args.what
        )));
    }
    match named {
        Named::Run(run) => of_run(run).await,
        Named::Artifact(policy) => Ok(Chosen { policy, of_run: None }),
        Named::Stage(stage) => {
            let lost = || Failure::new(Exit::Data, format!("stages/{stage} is missing"));
            let manifest = store.manifest(stage).await?.ok_or_else(lost)?;
            let policy = manifest.output("policy").ok_or_else(|| {
                Failure::usage(format!(
                    "{} is a {} stage, which makes no policy: expected a run, a policy, or a stage of \
                     sft or update",
                    stage.short(),
                    manifest.spec.kind()
                ))
                .hint("agrpo show RUN lists the policies of a run")
            })?;
            Ok(Chosen { policy, of_run: None })
        }
    }
}

fn row(history: &RunHistory, iteration: Iteration) -> Result<Row, Failure> {
    let mut rows = History::of(history).rows;
    let newest = rows.last().map(|row| row.iteration);
    let newest = newest.ok_or_else(|| not_begun(history))?;
    let wanted = match iteration {
        Iteration::Latest => newest,
        Iteration::After(number) => number,
    };
    rows.retain(|row| row.iteration == wanted);
    rows.pop().ok_or_else(|| {
        let run = history.run();
        Failure::usage(format!(
            "--iteration {wanted}: run {} ({}) has come to iteration {newest}; expected base, latest or 0 \
             to {newest}",
            run.id().short(),
            run.config().name
        ))
    })
}

/// Whether the artifact is a policy of the kind that the format is for.
fn check(policy: ArtifactDigest, files: &Files, format: FormatArg) -> Result<ModelConfig, Failure> {
    let short = policy.short();
    let Some(config) = files.get("config.json") else {
        return Err(Failure::usage(format!(
            "{short} is no policy: expected a folder with config.json and weights"
        )));
    };
    let is_adapted = ADAPTER.iter().all(|name| files.contains_key(*name));
    match format {
        FormatArg::Peft | FormatArg::Merged if !is_adapted => {
            return Err(Failure::usage(format!(
                "--format {}: policy {short} has no adapter: all of its weights are its own; expected \
                 --format hf",
                format.name()
            )));
        }
        FormatArg::Hf if is_adapted => {
            return Err(Failure::usage(format!(
                "--format hf: policy {short} is a base with an adapter; expected --format merged for one \
                 model, or --format peft for the adapter"
            )));
        }
        _ => {}
    }
    Ok(ModelConfig::from_json(&small("config.json", config)?)?)
}

/// PEFT's files unchanged, except for the base's name where one is given.
fn adapter(folder: &mut Folder, files: &Files, base: Option<&str>) -> Result<(), Failure> {
    let [settings, tensors] = ADAPTER;
    match base {
        None => copy(folder, settings, &files[settings])?,
        Some(base) => {
            let corrupt = |error| Failure::new(Exit::Data, format!("{settings}: {error}"));
            let mut document: Value =
                serde_json::from_slice(&small(settings, &files[settings])?).map_err(corrupt)?;
            document["base_model_name_or_path"] = base.into();
            folder.write(settings, format!("{document:#}\n").as_bytes())?;
        }
    }
    copy(folder, tensors, &files[tensors])
}

/// The base's files, with the adapter merged into the matrices that it changes.
fn merged(folder: &mut Folder, files: &Files) -> Result<(), Failure> {
    let model = MergedWeights::open(files)?;
    let parts = model.parts();
    for (name, content) in files.iter().filter(|(name, _)| !ADAPTER.contains(&name.as_str())) {
        if !name.ends_with(".safetensors") {
            copy(folder, name, content)?;
            continue;
        }
        folder.fill(name, |sink| {
            sink.write(&model.header(name)?)?;
            parts
                .iter()
                .filter(|part| part.file == *name)
                .try_for_each(|part| pour(&model, part, sink))
        })?;
    }
    Ok(())
}

/// The policy's files; weights in shards where one of them is too large.
fn whole(folder: &mut Folder, files: &Files, most: u64) -> Result<(), Failure> {
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
    Ok(())
}

fn cut(folder: &mut Folder, model: &MergedWeights, most: u64) -> Result<(), Failure> {
    let parts = model.parts();
    let tensor = |part: &Part| Tensor {
        name: part.name.clone(),
        dtype: part.dtype,
        shape: part.shape.clone(),
        bytes: part.bytes,
    };
    let tensors: Vec<Tensor> = parts.iter().map(tensor).collect();
    let failed = |error| Failure::new(Exit::Unexpected, format!("cannot cut the weights: {error}"));
    let shards = shards::cut(&tensors, most).map_err(failed)?;
    for Shard { file, tensors, head } in &shards {
        folder.fill(file, |sink| {
            sink.write(head)?;
            parts[tensors.clone()].iter().try_for_each(|part| pour(model, part, sink))
        })?;
    }
    if shards.len() > 1 {
        folder.write(shards::INDEX, &shards::index(&tensors, &shards))?;
    }
    Ok(())
}

fn pour(model: &MergedWeights, part: &Part, sink: &mut Sink) -> Result<(), Failure> {
    model.read(part, |piece| sink.write(piece))
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
    let evaluations: BTreeMap<_, _> = [0, iteration]
        .into_iter()
        .filter_map(|number| Some((number, history.evaluations().get(&number)?.clone())))
        .collect();
    Origin {
        run: history.run().id(),
        name: config.name.clone(),
        iteration,
        iterations: config.training.iterations,
        sampler: config.evaluation_sampler(steps),
        evaluations: evaluations.into_iter().collect(),
    }
}

fn copy(folder: &mut Folder, name: &str, content: &Content) -> Result<(), Failure> {
    folder.fill(name, |sink| {
        for range in content.ranges(WINDOW) {
            let lost = |error| Failure::new(Exit::Data, format!("{name} cannot be read: {error}"));
            sink.write(&content.window(range).map_err(lost)?)?;
        }
        Ok(())
    })
}

fn small(name: &str, content: &Content) -> Result<bytes::Bytes, Failure> {
    content
        .bytes(SMALL)
        .map_err(|error| Failure::new(Exit::Data, format!("{name} cannot be read: {error}")))
}
