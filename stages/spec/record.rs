//! Sealed records: JSON objects that carry the number of their format and a SHA-256 of their own bytes.
//!
//! ```text
//! {
//!   "format": 1,
//!   "sha256": "<64 hex digits>",
//!   ... the record's own fields
//! }
//! ```
//! The digest is taken over the file's bytes with these 64 digits replaced by `0`. The first three lines
//! are the same in every format, to the byte, so a program can check the bytes of a record that a newer
//! one wrote, and distinguish a record that it does not know from one that is damaged.
//!
//! A record whose format number is higher than [`FORMAT`] is incompatible even if its digest does not match:
//! only a program that knows the format can decide whether it is damaged. The one exception is a record of this
//! format with a wrong digit in the number, which its own digest proves.
//!
//! Refuses to guess: a record is sound, incompatible or damaged. Reads and writes no file.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::digest::ArtifactDigest;
use crate::json::json_reason;

/// The format that this program writes. Records from before they were sealed have none: format 0.
pub const FORMAT: u32 = 1;

/// The bytes before and after the number of the format, and after the digest.
const BEFORE_FORMAT: &[u8] = b"{\n  \"format\": ";
const BEFORE_DIGEST: &[u8] = b",\n  \"sha256\": \"";
const AFTER_DIGEST: &[u8] = b"\"";
/// Hexadecimal digits of a SHA-256.
const DIGITS: usize = 64;

/// Why a record gives no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Its bytes are whole, and this program does not know the format or a field: another version wrote it.
    #[error("{0}")]
    Incompatible(String),
    /// Its bytes are not those that were written.
    #[error("{0}")]
    Damaged(String),
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened<T> {
    /// The record's value.
    pub value: T,
    /// Whether its bytes were checked against a digest; false in format 0.
    pub is_sealed: bool,
}

/// The bytes of a record. `value` has to serialise to a JSON object.
pub fn seal<T: Serialize>(value: &T) -> Vec<u8> {
    seal_as(FORMAT, value)
}

/// The bytes of a record of another format, for tests of what a newer program writes.
pub fn seal_as<T: Serialize>(format: u32, value: &T) -> Vec<u8> {
    let plain = serde_json::to_vec_pretty(value).expect("a record serialises");
    let fields = plain.strip_prefix(b"{").expect("a record is an object");
    let mut bytes = [BEFORE_FORMAT, format.to_string().as_bytes(), BEFORE_DIGEST].concat();
    let digits = bytes.len()..bytes.len() + DIGITS;
    bytes.resize(digits.end, b'0');
    bytes.extend_from_slice(AFTER_DIGEST);
    bytes.push(if fields == b"}" { b'\n' } else { b',' });
    bytes.extend_from_slice(fields);
    let digest = ArtifactDigest::of(&bytes).to_string();
    bytes[digits].copy_from_slice(digest.as_bytes());
    bytes
}

/// Whether the bytes claim a format with a digest: an earlier one, this one or a later one.
pub fn has_format(bytes: &[u8]) -> bool {
    Head::of(bytes).is_some() || newer_format(bytes).is_some()
}

/// The number of a format that this program does not know yet, in a record's first lines or in JSON.
fn newer_format(bytes: &[u8]) -> Option<u64> {
    let json = || serde_json::from_slice::<Value>(bytes).ok()?.get("format")?.as_u64();
    let format = number(bytes).map(|(format, _)| format).or_else(json)?;
    (format > u64::from(FORMAT)).then_some(format)
}

/// The number of the format in the first lines, and the bytes behind it.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let rest = bytes.strip_prefix(BEFORE_FORMAT)?;
    let length = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let digits = std::str::from_utf8(&rest[..length]).ok().filter(|digits| !digits.is_empty())?;
    // A number that exceeds a u64 is a newer format too.
    Some((digits.parse().unwrap_or(u64::MAX), &rest[length..]))
}

