//! An artifact: a folder's files, a JSON document as it is, a safetensors file's tensors, or its size.
//!
//! Tensors are listed, not printed; `--raw` gives the bytes to tools that read them.

use agrpo_jobs::Store;
use agrpo_spec::{ArtifactDigest, FolderListing};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::output;

pub(super) async fn show(store: &Store, digest: ArtifactDigest, json: bool) -> Result<(), Failure> {
    let bytes = store.get_blob(digest).await?;
    let mut answer = json!({ "artifact": digest, "bytes": bytes.len() });
    let (kind, text) = if let Some(listing) = FolderListing::from_bytes(&bytes) {
        answer["files"] = json!(listing.files);
        ("folder", folder(&listing))
    } else if let Ok(tensors) = SafeTensors::deserialize(&bytes) {
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
    let size = output::size(bytes.len() as u64);
    output::line(format!("artifact {digest}\n{kind}, {size}\n{text}").trim_end())
}

fn folder(listing: &FolderListing) -> String {
    let row = |(name, entry): (&String, &agrpo_spec::FolderEntry)| {
        vec![entry.digest.to_string(), name.clone(), output::size(entry.size)]
    };
    output::table(&listing.files.iter().map(row).collect::<Vec<_>>())
}

fn describe_tensors(tensors: &SafeTensors<'_>) -> (Value, String) {
    let mut names = tensors.names();
    names.sort_unstable();
    let mut rows = vec![];
    let mut values = serde_json::Map::new();
    for name in names {
        let Ok(tensor) = tensors.tensor(name) else { continue };
        let (kind, shape) = (format!("{:?}", tensor.dtype()), tensor.shape());
        rows.push(vec![name.to_owned(), kind.clone(), format!("{shape:?}")]);
        values.insert(name.to_owned(), json!({ "dtype": kind, "shape": shape }));
    }
    (Value::Object(values), output::table(&rows))
}
