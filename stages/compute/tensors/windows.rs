//! Reads a safetensors file of any size: its header as a whole, its tensors window by window.
//!
//! ```text
//! u64 LE: bytes of the header | header: JSON, name -> dtype, shape, offsets | the tensors' bytes
//! ```
//! Every part of a header is checked before it is used: against the file's length before
//! anything is read, by the crate's own rules (offsets without gap or overlap, sizes that follow from
//! shapes), and for names that come twice, which JSON would hide. Writes no file.

use std::{collections::BTreeMap, ops::Range};

use agrpo_spec::{Content, Message, StageError, WINDOW, lfs_pointer, one_line};
use bytes::Bytes;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use tch::{Device, Kind, Tensor};

use super::files::{NamedTensors, decode, kind_of, length};
use crate::error::{Result, data, data_from, internal, libtorch};

/// The format's own limit, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;
/// Far more tensors than the largest models have.
const MOST_TENSORS: usize = 1 << 17;
const PREFIX: u64 = 8;
/// Bytes whose numbers are decoded at once, a multiple of any number's.
const DECODED: usize = 1 << 16;
/// Bytes from which a Git LFS pointer is recognised.
const START: u64 = 64;

/// Where a tensor lies in its file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) shape: Vec<i64>,
    /// In bytes from the file's start.
    pub(crate) range: Range<u64>,
}

impl Entry {
    /// How many bytes the tensor takes in its file.
    pub(crate) fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// A file whose header has been read and checked.
#[derive(Debug)]
pub(crate) struct TensorWindows {
    pub(crate) name: String,
    content: Content,
    /// Bytes of the header and of its length.
    first: u64,
    pub(crate) tensors: BTreeMap<String, Entry>,
}

impl TensorWindows {
    /// Reads the header. `name` is the file's, for errors.
    pub(crate) fn open(name: &str, content: &Content) -> Result<Self> {
        let form = |why: &str| format!("{name} is not a sound safetensors file: {}", one_line(why));
        let refuse = |why: Message| data(why.reworded(form));
        let size = content.size();
        let read = |range| content.window(range).map_err(|error| unreadable(name, error));
        let start: [u8; 8] = read(0..PREFIX.min(size))?[..].try_into().map_err(|_| {
            refuse(format!("it has {size} bytes, expected at least {PREFIX}").into())
        })?;
        if start == *b"version "
            && let Some(pointer) = lfs_pointer(&read(0..START.min(size))?)
        {
            return Err(data(format!("{name} is {pointer}")));
        }
        let length = u64::from_le_bytes(start);
        if length > LONGEST_HEADER || length > size - PREFIX {
            let most = LONGEST_HEADER.min(size - PREFIX);
            return Err(refuse(
                format!("a header of {length} bytes, expected at most {most}").into(),
            ));
        }
        let first = PREFIX + length;
        let header = read(PREFIX..first)?;
        let infos = tensors(&header).map_err(|error| refuse(Message::of(error)))?;
        let checked =
            Metadata::new(None, infos.clone()).map_err(|error| refuse(Message::of(error)))?;
        let (expected, found) = (checked.data_len() as u64, size - first);
        if expected != found {
            let mismatch = format!("{found} bytes of tensors, expected {expected} by its header");
            return Err(refuse(mismatch.into()));
        }
        let mut tensors = BTreeMap::new();
        for (tensor, info) in infos {
            let kind = kind_of(info.dtype).ok_or_else(|| {
                data(format!("{name}: {} has the type {:?}", one_line(&tensor), info.dtype))
            })?;
            let shape = info.shape.iter().map(|&n| i64::try_from(n));
            let shape =
                shape.collect::<Result<_, _>>().map_err(|error| refuse(Message::of(error)))?;
            let (start, end) = info.data_offsets;
            let range = first + start as u64..first + end as u64;
            tensors.insert(tensor, Entry { kind, shape, range });
        }
        Ok(Self { name: name.to_owned(), content: content.clone(), first, tensors })
    }

    /// The header as it is, with its length in front.
    pub(crate) fn header(&self) -> Result<Bytes> {
        self.window(0..self.first)
    }

    pub(crate) fn entry(&self, tensor: &str) -> Result<&Entry> {
        let found = self.tensors.get(tensor);
        found.ok_or_else(|| internal(format!("{} has no tensor {tensor}", self.name)))
    }

    /// Some of a tensor's bytes, counted from its start.
    pub(crate) fn piece(&self, tensor: &str, range: Range<u64>) -> Result<Bytes> {
        let start = self.entry(tensor)?.range.start;
        self.window(start + range.start..start + range.end)
    }

    fn window(&self, range: Range<u64>) -> Result<Bytes> {
        self.content.window(range).map_err(|error| unreadable(&self.name, error))
    }

    /// Copies a tensor's numbers, row-major, into `target`, which is contiguous, has as many, and is of any kind and on
    /// any device. Holds at most one window of them besides. With `has_finite`, refuses numbers that are not finite.
    pub(crate) fn fill(&self, tensor: &str, target: &Tensor, has_finite: bool) -> Result<()> {
        let kind = self.entry(tensor)?.kind;
        let target = target.f_view([-1]).map_err(libtorch)?;
        let mut at = 0;
        self.each_window(tensor, has_finite, |bytes| {
            let count = length(bytes.len() / kind.elt_size_in_bytes());
            Tensor::f_from_data_size(bytes, &[count], kind)
                .and_then(|numbers| target.f_narrow(0, at, count)?.f_copy_(&numbers))
                .map_err(libtorch)?;
            at += count;
            Ok(())
        })
    }

