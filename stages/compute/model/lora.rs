//! LoRA adapters as PEFT saves them: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! PEFT matches targets by suffix, so `ff_out` means the head too; whether the head is adapted follows
//! from the tensors. Everything else must be exact: a target that matches nothing, a tensor that is
//! unknown, missing or of another shape, and a setting that asks for other arithmetic than
//! `W x + s B (A x)` are errors. Dropout concerns the training of the adapter; nothing is dropped here.
//! A file's settings are written as they were read. Merges nothing.

use std::collections::BTreeMap;

use agrpo_grading::json_object;
use agrpo_spec::{Files, one_line};
use bytes::Bytes;
use fancy_regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::Value;
use tch::{Kind, Tensor};

use super::config::ModelConfig;
use super::linear::{Lora, lora_name};
use super::names::linear_modules;
use crate::error::{Result, data, data_from};
use crate::folder;
use crate::tensors::{self, NamedTensors, TensorWindows};

mod fresh;

pub(super) use fresh::{check, draw};

const CONFIG: &str = "adapter_config.json";
/// The adapter's tensors in the folder of an adapted policy; not part of the base.
pub(super) const TENSORS: &str = "adapter_model.safetensors";

/// The most bytes of a pattern of modules, and of its compiled form. No name is so long, and nested repetitions of a
/// few letters compile to large programs.
const LONGEST_PATTERN: usize = 1 << 12;
const LARGEST_PATTERN: usize = 1 << 20;

/// Settings that do not change what is computed from the saved matrices.
const HARMLESS: &str = "auto_mapping base_model_name_or_path corda_config eva_config inference_mode \
                        loftq_config lora_dropout megatron_core peft_version qalora_group_size \
                        revision runtime_config task_type";

/// An adapter's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// R, of every module.
    pub rank: i64,
    /// The numerator of the scale.
    pub alpha: f64,
    /// The factor of B (A x): alpha / R, or alpha / sqrt(R) (rsLoRA, arXiv 2312.03732).
    pub scale: f64,
    /// The adapted modules, by their names in the checkpoint, sorted.
    pub modules: Vec<String>,
    /// `adapter_config.json`, as it was read.
    document: Bytes,
}

/// The matrices of adapted modules, by the modules' names in the checkpoint.
pub(super) type Matrices = BTreeMap<String, Lora>;

impl Adapter {
    /// PEFT's two files, with these matrices by PEFT's names.
    pub(crate) fn to_files(&self, matrices: &NamedTensors) -> Result<Files> {
        let tensors = tensors::write_weights(matrices)?;
        Ok(BTreeMap::from([
            (CONFIG.to_owned(), self.document.clone().into()),
            (TENSORS.to_owned(), tensors.into()),
        ]))
    }
}

/// Whether a folder has an adapter, or half of one.
pub(crate) fn is_in(files: &Files) -> bool {
    files.contains_key(CONFIG) || files.contains_key(TENSORS)
}

/// The folder without its adapter.
pub(crate) fn base_files(files: &Files) -> Files {
    let mut base = files.clone();
    base.retain(|name, _| name != CONFIG && name != TENSORS);
    base
}

/// Whether two folders are equal apart from their adapters.
pub(super) fn share_a_base(a: &Files, b: &Files) -> bool {
    base_files(a) == base_files(b)
}

/// Matrices by PEFT's names.
pub(super) fn to_named(matrices: Matrices) -> NamedTensors {
    let both = |(module, lora): (String, Lora)| {
        [(lora_name(&module, 'A'), lora.a_RxI), (lora_name(&module, 'B'), lora.b_OxR)]
    };
    matrices.into_iter().flat_map(both).collect()
}

/// `adapter_config.json`, as far as it is understood.
#[derive(Deserialize)]
struct Document {
    peft_type: String,
    r: i64,
    lora_alpha: f64,
    target_modules: Patterns,
    exclude_modules: Option<Patterns>,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    init_lora_weights: Value,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// Modules as PEFT names them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Patterns {
    /// A regular expression for the whole name.
    Expression(String),
    /// Names, or their last parts.
    Names(Vec<String>),
}

/// One pattern, ready to be tried: an expression for the whole name, or else its last parts.
struct Rule {
    text: String,
    expression: Option<Regex>,
}

impl Rule {
    fn all_of(key: &str, patterns: &Patterns) -> Result<Vec<Self>> {
        match patterns {
            Patterns::Expression(text) if text.len() > LONGEST_PATTERN => Err(data(format!(
                "{CONFIG}: {key} has a pattern of {} bytes, expected at most {LONGEST_PATTERN}",
                text.len()
            ))),
            Patterns::Expression(text) => RegexBuilder::new(&format!(r"\A(?:{text})\z"))
                .delegate_size_limit(LARGEST_PATTERN)
                .build()
                .map(|regex| vec![Self { text: text.clone(), expression: Some(regex) }])
                .map_err(|error| {
                    let reason = format!("{CONFIG}: {key} = {text:?}: expected a pattern: {error}");
                    data_from(reason, error)
                }),
            Patterns::Names(names) => {
                let rule = |text: &String| Self { text: text.clone(), expression: None };
                Ok(names.iter().map(rule).collect())
            }
        }
    }