/// Reads a record back.
pub fn open<T: DeserializeOwned>(bytes: &[u8]) -> Result<Opened<T>, RecordError> {
    let Some(head) = Head::of(bytes) else { return open_unsealed(bytes) };
    let found = head.digest_of(bytes);
    let is_sound = found.as_bytes() == &bytes[head.digits.clone()];
    if head.format > u64::from(FORMAT) && (is_sound || !head.is_ours(bytes)) {
        return Err(of_format(head.format));
    }
    if !is_sound {
        let said = String::from_utf8_lossy(&bytes[head.digits]);
        return Err(RecordError::Damaged(format!(
            "its bytes give the SHA-256 {found}, not {said}"
        )));
    }
    if head.format < u64::from(FORMAT) {
        return Err(of_format(head.format));
    }
    let fields = &bytes[head.digits.end + AFTER_DIGEST.len()..];
    let plain = [b"{", fields.strip_prefix(b",").unwrap_or(fields)].concat();
    // Without the place: these lines are not the file's.
    let value = serde_json::from_slice(&plain);
    let value = value.map_err(|error| RecordError::Incompatible(json_reason(&error)))?;
    Ok(Opened { value, is_sealed: true })
}

fn of_format(format: u64) -> RecordError {
    RecordError::Incompatible(format!(
        "it has format {format}, and this program knows format {FORMAT}"
    ))
}

/// Reads format 0. A record with only a part of a seal was sealed, and is damaged.
fn open_unsealed<T: DeserializeOwned>(bytes: &[u8]) -> Result<Opened<T>, RecordError> {
    if let Some(format) = newer_format(bytes) {
        return Err(of_format(format));
    }
    let fields: serde_json::Map<String, Value> = serde_json::from_slice(bytes)
        .map_err(|error| RecordError::Damaged(format!("it is no JSON object: {error}")))?;
    if fields.contains_key("format") || fields.contains_key("sha256") {
        return Err(RecordError::Damaged("its seal is broken".to_owned()));
    }
    let value = serde_json::from_slice(bytes);
    let value = value.map_err(|error| RecordError::Incompatible(error.to_string()))?;
    Ok(Opened { value, is_sealed: false })
}

/// The first lines of a sealed record.
struct Head {
    format: u64,
    /// Where the digest's digits are.
    digits: std::ops::Range<usize>,
}

impl Head {
    fn of(bytes: &[u8]) -> Option<Self> {
        let (format, rest) = number(bytes)?;
        let rest = rest.strip_prefix(BEFORE_DIGEST)?;
        let begin = bytes.len() - rest.len();
        let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        let is_whole = rest.get(..DIGITS)?.iter().all(is_digit);
        (is_whole && rest[DIGITS..].starts_with(AFTER_DIGEST))
            .then_some(Self { format, digits: begin..begin + DIGITS })
    }

    fn digest_of(&self, bytes: &[u8]) -> String {
        let mut zeroed = bytes.to_vec();
        zeroed[self.digits.clone()].fill(b'0');
        ArtifactDigest::of(&zeroed).to_string()
    }

