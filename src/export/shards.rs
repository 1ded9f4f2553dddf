//! The files of a model: which tensors each contains, and their safetensors headers.
//!
//! Names are those of Hugging Face's tools: `model.safetensors` alone, or `model-00001-of-00003.safetensors` and
//! so on with an index. A tensor is never cut: one that is larger than a shard may be has a file of its own.

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::{Map, Value, json};

/// The index, by its name.
pub const INDEX: &str = "model.safetensors.index.json";

/// What the layout of a file depends on: name, type, shape and length of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// The type of its numbers, as safetensors spells it.
    pub dtype: &'static str,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Its length.
    pub bytes: u64,
}

/// A file to be written: its header, then these tensors, by their indices in the list given to [`cut`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The file's name.
    pub file: String,
    /// Which tensors, one after the other.
    pub tensors: std::ops::Range<usize>,
    /// The header's length and the header.
    pub head: Vec<u8>,
}

/// Cuts tensors into files of at most `most` bytes of tensors, in their order.
pub fn cut(tensors: &[Tensor], most: u64) -> Result<Vec<Shard>, SafeTensorError> {
    let mut ranges = vec![];
    let (mut first, mut bytes) = (0, 0u64);
    for (index, tensor) in tensors.iter().enumerate() {
        if index > first && bytes.saturating_add(tensor.bytes) > most {
            ranges.push(first..index);
            (first, bytes) = (index, 0);
        }
        bytes = bytes.saturating_add(tensor.bytes);
    }
    ranges.push(first..tensors.len());
    let count = ranges.len();
    let shard = |(index, range): (usize, std::ops::Range<usize>)| {
        let file = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        Ok(Shard { file, head: head(&tensors[range.clone()])?, tensors: range })
    };
    ranges.into_iter().enumerate().map(shard).collect()
}

/// What a file begins with: the length of its header, and the header, which ends at a multiple of 8 bytes.
fn head(tensors: &[Tensor]) -> Result<Vec<u8>, SafeTensorError> {
    let mut end = 0usize;
    let info = |tensor: &Tensor| {
        let start = end;
        end = end.saturating_add(usize::try_from(tensor.bytes).unwrap_or(usize::MAX));
        let dtype: Dtype = serde_json::from_value(Value::from(tensor.dtype))?;
        let info = TensorInfo { dtype, shape: tensor.shape.clone(), data_offsets: (start, end) };
        Ok((tensor.name.clone(), info))
    };
    let infos = tensors.iter().map(info).collect::<Result<Vec<_>, SafeTensorError>>()?;
    let format = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    let mut header = serde_json::to_vec(&Metadata::new(Some(format), infos)?)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut head = (header.len() as u64).to_le_bytes().to_vec();
    head.append(&mut header);
    Ok(head)
}

/// The index of several files: the file of each tensor, and the size of all.
pub fn index(tensors: &[Tensor], shards: &[Shard]) -> Vec<u8> {
    let files = shards.iter().flat_map(|shard| {
        let names = tensors[shard.tensors.clone()].iter().map(|tensor| tensor.name.clone());
        names.map(|name| (name, Value::from(shard.file.clone())))
    });
    let map: Map<String, Value> = files.collect();
    let total: u64 = tensors.iter().map(|tensor| tensor.bytes).sum();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    let mut text = serde_json::to_vec_pretty(&index).expect("names and numbers serialise");
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, rows: usize) -> Tensor {
        Tensor { name: name.into(), dtype: "BF16", shape: vec![rows, 2], bytes: 4 * rows as u64 }
    }

    #[test]
    fn shards_hold_what_fits_and_no_tensor_is_cut() {
        let tensors = [tensor("a", 3), tensor("b", 2), tensor("c", 100), tensor("d", 5)];
        let names = |most| {
            let shards = cut(&tensors, most).unwrap();
            shards.into_iter().map(|shard| (shard.file, shard.tensors)).collect::<Vec<_>>()
        };
        assert_eq!(names(u64::MAX), [("model.safetensors".to_owned(), 0..4)]);
        let file = |n: u32| format!("model-{n:05}-of-00003.safetensors");
        assert_eq!(names(20), [(file(1), 0..2), (file(2), 2..3), (file(3), 3..4)]);
        assert_eq!(names(0).len(), 4);
    }

    #[test]
    fn a_head_and_its_tensors_are_a_safetensors_file() {
        let tensors = [tensor("b", 3), tensor("a", 2)];
        let shards = cut(&tensors, 100).unwrap();
        let mut file = shards[0].head.clone();
        assert_eq!(file.len() % 8, 0);
        file.extend((0..20).collect::<Vec<u8>>());
        let read = safetensors::SafeTensors::deserialize(&file).unwrap();
        assert_eq!(read.tensor("b").unwrap().data(), (0..12).collect::<Vec<u8>>());
        assert_eq!(read.tensor("a").unwrap().data(), (12..20).collect::<Vec<u8>>());
        assert_eq!(cut(&tensors, 100).unwrap(), shards, "the same bytes every time");
        let index: Value = serde_json::from_slice(&index(&tensors, &shards)).unwrap();
        assert_eq!(index["metadata"]["total_size"], 20);
        assert_eq!(index["weight_map"]["a"], "model.safetensors");
    }
}
