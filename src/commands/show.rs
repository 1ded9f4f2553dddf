//! `agrpo show`: shows a run, a stage, an artifact or one completion of a rollout, for people and as JSON. A digest may
//! name any of the first three. Tensors are listed, not printed; `--raw` gives an artifact's bytes to other tools. Reads
//! the store and changes nothing.

use std::time::{Duration, UNIX_EPOCH};
use std::{collections::BTreeMap, io::IsTerminal};

use agrpo_fleet::replay::recorded;
use agrpo_spec::{
    ArtifactDigest, Content, FolderListing, Manifest, OutputRecord, Phases, Plan, Retention,
    RolloutSpec, RunConfig, RunId, StageDigest, StageKey, StageSpec, WINDOW,
};
use agrpo_store::{Failure as StageFailure, Unreadable};
use agrpo_view::player::{Look, Piece, frame, shown, written};
use agrpo_view::{samples, trajectory::Trajectories};
use crossterm::cursor::MoveUp;
use crossterm::style::Stylize;
use crossterm::terminal::{Clear, ClearType};
use safetensors::tensor::Metadata;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::prelude::{Exit, Failure, Result, Serialize, Session, Store, cannot, output};
use super::recovery;
use super::resolve::{Named, done_stages, find};
use crate::{args::ShowArgs, settings::NO_COLOR};

/// Stages of a run, and completions of a rollout, that people are shown.
const NEWEST: usize = 12;
const COMPLETIONS: usize = 8;
/// Bytes of a document, or of a header, at most.
const LARGE: u64 = 100_000_000;
/// Columns of a stage's key, at least.
const KEY: usize = 18;
/// Between two steps of a completion.
const PAUSE: Duration = Duration::from_millis(300);
/// Columns where there is no terminal.
const WIDTH: usize = 80;

pub(super) fn show(args: &ShowArgs, session: &Session) -> Result<Exit> {
    session.on_store(async |store| {
        let shown = show_from(&store, args, session).await;
        recovery::explained(&store, session, shown).await
    })
}

async fn show_from(store: &Store, args: &ShowArgs, session: &Session) -> Result<Exit> {
    let named = find(store, &args.hash).await?;
    let json = args.answer.json;
    if args.raw {
        let Named::Artifact(artifact) = named else {
            let failure = format!("{} is no artifact, so it has no raw bytes", args.hash);
            return Err(Failure::usage(failure)
                .hint("without --raw it is shown; its outputs can be shown with --raw"));
        };
        let content = store.cas.open(artifact).await?;
        for range in content.ranges(WINDOW) {
            let lost = |error| Failure::data(format!("cas/{artifact}: {error}"));
            output::bytes(&content.window(range).map_err(lost)?)?;
        }
        return Ok(Exit::Done);
    }
    match (named, args.sample) {
        (Named::Stage(stage), Some(row)) => {
            let has_colour = session.settings.variable(NO_COLOR).is_none();
            show_sample(store, stage, row, (json, args.play, has_colour)).await
        }
        (_, Some(_)) => Err(Failure::usage(format!("--sample: {} is no rollout", args.hash))
            .hint("agrpo show RUN lists the stages of a run")),
        (Named::Run(run), _) => show_run(store, run, json).await,
        (Named::Stage(stage), _) => show_stage(store, stage, json).await,
        (Named::Artifact(artifact), _) => show_artifact(store, artifact, json).await,
    }
}

#[derive(Serialize)]
struct RunAnswer<'a> {
    run: RunId,
    config: &'a RunConfig,
    /// The retention that the newest `run` or `enqueue` set.
    retention: Retention,
    stages: BTreeMap<StageKey, StageDigest>,
    failures: Vec<StageFailure>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable_records: Vec<Unreadable>,
}

