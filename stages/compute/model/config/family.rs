//! The family that a `config.json` names. Refuses a model that is not computed here by its name.

use agrpo_spec::{Family, one_line};
use serde_json::{Map, Value};

use crate::error::{Result, data};

/// The family that a document names; LLaDA's where it names none. Refuses another model's configuration by the model's
/// name, not by the first key that it lacks.
pub(super) fn family_of(document: &Map<String, Value>) -> Result<Family> {
    let found = document.get("model_type").unwrap_or(&Value::Null);
    if found.is_null() && document.contains_key(Family::Llada.traits().keys.d_model) {
        return Ok(Family::Llada);
    }
    let name = found.as_str().unwrap_or_default();
    let is_named = |family: &Family| family.traits().model_type.eq_ignore_ascii_case(name);
    if let Some(family) = Family::ALL.into_iter().find(is_named) {
        return Ok(family);
    }
    let why = match name.to_ascii_lowercase().as_str() {
        "qwen2" | "qwen3" | "mistral" | "gemma" | "gemma2" | "gemma3" | "gpt2" => {
            "an autoregressive model knows no mask and looks back only"
        }
        _ => "the weights of another architecture mean something else",
    };
    let known = Family::ALL.map(|family| {
        let traits = family.traits();
        format!("{:?} ({})", traits.model_type, traits.name)
    });
    let (last, others) = known.split_last().expect("there are families");
    Err(data(format!(
        "config.json: model_type = {}: expected {} or {last}, the families that are computed here; {why}",
        one_line(found),
        others.join(", "),
    )))
}