    fn matches(&self, module: &str) -> bool {
        // A pattern that takes too long to try matches nothing: its tensors are then unknown.
        match &self.expression {
            Some(regex) => regex.is_match(module).unwrap_or(false),
            None => {
                let rest = module.strip_suffix(self.text.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
        }
    }
}

/// Reads an adapter for a model of this configuration: its settings, and in f32 the matrices of each
/// adapted module.
pub(super) fn read(config: &ModelConfig, files: &Files) -> Result<(Adapter, Matrices)> {
    let settings = folder::small(files, "adapter", CONFIG)?;
    assemble(config, settings, open(files)?.read()?)
}

/// The matrices' file, its header read and checked.
pub(super) fn open(files: &Files) -> Result<TensorWindows> {
    let lacks = || data(format!("the adapter folder has no {TENSORS}"));
    TensorWindows::open(TENSORS, files.get(TENSORS).ok_or_else(lacks)?)
}

/// Whether an adapter can be read as a whole.
pub fn check_adapter(config: &ModelConfig, files: &Files) -> Result<()> {
    read(config, files).map(drop)
}

/// An adapter from settings and tensors, read or new.
fn assemble(
    config: &ModelConfig,
    settings: Bytes,
    mut tensors: NamedTensors,
) -> Result<(Adapter, Matrices)> {
    let document = document(&settings)?;
    let (rank, alpha) = (document.r, document.lora_alpha);
    let divisor = if document.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
    let scale = alpha / divisor;
    let mut matrices = BTreeMap::new();
    for (module, [outputs, inputs], is_optional) in targets(config, &document)? {
        let (a, b) = (lora_name(&module, 'A'), lora_name(&module, 'B'));
        if is_optional && !tensors.contains_key(&a) && !tensors.contains_key(&b) {
            continue;
        }
        let a_RxI = take(&mut tensors, &a, [rank, inputs])?;
        let b_OxR = take(&mut tensors, &b, [outputs, rank])?;
        matrices.insert(module, Lora { a_RxI, b_OxR, scale });
    }
    if let Some(extra) = tensors.keys().next() {
        return Err(data(format!(
            "{TENSORS} has an unknown tensor {extra}: no module that {CONFIG} targets has it"
        )));
    }
    let modules = matrices.keys().cloned().collect();
    Ok((Adapter { rank, alpha, scale, modules, document: settings }, matrices))
}

/// Reads the settings. Refuses, by name, a setting that is not computed here.
fn document(bytes: &[u8]) -> Result<Document> {
    let unread = |error: serde_json::Error| {
        let reason = format!("{CONFIG}: {}; expected PEFT's settings of LoRA", one_line(&error));
        data_from(reason, error)
    };
    let document = json_object(bytes).map_err(unread)?;
    let document = Document::deserialize(Value::Object(document)).map_err(unread)?;
    let refuse = |key: &str, found: &Value, expected: &str| {
        let (key, found) = (one_line(key), one_line(found));
        Err(data(format!("{CONFIG}: {key} = {found}: expected {expected}")))
    };
    if document.peft_type != "LORA" {
        return refuse("peft_type", &document.peft_type.clone().into(), "\"LORA\"");
    }
    if document.r < 1 {
        return refuse("r", &document.r.into(), "at least 1");
    }
    for (key, value) in &document.others {
        if !HARMLESS.split(' ').any(|harmless| harmless == key) && !is_off(value) {
            return refuse(key, value, "it to be off: it is not computed here");
        }
    }
    // Other initialisations move part of the base's weights into the adapter.
    match &document.init_lora_weights {
        Value::String(name) if !["gaussian", "eva", "orthogonal"].contains(&name.as_str()) => {
            let expected = "one that leaves the base's weights alone";
            refuse("init_lora_weights", &document.init_lora_weights, expected)
        }
        _ => Ok(document),
    }
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty() || text == "none",
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// A module that the settings target, its shape, and whether it may be missing. Only the head may, if no target names
/// it alone.
type Target = (String, [i64; 2], bool);

fn targets(config: &ModelConfig, document: &Document) -> Result<Vec<Target>> {
    let rules = Rule::all_of("target_modules", &document.target_modules)?;
    let excluded = document.exclude_modules.as_ref();
    let excluded = excluded.map_or(Ok(vec![]), |all| Rule::all_of("exclude_modules", all))?;
    let head = config.names().head;
    let mut modules = linear_modules(config);
    modules.retain(|(module, _)| !excluded.iter().any(|rule| rule.matches(module)));
    let mut head_is_meant = false;
    for rule in &rules {
        let mut matched = modules.iter().filter(|(module, _)| rule.matches(module));
        match matched.next() {
            Some((first, _)) => head_is_meant |= first == head && matched.next().is_none(),
            None => {
                return Err(data(format!(
                    "{CONFIG}: target_modules has {:?}, which matches no linear module of this model",
                    rule.text
                )));
            }
        }
    }
    modules.retain(|(module, _)| rules.iter().any(|rule| rule.matches(module)));
    if modules.is_empty() {
        return Err(data(format!("{CONFIG}: target_modules is empty: expected a module's name")));
    }
    let target = |(module, shape): (String, _)| {
        let is_optional = module == head && !head_is_meant;
        (module, shape, is_optional)
    };
    Ok(modules.into_iter().map(target).collect())
}

fn take(tensors: &mut NamedTensors, name: &str, shape: [i64; 2]) -> Result<Tensor> {
    let tensor = tensors.remove(name).ok_or_else(|| data(format!("{TENSORS} lacks {name}")))?;
    if tensor.size() != shape {
        let found = tensor.size();
        return Err(data(format!("{TENSORS}: {name} has the shape {found:?}, expected {shape:?}")));
    }
    if !tensors::is_finite(&tensor) {
        return Err(data(format!("{TENSORS}: {name} has a number that is not finite")));
    }
    Ok(tensor.to_kind(Kind::Float).contiguous())
}

#[cfg(test)]
mod tests;