/// The configuration with every default explicit, and the newest stages; `--json` lists all.
async fn show_run(store: &Store, id: RunId, json: bool) -> Result<Exit> {
    let run = store.records.run(id).await?;
    let (stages, mut unreadable) = done_stages(store, &run).await?;
    let (failures, damaged) = store.records.readable_failures(id).await?;
    unreadable.extend(damaged);
    let (retention, unkept) = store.records.readable_retention(id).await?;
    unreadable.extend(unkept);
    if json {
        let (run, config, unreadable_records) = (id, run.config(), unreadable);
        output::json(&RunAnswer { run, config, retention, stages, failures, unreadable_records })?;
        return Ok(Exit::Done);
    }
    let unwritten = "write the run as TOML";
    let mut config = toml::to_string(run.config()).map_err(cannot(unwritten))?;
    if !retention.keeps_all() {
        // No part of the run's identity; shown as it is written in a run file.
        config.push_str("\n[retention]\n");
        config.push_str(&toml::to_string(&retention).map_err(cannot(unwritten))?);
    }
    let more = if stages.len() > NEWEST { "; the newest (all with --json):" } else { "" };
    let mut lines = vec![
        format!("# run {id}\n\n{config}"),
        format!("# {} of {} stages are done{more}", stages.len(), Plan::total_stages(&run)),
    ];
    let newest = stages.iter().skip(stages.len().saturating_sub(NEWEST));
    let newest: Vec<_> = newest.map(|(key, stage)| (key.to_string(), stage)).collect();
    let width = newest.iter().map(|(key, _)| key.len()).fold(KEY, usize::max);
    lines.extend(newest.iter().map(|(key, stage)| format!("#   {key:<width$}  {stage}")));
    lines.extend(failures.iter().map(|failure| {
        let StageFailure { key, stage, error, attempts, .. } = failure;
        let attempts = output::count((*attempts).into(), "attempt");
        format!("# failed after {attempts}: {key}  {stage}\n#   {error}")
    }));
    lines.extend(unreadable.iter().map(|record| format!("# cannot be read: {record}")));
    output::line(lines.join("\n")).map(|()| Exit::Done)
}

/// The manifest, readable or with `--json` as it is stored, and a few completions of a rollout.
async fn show_stage(store: &Store, stage: StageDigest, json: bool) -> Result<Exit> {
    let manifest = recorded(store, stage).await?;
    output::answer(json, &manifest, || describe_stage(&manifest))?;
    if !json
        && let StageSpec::Rollout(spec) = &manifest.spec
        && let Some(completions) = completions(store, spec, &manifest).await
    {
        output::line(format!("\ncompletions (the first {}):", completions.len()))?;
        completions.iter().try_for_each(output::line)?;
    }
    Ok(Exit::Done)
}

fn describe_stage(manifest: &Manifest) -> String {
    let Manifest { stage, spec, outputs, metrics, environment: made, phases } = manifest;
    let mut rows = vec![
        ("stage", stage.to_string()),
        ("kind", format!("{}, version {}", spec.kind(), spec.version())),
        ("numerics", spec.numerics().to_string()),
    ];
    let mut section = |name, values: Vec<String>| {
        let names = std::iter::once(name).chain(std::iter::repeat(""));
        rows.extend(names.zip(values));
    };
    let inputs = spec.inputs();
    section("inputs", inputs.iter().map(|(role, digest)| format!("{digest}  {role}")).collect());
    let output = |(name, record): (&String, &OutputRecord)| {
        format!("{}  {name}, {}", record.digest, output::size(record.size))
    };
    section("outputs", outputs.iter().map(output).collect());
    section("metrics", metrics.iter().map(|(name, value)| format!("{name} {value}")).collect());
    let threads = output::count(made.threads.into(), "thread");
    section(
        "made",
        vec![
            format!("{} by {}", utc(made.started_unix_ms), made.worker),
            format!("on {}, {}, {}", made.host, made.cpu, made.platform),
            format!("agrpo {}, libtorch {}, {threads}", made.agrpo, made.libtorch),
        ],
    );
    let Phases { fetch_ms: fetch, compute_ms: compute, store_ms: store } = phases;
    let parts = format!("fetch {fetch:.1}, compute {compute:.1}, store {store:.1}");
    section("took", vec![format!("{:.1} ms: {parts}", fetch + compute + store)]);
    let spec = serde_json::to_string_pretty(spec).unwrap_or_default();
    format!("{}\n\nspec:\n{spec}", output::fields(&rows))
}

/// A few prompts with their completions; `None` where the store has lost what it takes to read them.
async fn completions(
    store: &Store,
    spec: &RolloutSpec,
    manifest: &Manifest,
) -> Option<Vec<String>> {
    let all = Trajectories::read(store, spec, manifest).await.ok()?;
    let line = |(prompt, completion): (String, String)| format!("  {prompt:?}  {completion:?}");
    Some((0..COMPLETIONS).map_while(|row| all.texts(row)).map(line).collect())
}

/// A time for people: `2026-11-23 05:13:09 UTC`.
fn utc(unix_ms: u64) -> String {
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(unix_ms));
    time.to_string().replace('T', " ").replace('Z', " UTC")
}

