//! The fields of a `config.json` by the keys of a family, each a number. Checks no size.

use agrpo_spec::{ConfigKeys, Family, StageError, one_line};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Result, data, data_from};

/// What is read of `config.json`, by the names of [`ModelConfig`].
#[derive(Deserialize)]
pub(super) struct Read {
    pub(super) d_model: i64,
    pub(super) n_layers: i64,
    pub(super) n_heads: i64,
    pub(super) n_kv_heads: Option<i64>,
    pub(super) head_size: Option<i64>,
    pub(super) attention_block: Option<i64>,
    pub(super) mlp_hidden_size: i64,
    pub(super) n_experts: Option<i64>,
    pub(super) experts_per_token: Option<i64>,
    pub(super) embedding_size: i64,
    pub(super) max_sequence_length: i64,
    pub(super) rope_theta: f64,
    pub(super) rms_norm_eps: f64,
    pub(super) eos_token_id: i64,
    pub(super) pad_token_id: Option<i64>,
    pub(super) mask_token_id: i64,
}

/// The keys that all families share.
const SHARED: [&str; 5] =
    ["rope_theta", "rms_norm_eps", "eos_token_id", "pad_token_id", "mask_token_id"];

/// What a document need not have.
fn is_optional(name: &str) -> bool {
    matches!(name, "n_kv_heads" | "head_size" | "pad_token_id")
}

fn is_real(name: &str) -> bool {
    matches!(name, "rope_theta" | "rms_norm_eps")
}

fn is_number(name: &str, found: &Value) -> bool {
    if is_real(name) { found.as_f64().is_some() } else { found.as_i64().is_some() }
}

pub(super) fn unread(name: &str, error: serde_json::Error) -> StageError {
    let reason = format!("config.json: {}; expected a {name} configuration", one_line(&error));
    data_from(reason, error)
}

/// The keys of a family, by the names of [`ModelConfig`].
pub(super) fn keys(family: Family) -> impl Iterator<Item = (&'static str, &'static str)> {
    let ConfigKeys {
        d_model,
        n_layers,
        n_heads,
        n_kv_heads,
        head_size,
        mlp_hidden_size,
        n_experts,
        experts_per_token,
        embedding_size,
        max_sequence_length,
        attention_block,
    } = family.traits().keys;
    let own = [
        ("d_model", Some(d_model)),
        ("n_layers", Some(n_layers)),
        ("n_heads", Some(n_heads)),
        ("n_kv_heads", n_kv_heads),
        ("head_size", head_size),
        ("mlp_hidden_size", Some(mlp_hidden_size)),
        ("n_experts", n_experts),
        ("experts_per_token", experts_per_token),
        ("embedding_size", Some(embedding_size)),
        ("max_sequence_length", Some(max_sequence_length)),
        ("attention_block", attention_block),
    ];
    let own = own.into_iter().filter_map(|(name, key)| Some((name, key?)));
    own.chain(SHARED.map(|key| (key, key)))
}

/// The fields of a document.
pub(super) fn read(family: Family, document: &Map<String, Value>) -> Result<Read> {
    let (mut own, name_of) = (Map::new(), family.traits().name);
    for (name, key) in keys(family) {
        match document.get(key) {
            Some(Value::Null) if is_optional(name) => {}
            Some(found) if !is_number(name, found) => {
                let kind = if is_real(name) { "a number" } else { "a whole number below 2^63" };
                let found = one_line(found);
                return Err(data(format!("config.json: {key} = {found}: expected {kind}")));
            }
            Some(found) => drop(own.insert(name.to_owned(), found.clone())),
            None if is_optional(name) => {}
            None => return Err(unread(name_of, serde::de::Error::missing_field(key))),
        }
    }
    Read::deserialize(Value::Object(own)).map_err(|error| unread(name_of, error))
}
