//! What a listing says of an object: name, length, age.
//!
//! Ages are by the store's own clock. Says nothing about an object's bytes.

use object_store::ObjectMeta;

/// What a listing says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its whole name.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last written by the store's own clock, in milliseconds since 1970.
    pub written_ms: i64,
    /// What it is in a local store, if it is no file.
    pub odd: Option<&'static str>,
}

impl Entry {
    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        let written_ms = meta.last_modified.timestamp_millis();
        Self { name: meta.location.to_string(), size: meta.size, written_ms, odd: None }
    }
}
