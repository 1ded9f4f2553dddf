//! An estimate: named parts and their sum. Refuses what exceeds the available memory.

use std::fmt;

use crate::stage::StageKind;

/// The memory of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The part's name.
    pub name: &'static str,
    /// Its bytes.
    pub bytes: u64,
}

impl Part {
    pub(super) fn new(name: &'static str, bytes: u64) -> Self {
        Self { name, bytes }
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

/// The parts with the larger sum.
pub(super) fn larger(a: Vec<Part>, b: Vec<Part>) -> Vec<Part> {
    if sum(&a) > sum(&b) { a } else { b }
}

fn sum(parts: &[Part]) -> u64 {
    parts.iter().fold(0, |sum, part| sum.saturating_add(part.bytes))
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
#[error("a stage of kind {} needs about {} of memory, {} are available: {}", .estimate.stage, size(.estimate.bytes()), size(*.available), .estimate.words())]
pub struct TooLarge {
    /// The stage's estimate.
    pub estimate: Estimate,
    /// The available bytes.
    pub available: u64,
}

impl Estimate {
    /// The peak in bytes.
    pub fn bytes(&self) -> u64 {
        sum(&self.parts)
    }

    /// Error if the peak exceeds the available bytes.
    pub fn fits(&self, available: u64) -> Result<(), TooLarge> {
        if self.bytes() <= available {
            return Ok(());
        }
        Err(TooLarge { estimate: self.clone(), available })
    }

    /// The parts, largest first.
    fn words(&self) -> String {
        let mut parts: Vec<Part> = self.parts.iter().copied().filter(|p| p.bytes > 0).collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
        let word = |part: &Part| format!("{} {}", part.name, size(part.bytes));
        parts.iter().map(word).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.stage, size(self.bytes()), self.words())
    }
}

/// Bytes in binary units, rounded.
fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1u32 << 20);
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}