/// A folder's files, a JSON document as it is, a safetensors file's tensors, or the size.
async fn show_artifact(store: &Store, digest: ArtifactDigest, json: bool) -> Result<Exit> {
    let content = store.cas.open(digest).await?;
    let size = content.size();
    // A large artifact is no document: only its header is shown.
    let bytes = content.bytes(LARGE).unwrap_or_default();
    let mut answer = json!({ "artifact": digest, "bytes": size });
    let (kind, text) = if let Some(listing) = FolderListing::from_bytes(&bytes) {
        answer["files"] = json!(listing.files);
        ("folder", output::files(&listing.files))
    } else if let Some(tensors) = header(&content) {
        let (value, text) = describe_tensors(&tensors);
        answer["tensors"] = value;
        ("safetensors", text)
    } else if let Ok(document) = serde_json::from_slice::<Value>(&bytes) {
        let text = serde_json::to_string_pretty(&document).unwrap_or_default();
        answer["document"] = document;
        ("json", text)
    } else {
        ("binary", String::new())
    };
    answer["kind"] = json!(kind);
    let size = output::size(size);
    let text = || format!("artifact {digest}\n{kind}, {size}\n{text}").trim_end().to_owned();
    output::answer(json, &answer, text)
}

fn header(content: &Content) -> Option<Metadata> {
    let length: [u8; 8] = content.window(0..8).ok()?[..].try_into().ok()?;
    let length = u64::from_le_bytes(length);
    let end = length.checked_add(8).filter(|_| length <= LARGE)?;
    let header: Metadata = serde_json::from_slice(&content.window(8..end).ok()?).ok()?;
    (end.checked_add(header.data_len() as u64) == Some(content.size())).then_some(header)
}

fn describe_tensors(tensors: &Metadata) -> (Value, String) {
    let mut rows = vec![];
    let mut values = serde_json::Map::new();
    for (name, tensor) in tensors.tensors().into_iter().collect::<BTreeMap<_, _>>() {
        let (kind, shape) = (format!("{:?}", tensor.dtype), &tensor.shape);
        rows.push(vec![name.clone(), kind.clone(), format!("{shape:?}")]);
        values.insert(name, json!({ "dtype": kind, "shape": shape }));
    }
    (Value::Object(values), output::columns(&rows))
}

/// The final text of a completion, or with `--play` every step; in a terminal each replaces the one before.
async fn show_sample(
    store: &Store,
    stage: StageDigest,
    row: usize,
    (json, play, has_colour): (bool, bool, bool),
) -> Result<Exit> {
    let sample = samples::of_rollout(store, stage, row).await?.ok_or_else(|| {
        Failure::usage(format!("--sample {row}: the rollout {} has fewer", stage.short()))
    })?;
    if json {
        return output::json(&sample).map(|()| Exit::Done);
    }
    let trajectory = &sample.trajectory;
    let prompt: String =
        trajectory.prompt.trim().chars().map(|c| if c == '\n' { c } else { shown(c) }).collect();
    output::line(format!("{prompt}\n"))?;
    let is_terminal = std::io::stdout().is_terminal();
    let width = crossterm::terminal::size().map_or(WIDTH, |(columns, _)| usize::from(columns));
    let width = if is_terminal { width } else { WIDTH };
    let (last, mut above) = (trajectory.steps, String::new());
    for step in if play { 0 } else { last }..=last {
        let lines = frame(trajectory, step, width);
        let caption = if play {
            let tokens = written(trajectory, step);
            let tokens: String = tokens.chars().take(width.saturating_sub(24)).collect();
            format!("step {step} of {last}  {tokens}")
        } else {
            format!("\n{}; --play shows them one by one", output::count(last.into(), "step"))
        };
        let shown = coloured(&lines, has_colour && is_terminal && play);
        output::line(format!("{above}{shown}\n{caption}"))?;
        if is_terminal && play {
            let height = u16::try_from(lines.len() + 1).unwrap_or(u16::MAX);
            above = format!("{}{}", MoveUp(height), Clear(ClearType::FromCursorDown));
            sleep(PAUSE).await;
        }
    }
    Ok(Exit::Done)
}

fn coloured(lines: &[Vec<Piece>], has_colour: bool) -> String {
    let piece = |piece: &Piece| match (has_colour, piece.look) {
        (true, Look::Masked) => piece.text.as_str().dark_grey().to_string(),
        (true, Look::Fresh) => piece.text.as_str().black().on_yellow().to_string(),
        _ => piece.text.clone(),
    };
    let lines = lines.iter().map(|line| line.iter().map(piece).collect::<String>());
    lines.collect::<Vec<_>>().join("\n")
}