    /// Whether the digest is right once the number of the format is this program's.
    fn is_ours(&self, bytes: &[u8]) -> bool {
        let number = FORMAT.to_string();
        let rest = &bytes[self.digits.start - BEFORE_DIGEST.len()..];
        let ours = [BEFORE_FORMAT, number.as_bytes(), rest].concat();
        let head = Self::of(&ours);
        head.is_some_and(|head| head.digest_of(&ours).as_bytes() == &ours[head.digits.clone()])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Small {
        metrics: BTreeMap<String, f64>,
        worker: String,
    }

    fn small() -> Small {
        let metrics = [("accuracy".to_owned(), 0.075), ("loss".to_owned(), 1e-300)].into();
        Small { metrics, worker: "anna \"quoted\"\n".to_owned() }
    }

    #[test]
    fn a_record_comes_back_as_it_was_and_its_form_is_frozen() {
        let bytes = seal(&small());
        assert_eq!(open(&bytes), Ok(Opened { value: small(), is_sealed: true }));
        let empty: BTreeMap<String, f64> = BTreeMap::new();
        insta::assert_snapshot!(String::from_utf8(seal(&empty)).unwrap(), @r#"
        {
          "format": 1,
          "sha256": "1c88cbf4df1d46257fac53abf3e964cff6214bfc39316c3db579685b6316b6c8"
        }
        "#);
        assert_eq!(open(&seal(&empty)), Ok(Opened { value: empty, is_sealed: true }));
        let plain = serde_json::to_vec(&small()).unwrap();
        assert_eq!(open(&plain), Ok(Opened { value: small(), is_sealed: false }));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_damage() {
        let bytes = seal(&small());
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let found = open::<Small>(&flipped);
            assert!(matches!(found, Err(RecordError::Damaged(_))), "bit {bit}: {found:?}");
        }
        for length in 0..bytes.len() {
            let found = open::<Small>(&bytes[..length]);
            assert!(matches!(found, Err(RecordError::Damaged(_))), "{length} bytes: {found:?}");
        }
    }

    fn incompatible(bytes: &[u8]) -> String {
        match open::<Small>(bytes) {
            Err(RecordError::Incompatible(why)) => why,
            found => panic!("{found:?}"),
        }
    }

    #[test]
    fn another_version_s_record_is_distinguished_from_damage() {
        let mut more = serde_json::to_value(small()).unwrap();
        more["priority"] = 7.into();
        let why = incompatible(&seal(&more));
        assert_eq!(why, "unknown field `priority`, expected `metrics` or `worker`");
        let why = incompatible(&seal_as(2, &small()));
        assert_eq!(why, "it has format 2, and this program knows format 1");
        // From before records were sealed: what is JSON may be another version's.
        incompatible(&serde_json::to_vec(&more).unwrap());
        incompatible(b"{}");
        assert!(matches!(open::<Small>(b"5"), Err(RecordError::Damaged(_))));
        // Written again by another tool: no digest covers it.
        let again: serde_json::Value = serde_json::from_slice(&seal(&small())).unwrap();
        let again = serde_json::to_vec(&again).unwrap();
        assert!(matches!(open::<Small>(&again), Err(RecordError::Damaged(_))));
    }

    /// Only a program that knows the format can decide whether the bytes are damaged.
    #[test]
    fn a_higher_format_is_another_versions_even_under_a_wrong_digest() {
        let mut more = serde_json::to_value(small()).unwrap();
        more["priority"] = 7.into();
        for value in [serde_json::to_value(small()).unwrap(), more] {
            let newer = seal_as(12, &value);
            let head = newer.iter().position(|byte| *byte == b',').unwrap();
            for at in head + 1..newer.len() {
                let mut flipped = newer.clone();
                flipped[at] ^= 1;
                for bytes in [&flipped[..], &newer[..at]] {
                    let why = incompatible(bytes);
                    assert_eq!(why, "it has format 12, and this program knows format 1");
                    assert!(has_format(bytes));
                }
            }
            let again: Value = serde_json::from_slice(&newer).unwrap();
            incompatible(&serde_json::to_vec(&again).unwrap());
        }
        // One wrong digit does not turn our record into a newer one: the digest shows which digit it was.
        let ours = String::from_utf8(seal(&small())).unwrap();
        let ours = ours.replace("\"format\": 1,", "\"format\": 9,").into_bytes();
        assert!(matches!(open::<Small>(&ours), Err(RecordError::Damaged(_))));
        // A number that cannot be read is none.
        for cut in [&b"{"[..], b"{\n  \"format\": 12", b"{\n  \"format\": x,"] {
            assert!(matches!(open::<Small>(cut), Err(RecordError::Damaged(_))) && !has_format(cut));
        }
    }
}
