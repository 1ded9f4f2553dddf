//! Small files of a folder, read as a whole. Refuses large ones: weights go through
//! [`crate::tensors::TensorWindows`].

use agrpo_spec::{Files, lfs_pointer};
use bytes::Bytes;

use crate::error::{Result, data, data_from};

/// A tokenizer of 100,000 tokens takes a few MiB; a far larger file is no configuration.
const MOST: u64 = 256 << 20;

/// The bytes of a file. Data error where the folder, which `what` names, lacks it or cannot be read.
pub(crate) fn small(files: &Files, what: &str, name: &str) -> Result<Bytes> {
    optional(files, name)?.ok_or_else(|| data(format!("the {what} folder has no {name}")))
}

/// The same where the file may be missing.
pub(crate) fn optional(files: &Files, name: &str) -> Result<Option<Bytes>> {
    let unread =
        |error: std::io::Error| data_from(format!("{name} cannot be read: {error}"), error);
    let bytes = files.get(name).map(|content| content.bytes(MOST).map_err(unread)).transpose()?;
    match bytes.as_deref().and_then(lfs_pointer) {
        Some(pointer) => Err(data(format!("{name} is {pointer}"))),
        None => Ok(bytes),
    }
}
