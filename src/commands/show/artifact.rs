//! Shows an artifact: a folder's files, a JSON document as it is, a safetensors file's tensors, or the size.
//!
//! Tensors are listed, not printed; `--raw` gives the bytes to other tools.

use agrpo_spec::{ArtifactDigest, Content, FolderListing};
use agrpo_store::Store;
use safetensors::tensor::Metadata;
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::output;

/// Bytes of a document, or of a header, at most.
const LARGE: u64 = 100_000_000;

pub(super) async fn show(store: &Store, digest: ArtifactDigest, json: bool) -> Result<(), Failure> {
    let content = store.open_blob(digest).await?;
    let size = content.size();
    // A large artifact is no document: only its header is shown.
    let bytes = content.bytes(LARGE).unwrap_or_default();
    let mut answer = json!({ "artifact": digest, "bytes": size });
    let (kind, text) = if let Some(listing) = FolderListing::from_bytes(&bytes) {
        answer["files"] = json!(listing.files);
        ("folder", folder(&listing))
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
    if json {
        return output::json(&answer);
    }
    let size = output::size(size);
    output::line(format!("artifact {digest}\n{kind}, {size}\n{text}").trim_end())
}

fn folder(listing: &FolderListing) -> String {
    let row = |(name, entry): (&String, &agrpo_spec::FolderEntry)| {
        vec![entry.digest.to_string(), name.clone(), output::size(entry.size)]
    };
    output::table(&listing.files.iter().map(row).collect::<Vec<_>>())
}

/// The header of a safetensors file, where it is one.
fn header(content: &Content) -> Option<Metadata> {
    let length: [u8; 8] = content.window(0..8).ok()?[..].try_into().ok()?;
    let length = u64::from_le_bytes(length);
    let end = length.checked_add(8).filter(|_| length <= LARGE)?;
    let header: Metadata = serde_json::from_slice(&content.window(8..end).ok()?).ok()?;
    (end.checked_add(header.data_len() as u64) == Some(content.size())).then_some(header)
}

fn describe_tensors(tensors: &Metadata) -> (Value, String) {
    let mut names = tensors.offset_keys();
    names.sort_unstable();
    let mut rows = vec![];
    let mut values = serde_json::Map::new();
    for name in names {
        let Some(tensor) = tensors.info(&name) else { continue };
        let (kind, shape) = (format!("{:?}", tensor.dtype), &tensor.shape);
        rows.push(vec![name.clone(), kind.clone(), format!("{shape:?}")]);
        values.insert(name, json!({ "dtype": kind, "shape": shape }));
    }
    (Value::Object(values), output::table(&rows))
}
