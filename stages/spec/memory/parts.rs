//! An estimate: named parts and their sums, of the memory of what computes and of the host's beside a GPU. Refuses what
//! exceeds the available memory.

use std::fmt;

use crate::stage::StageKind;

/// Whose memory a part takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// That of what computes passes: the GPU's, or the machine's where processors compute.
    Device,
    /// The machine's, where a GPU computes passes.
    Host,
}

/// The memory of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The part's name.
    pub name: &'static str,
    /// Its bytes.
    pub bytes: u64,
    /// Where they are.
    pub place: Place,
}

impl Part {
    pub(super) fn new(name: &'static str, bytes: u64) -> Self {
        Self { name, bytes, place: Place::Device }
    }

    /// The same part, so many times.
    pub(super) fn times(self, count: u64) -> Self {
        Self { bytes: self.bytes.saturating_mul(count), ..self }
    }

    /// The larger of two parts that are never in memory together.
    pub(super) fn larger([a, b]: [Self; 2]) -> Self {
        if a.bytes > b.bytes { a } else { b }
    }
}

/// Of parts that are never in memory together, those with the larger sum, in each memory for itself.
pub(super) fn larger(a: Vec<Part>, b: Vec<Part>) -> Vec<Part> {
    let mut larger = vec![];
    for place in [Place::Device, Place::Host] {
        let parts = if sum(&a, place) > sum(&b, place) { &a } else { &b };
        larger.extend(parts.iter().filter(|part| part.place == place));
    }
    larger
}

pub(super) fn sum(parts: &[Part], place: Place) -> u64 {
    let of_place = parts.iter().filter(|part| part.place == place);
    of_place.fold(0, |sum, part| sum.saturating_add(part.bytes))
}

/// The peak of one stage, part by part. `Display` is a line with the sum and the parts that are not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Which kind of stage.
    pub stage: StageKind,
    /// What is in memory at the peak.
    pub parts: Vec<Part>,
}

/// A stage needs more memory than there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stage of kind {} needs about {} of {}memory, {} are available: {}", .estimate.stage, size(.estimate.sum(*.place)), of(*.place), size(*.available), .estimate.words(*.place))]
pub struct TooLarge {
    /// The stage's estimate.
    pub estimate: Estimate,
    /// Which memory.
    pub place: Place,
    /// The available bytes.
    pub available: u64,
}

fn of(place: Place) -> &'static str {
    match place {
        Place::Device => "",
        Place::Host => "the host's ",
    }
}

impl Estimate {
    /// The peak in the memory of what computes, in bytes; of processors, the whole of it.
    pub fn bytes(&self) -> u64 {
        self.sum(Place::Device)
    }

    /// The peak in one memory, in bytes.
    pub fn sum(&self, place: Place) -> u64 {
        sum(&self.parts, place)
    }

    /// Error if the peak exceeds the available bytes of this memory.
    pub fn fits(&self, place: Place, available: u64) -> Result<(), TooLarge> {
        if self.sum(place) <= available {
            return Ok(());
        }
        Err(TooLarge { estimate: self.clone(), place, available })
    }

    /// The parts, largest first.
    fn words(&self, place: Place) -> String {
        let is_named = |part: &Part| part.place == place && part.bytes > 0;
        let mut parts: Vec<Part> = self.parts.iter().copied().filter(is_named).collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
        let word = |part: &Part| format!("{} {}", part.name, size(part.bytes));
        parts.iter().map(word).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_place =
            |place| format!("{}{}: {}", of(place), size(self.sum(place)), self.words(place));
        let places = [Place::Device, Place::Host].into_iter().filter(|place| self.sum(*place) > 0);
        let places: Vec<String> = places.map(of_place).collect();
        write!(f, "{} {}", self.stage, places.join("; "))
    }
}

/// Bytes in binary units, rounded.
fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1u32 << 20);
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}
