//! A safetensors file of any size: its header as a whole, its tensors window by window.
//!
//! ```text
//! u64 LE: bytes of the header | header: JSON, name -> dtype, shape, offsets | the tensors' bytes
//! ```
//! Every part of a header is checked before it is used: against the file's length before
//! anything is read, by the crate's own rules (offsets without gap or overlap, sizes that follow from
//! shapes), and for names that come twice, which JSON would hide. Writes no file.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;

use agrpo_spec::{Content, StageError, WINDOW, lfs_pointer, one_line};
use bytes::Bytes;
use half::{bf16, f16};
use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use tch::{Device, Kind, Tensor};

use super::files::{NamedTensors, check_form, kind_of, lacks};
use crate::error::{data, libtorch};

/// The format's own limit, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;
/// Far more tensors than the largest models have.
const MOST_TENSORS: usize = 1 << 17;
/// Bytes of the header's length.
const PREFIX: u64 = 8;
/// Bytes from which a Git LFS pointer is recognised.
const START: u64 = 64;

/// Where a tensor lies in its file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) shape: Vec<i64>,
    /// In bytes from the file's start.
    range: Range<u64>,
}

impl Entry {
    /// How many bytes the tensor takes in its file.
    pub(crate) fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Where it begins, in bytes from the file's start.
    pub(crate) fn start(&self) -> u64 {
        self.range.start
    }
}

/// A file whose header has been read and checked.
#[derive(Debug)]
pub(crate) struct TensorWindows {
    name: String,
    content: Content,
    /// Bytes of the header and of its length.
    first: u64,
    tensors: BTreeMap<String, Entry>,
}

impl TensorWindows {
    /// Reads the header. `name` is the file's, for errors.
    pub(crate) fn open(name: &str, content: &Content) -> Result<Self, StageError> {
        let refuse = |why: &dyn Display| {
            data(format!("{name} is not a sound safetensors file: {}", one_line(why)))
        };
        let size = content.size();
        let read = |range| content.window(range).map_err(|error| unreadable(name, &error));
        let start: [u8; 8] = read(0..PREFIX.min(size))?[..]
            .try_into()
            .map_err(|_| refuse(&format!("it has {size} bytes, expected at least {PREFIX}")))?;
        if start == *b"version "
            && let Some(pointer) = lfs_pointer(&read(0..START.min(size))?)
        {
            return Err(data(format!("{name} is {pointer}")));
        }
        let length = u64::from_le_bytes(start);
        if length > LONGEST_HEADER || length > size - PREFIX {
            let most = LONGEST_HEADER.min(size - PREFIX);
            return Err(refuse(&format!("a header of {length} bytes, expected at most {most}")));
        }
        let first = PREFIX + length;
        let header = read(PREFIX..first)?;
        let Header(infos) = serde_json::from_slice(&header).map_err(|error| refuse(&error))?;
        let checked = Metadata::new(None, infos.clone()).map_err(|error| refuse(&error))?;
        let (expected, found) = (checked.data_len() as u64, size - first);
        if expected != found {
            let mismatch = format!("{found} bytes of tensors, expected {expected} by its header");
            return Err(refuse(&mismatch));
        }
        let mut tensors = BTreeMap::new();
        for (tensor, info) in infos {
            let kind = kind_of(info.dtype).ok_or_else(|| {
                data(format!("{name}: {} has the type {:?}", one_line(&tensor), info.dtype))
            })?;
            let shape = info.shape.iter().map(|&n| i64::try_from(n));
            let shape = shape.collect::<Result<_, _>>().map_err(|error| refuse(&error))?;
            let (start, end) = info.data_offsets;
            let range = first + start as u64..first + end as u64;
            tensors.insert(tensor, Entry { kind, shape, range });
        }
        Ok(Self { name: name.to_owned(), content: content.clone(), first, tensors })
    }

    /// The file's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What the file holds.
    pub(crate) fn tensors(&self) -> &BTreeMap<String, Entry> {
        &self.tensors
    }

    /// The header as it is, with its length in front.
    pub(crate) fn header(&self) -> Result<Bytes, StageError> {
        self.content.window(0..self.first).map_err(|error| unreadable(&self.name, &error))
    }

    /// Where a tensor lies.
    pub(crate) fn entry(&self, tensor: &str) -> Result<&Entry, StageError> {
        let found = self.tensors.get(tensor);
        found.ok_or_else(|| StageError::Internal(format!("{} has no tensor {tensor}", self.name)))
    }

    /// Some of a tensor's bytes, counted from its start.
    pub(crate) fn piece(&self, tensor: &str, range: Range<u64>) -> Result<Bytes, StageError> {
        let start = self.entry(tensor)?.range.start;
        let window = self.content.window(start + range.start..start + range.end);
        window.map_err(|error| unreadable(&self.name, &error))
    }

    /// Copies a tensor's numbers, row-major, over those of `target`: contiguous, as many, of any kind
    /// and on any device. Never holds more than a window of them beside it.
    pub(crate) fn fill(&self, tensor: &str, target: &Tensor) -> Result<(), StageError> {
        self.fill_looking(tensor, target, |_| Ok(()))
    }

