//! Names: SHA-256 digests as types, and the one byte grammar that they are taken over.
//!
//! The only file that names `sha2` or chooses a bincode configuration. Grammar (frozen by the golden
//! digests in the tests): bincode 2, little-endian, fixed-width integers; lengths u64; enum variants
//! u32; floats as the bits of an f64 with NaN refused and -0.0 folded into 0.0; no maps without
//! order. Field and variant order are part of the format. A stage's name is
//! `SHA-256("agrpo.stage.v1" NUL kind NUL bytes)`, a run's the same under `agrpo.run.v1`; an
//! artifact's name is the plain SHA-256 of its bytes, so that any tool can check it.

use std::{fmt, str::FromStr};

use bincode::error::{DecodeError, EncodeError};
use bincode::{de::Decoder, enc::Encoder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::names::serde_as_text;

const ENCODING: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
> = bincode::config::standard().with_fixed_int_encoding();

/// The canonical bytes of a value. The same value gives the same bytes on every machine.
pub fn encode<T: bincode::Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, ENCODING).expect("writing into memory cannot fail")
}

/// Reads canonical bytes back. `None` where they are cut short, too long or not of this type.
///
/// A length inside the bytes is trusted only as far as the bytes could hold so much: allocations stay below a
/// small multiple of their number.
pub fn decode<T: bincode::Decode<()>>(bytes: &[u8]) -> Option<T> {
    // A value in memory takes at most four times the bytes of its encoding. The crate takes its limit as a constant,
    // so there is one for each order of magnitude.
    macro_rules! within {
        ($($bits:literal)*) => {
            match bytes.len().checked_mul(4)? {
                $(most if most <= 1 << $bits => {
                    bincode::decode_from_slice(bytes, ENCODING.with_limit::<{ 1 << $bits }>())
                })*
                _ => return None,
            }
        };
    }
    let (value, read) = within!(8 10 12 14 16 18 20 22 24 26 28 30 32 34 36).ok()?;
    (read == bytes.len()).then_some(value)
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0:?} is not a digest: expected 64 lower-case hexadecimal digits")]
pub struct ParseDigestError(String);

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(bincode::Encode, bincode::Decode)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The first 12 hexadecimal digits, for tables; every command accepts them.
            pub fn short(&self) -> String {
                hex::encode(&self.0[..6])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;
            fn from_str(text: &str) -> Result<Self, ParseDigestError> {
                let refuse = || ParseDigestError(text.to_owned());
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| refuse())?;
                if text.bytes().any(|b| b.is_ascii_uppercase()) { Err(refuse()) } else { Ok(Self(bytes)) }
            }
        }

        serde_as_text!($name);
    };
}

digest_type!(
    /// The name of a blob or of a folder listing: the SHA-256 of its bytes.
    ArtifactDigest
);
digest_type!(
    /// The name of a stage: a digest of its spec, not of its results.
    StageDigest
);
digest_type!(
    /// The name of a run: a digest of the resolved run, so the same file is the same run anywhere.
    RunId
);

impl ArtifactDigest {
    /// The name of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha256(&[bytes]))
    }
}

/// Computes the name of bytes that arrive piece by piece.
#[derive(Clone, Debug, Default)]
pub struct DigestStream(Sha256);

impl DigestStream {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The name of all bytes so far.
    pub fn finish(self) -> ArtifactDigest {
        ArtifactDigest(self.0.finalize().into())
    }
}

impl StageDigest {
    pub(crate) fn of(kind: &str, spec_bytes: &[u8]) -> Self {
        Self(sha256(&[b"agrpo.stage.v1\0", kind.as_bytes(), b"\0", spec_bytes]))
    }
}

impl RunId {
    pub(crate) fn of(run_bytes: &[u8]) -> Self {
        Self(sha256(&[b"agrpo.run.v1\0", run_bytes]))
    }
}

/// A real number that may stand in a spec: finite, never -0.0, compared and encoded by its bits.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Real(f64);

impl Real {
    /// `None` for NaN and the infinities; -0.0 becomes 0.0.
    pub fn new(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self(if value == 0.0 { 0.0 } else { value }))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Real {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        Self::new(value)
            .ok_or_else(|| serde::de::Error::custom(format!("{value} is not a finite number")))
    }
}

impl bincode::Encode for Real {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.to_bits().encode(encoder)
    }
}

impl<Context> bincode::Decode<Context> for Real {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Self::new(f64::from_bits(u64::decode(decoder)?))
            .ok_or(DecodeError::Other("a number that is not finite"))
    }
}

/// A field that a format got later. `None` is neither encoded nor serialised, so older names stay what they are. Only
/// for the last fields of a struct; of two, the lengths of their encodings must tell which of them are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Appended<T>(pub Option<T>);

impl<T> Default for Appended<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Appended<T> {
    /// Whether the field is absent.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl<T: bincode::Encode> bincode::Encode for Appended<T> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.as_ref().map_or(Ok(()), |value| value.encode(encoder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_encoding() {
        assert_eq!(encode(&Real::new(-0.0).unwrap()), encode(&Real::new(0.0).unwrap()));
        assert!(Real::new(f64::NAN).is_none());
        assert!(decode::<Real>(&f64::NAN.to_bits().to_le_bytes()).is_none());
    }

    #[test]
    fn an_absent_field_that_was_appended_leaves_no_byte() {
        assert_eq!(encode(&(7u32, Appended::<u32>(None))), encode(&7u32));
        assert_eq!(encode(&(7u32, Appended(Some(9u32)))), encode(&(7u32, 9u32)));
    }

    #[test]
    fn decoding_refuses_bytes_too_many_or_too_few() {
        let bytes = encode(&(7u32, 9u64));
        assert_eq!(decode::<(u32, u64)>(&bytes), Some((7, 9)));
        assert_eq!(decode::<(u32, u64)>(&bytes[..11]), None);
        assert_eq!(decode::<(u32, u64)>(&[&bytes[..], &[0]].concat()), None);
    }

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        for length in [3, 1 << 20, u64::MAX >> 8, u64::MAX] {
            assert_eq!(decode::<Vec<[u64; 4]>>(&encode(&(length, 1u64))), None);
            assert_eq!(decode::<String>(&encode(&(length, 1u8))), None);
        }
        let long: Vec<(u64, bool)> = (0..10_000).map(|n| (n, n % 3 == 0)).collect();
        assert_eq!(decode::<Vec<(u64, bool)>>(&encode(&long)), Some(long));
    }

    #[test]
    fn a_digest_is_what_sha256sum_prints() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(ArtifactDigest::of(b"abc").to_string(), abc);
        assert_eq!(abc.parse::<ArtifactDigest>().unwrap(), ArtifactDigest::of(b"abc"));
        let mut pieces = DigestStream::default();
        for piece in [&b"a"[..], b"", b"bc"] {
            pieces.update(piece);
        }
        assert_eq!(pieces.finish(), ArtifactDigest::of(b"abc"));
        assert!(abc.to_uppercase().parse::<ArtifactDigest>().is_err());
    }
}