    /// Whether all numbers of all tensors are finite. Data error that names the tensor.
    pub(crate) fn check_finite(&self) -> Result<()> {
        self.tensors.keys().try_for_each(|tensor| self.each_window(tensor, true, |_| Ok(())))
    }

    /// Calls `look` with a tensor's bytes, window by window. With `has_finite`, first checks that the numbers are
    /// finite.
    fn each_window(
        &self,
        tensor: &str,
        has_finite: bool,
        mut look: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let Entry { kind, range, .. } = self.entry(tensor)?;
        let step = usize::try_from(WINDOW).unwrap_or(usize::MAX);
        for start in (range.start..range.end).step_by(step) {
            let bytes = self.window(start..range.end.min(start + WINDOW))?;
            let mut numbers = bytes.chunks(DECODED).flat_map(|bytes| decode(*kind, bytes));
            if has_finite && let Some(number) = numbers.find(|number| !number.is_finite()) {
                return Err(data(format!(
                    "{}: {} has the number {number}, expected finite weights: the file is damaged, or training \
                     has diverged; lower the learning rate",
                    self.name,
                    one_line(tensor)
                )));
            }
            look(&bytes)?;
        }
        Ok(())
    }

    /// All tensors, each in its own kind, in memory.
    pub(crate) fn read(&self) -> Result<NamedTensors> {
        let read = |(name, entry): (&String, &Entry)| Ok((name.clone(), self.one(name, entry)?));
        self.tensors.iter().map(read).collect()
    }

    fn one(&self, name: &str, entry: &Entry) -> Result<Tensor> {
        let tensor =
            Tensor::f_empty(&entry.shape[..], (entry.kind, Device::Cpu)).map_err(libtorch)?;
        self.fill(name, &tensor, false)?;
        Ok(tensor)
    }

    /// Takes a tensor of a given shape and kind out of the file; [`Self::all_taken`] refuses what is left.
    pub(crate) fn take(&mut self, tensor: &str, shape: &[i64], kind: Kind) -> Result<Tensor> {
        let taken = self.one(tensor, self.check(tensor, shape, kind)?)?;
        self.tensors.remove(tensor);
        Ok(taken)
    }

    /// Takes it without reading it; [`Self::part`] does.
    pub(crate) fn claim(&mut self, tensor: &str, shape: &[i64], kind: Kind) -> Result<Entry> {
        let entry = self.check(tensor, shape, kind)?.clone();
        self.tensors.remove(tensor);
        Ok(entry)
    }

    fn check(&self, tensor: &str, shape: &[i64], kind: Kind) -> Result<&Entry> {
        let found = self.tensors.get(tensor);
        let name = &self.name;
        let entry = found.ok_or_else(|| data(format!("{name} has no tensor {tensor}")))?;
        if (&entry.shape[..], entry.kind) != (shape, kind) {
            return Err(data(format!(
                "{name}: {tensor} is {:?} {:?}, expected {kind:?} {shape:?}",
                entry.kind, entry.shape
            )));
        }
        Ok(entry)
    }

    /// The bytes of `count` numbers of a tensor, from number `first` on.
    pub(crate) fn part(&self, entry: &Entry, first: u64, count: usize) -> Result<Bytes> {
        let size = entry.kind.elt_size_in_bytes() as u64;
        let start = entry.range.start + first * size;
        self.window(start..start + count as u64 * size)
    }

    /// Refuses a file with tensors that were not taken.
    pub(crate) fn all_taken(&self) -> Result<()> {
        let Some(extra) = self.tensors.keys().next() else { return Ok(()) };
        Err(data(format!("{} has an unknown tensor {}", self.name, one_line(extra))))
    }
}

fn unreadable(name: &str, error: std::io::Error) -> StageError {
    data_from(format!("{name} cannot be read: {}", one_line(&error)), error)
}

/// A header's tensors in the order of their bytes.
fn tensors(header: &[u8]) -> serde_json::Result<Vec<(String, TensorInfo)>> {
    let mut header = serde_json::Deserializer::from_slice(header);
    let mut tensors: Vec<_> = header.deserialize_map(Tensors)?.into_iter().collect();
    header.end()?;
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    Ok(tensors)
}

struct Tensors;

impl<'de> Visitor<'de> for Tensors {
    type Value = BTreeMap<String, TensorInfo>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut tensors = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<BTreeMap<String, String>>()?;
                continue;
            }
            if tensors.len() == MOST_TENSORS {
                return Err(A::Error::custom(format!("more than {MOST_TENSORS} tensors")));
            }
            let info = map.next_value()?;
            if tensors.insert(name.clone(), info).is_some() {
                return Err(A::Error::custom(format!("a tensor comes twice: {}", one_line(&name))));
            }
        }
        Ok(tensors)
    }
}

#[cfg(test)]
mod tests;
