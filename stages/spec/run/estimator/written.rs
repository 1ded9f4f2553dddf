//! Keys of `[estimator]` that take a word or a value of another type: how they are read and written.

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Whether a pass keeps the inputs of its blocks alone and computes the rest again on its way back: less memory for a
/// third more time, and the same bits. `true`, `false`, or `"auto"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checkpointing {
    /// Never.
    #[default]
    Never,
    /// In every pass.
    Always,
    /// Where the estimate without it exceeds the memory that the stage may take.
    Auto,
}

impl Checkpointing {
    /// Its number in specs: those of true and false are the bytes of a boolean, which the key was before.
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Never => 0,
            Self::Always => 1,
            Self::Auto => 2,
        }
    }
}

impl Serialize for Checkpointing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Never => serializer.serialize_bool(false),
            Self::Always => serializer.serialize_bool(true),
            Self::Auto => serializer.serialize_str("auto"),
        }
    }
}

impl<'de> Deserialize<'de> for Checkpointing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Checkpointing;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("true, false or \"auto\"")
            }
            fn visit_bool<E: Error>(self, value: bool) -> Result<Checkpointing, E> {
                Ok(if value { Checkpointing::Always } else { Checkpointing::Never })
            }
            fn visit_str<E: Error>(self, value: &str) -> Result<Checkpointing, E> {
                let refuse = || E::invalid_value(Unexpected::Str(value), &self);
                (value == "auto").then_some(Checkpointing::Auto).ok_or_else(refuse)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// How many Monte Carlo samples a completion gets: a number, or `"all"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode)]
pub enum Samples {
    /// This many.
    Count(u32),
    /// Every step once: the exact sum.
    All,
}

impl std::fmt::Display for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::All => f.write_str("all"),
        }
    }
}

impl Serialize for Samples {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::All => serializer.serialize_str("all"),
        }
    }
}

impl<'de> Deserialize<'de> for Samples {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Samples;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number of samples or \"all\"")
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Samples, E> {
                let refuse = |_| E::invalid_value(Unexpected::Unsigned(value), &self);
                u32::try_from(value).map(Samples::Count).map_err(refuse)
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Samples, E> {
                let refuse = |_| E::invalid_value(Unexpected::Signed(value), &self);
                u32::try_from(value).map(Samples::Count).map_err(refuse)
            }
            fn visit_str<E: Error>(self, value: &str) -> Result<Samples, E> {
                let refuse = || E::invalid_value(Unexpected::Str(value), &self);
                (value == "all").then_some(Samples::All).ok_or_else(refuse)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