    /// The same for a tensor whose numbers all have to be finite.
    pub(crate) fn fill_finite(&self, tensor: &str, target: &Tensor) -> Result<(), StageError> {
        let kind = self.entry(tensor)?.kind;
        self.fill_looking(tensor, target, |bytes| self.finite(tensor, kind, bytes))
    }

    /// The same, calling `look` with each window.
    fn fill_looking(
        &self,
        tensor: &str,
        target: &Tensor,
        look: impl Fn(&[u8]) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let entry = self.entry(tensor)?;
        let target = target.f_view([-1]).map_err(|e| libtorch(&e))?;
        let width = entry.kind.elt_size_in_bytes() as u64;
        let mut at = 0;
        for range in windows(entry) {
            let count = i64::try_from((range.end - range.start) / width).unwrap_or(i64::MAX);
            let bytes =
                self.content.window(range).map_err(|error| unreadable(&self.name, &error))?;
            look(&bytes)?;
            Tensor::f_from_data_size(&bytes, &[count], entry.kind)
                .and_then(|numbers| target.f_narrow(0, at, count)?.f_copy_(&numbers))
                .map_err(|e| libtorch(&e))?;
            at += count;
        }
        Ok(())
    }

    /// Whether all numbers of all tensors are finite. Data error that names the tensor.
    pub(crate) fn check_finite(&self) -> Result<(), StageError> {
        for (tensor, entry) in &self.tensors {
            for range in windows(entry) {
                let bytes =
                    self.content.window(range).map_err(|error| unreadable(&self.name, &error))?;
                self.finite(tensor, entry.kind, &bytes)?;
            }
        }
        Ok(())
    }

    fn finite(&self, tensor: &str, kind: Kind, bytes: &[u8]) -> Result<(), StageError> {
        match first_not_finite(kind, bytes) {
            Some(number) => Err(data(format!(
                "{}: {} has the number {number}, expected finite weights: the file is damaged, or training \
                 has diverged; lower the learning rate",
                self.name,
                one_line(tensor)
            ))),
            None => Ok(()),
        }
    }

    /// All tensors, each in its own kind, in memory.
    pub(crate) fn read(&self) -> Result<NamedTensors, StageError> {
        let read = |(name, entry): (&String, &Entry)| Ok((name.clone(), self.one(name, entry)?));
        self.tensors.iter().map(read).collect()
    }

    fn one(&self, name: &str, entry: &Entry) -> Result<Tensor, StageError> {
        let tensor = Tensor::f_empty(&entry.shape[..], (entry.kind, Device::Cpu))
            .map_err(|e| libtorch(&e))?;
        self.fill(name, &tensor)?;
        Ok(tensor)
    }

    /// Takes a tensor of a given shape and kind out of the file; [`Self::all_taken`] refuses what is left.
    pub(crate) fn take(
        &mut self,
        tensor: &str,
        shape: &[i64],
        kind: Kind,
    ) -> Result<Tensor, StageError> {
        let found = self.tensors.get(tensor);
        let entry = found.ok_or_else(|| lacks(&self.name, tensor))?;
        check_form((&self.name, tensor), (&entry.shape, entry.kind), (shape, kind))?;
        let taken = self.one(tensor, entry)?;
        self.tensors.remove(tensor);
        Ok(taken)
    }

    /// Refuses a file with tensors that were not taken.
    pub(crate) fn all_taken(&self) -> Result<(), StageError> {
        match self.tensors.keys().next() {
            Some(extra) => {
                Err(data(format!("{} has an unknown tensor {}", self.name, one_line(extra))))
            }
            None => Ok(()),
        }
    }
}

/// A tensor's bytes, a window at a time.
fn windows(entry: &Entry) -> impl Iterator<Item = Range<u64>> {
    let Range { start, end } = entry.range;
    let step = usize::try_from(WINDOW).unwrap_or(usize::MAX);
    (start..end).step_by(step).map(move |start| start..end.min(start + WINDOW))
}

/// The first number that is infinite or none, or too large for f32.
fn first_not_finite(kind: Kind, bytes: &[u8]) -> Option<f32> {
    let halves = || bytes.as_chunks::<2>().0.iter().copied();
    let not = |number: &f32| !number.is_finite();
    match kind {
        Kind::BFloat16 => halves().map(|b| bf16::from_le_bytes(b).to_f32()).find(not),
        Kind::Half => halves().map(|b| f16::from_le_bytes(b).to_f32()).find(not),
        Kind::Float => bytes.as_chunks::<4>().0.iter().copied().map(f32::from_le_bytes).find(not),
        #[expect(clippy::cast_possible_truncation, reason = "policies compute in f32 at most")]
        Kind::Double => {
            let numbers = bytes.as_chunks::<8>().0.iter().copied().map(f64::from_le_bytes);
            numbers.map(|number| number as f32).find(not)
        }
        _ => None,
    }
}

fn unreadable(name: &str, error: &std::io::Error) -> StageError {
    data(format!("{name} cannot be read: {}", one_line(error)))
}

/// The header's tensors in the order of their bytes.
struct Header(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Tensors).map(|tensors| {
            let mut tensors: Vec<_> = tensors.into_iter().collect();
            tensors.sort_by_key(|(_, info)| info.data_offsets);
            Self(tensors)
        })
    }
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
