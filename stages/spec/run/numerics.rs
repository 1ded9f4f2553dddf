//! Numerics classes: how far results are equal to the bit. A class is part of every spec, and so of every
//! name; how a process is set up to compute in one is in `src/numerics.rs`.

use std::{fmt, str::FromStr};

use crate::names::serde_as_text;

/// How far results are equal to the bit.
///
/// New classes are appended: the number of a variant is part of the names of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, bincode::Encode)]
pub enum Numerics {
    /// The same bytes on every x86-64 machine with AVX2; the default.
    #[default]
    CpuPortable,
    /// Of results of earlier releases, which are still read; see [`Self::is_computed`].
    CpuNative,
    /// On a GPU: the same bytes on GPUs of the same model with the same libraries.
    Cuda {
        /// Its compute capability without the point, as in the names of its kernels: 90 for 9.0.
        sm: u16,
    },
}

/// The text names no numerics class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no numerics class: expected `cpu-portable` or `cuda:SM`, as in `cuda:90`")]
pub struct ParseNumericsError(String);

impl Numerics {
    /// The error for a class of earlier releases.
    pub const GONE: &str = "this class is gone: leave it out, cpu-portable is as fast";

    /// Whether this release computes in it, and not only reads what earlier ones computed.
    pub fn is_computed(self) -> bool {
        self != Self::CpuNative
    }

    /// Whether a GPU computes.
    pub fn is_cuda(self) -> bool {
        matches!(self, Self::Cuda { .. })
    }
}

/// The name that run files, queues and manifests use.
impl fmt::Display for Numerics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CpuPortable => f.pad("cpu-portable"),
            Self::CpuNative => f.pad("cpu-native"),
            Self::Cuda { sm } => f.pad(&format!("cuda:{sm}")),
        }
    }
}

impl FromStr for Numerics {
    type Err = ParseNumericsError;

    fn from_str(text: &str) -> Result<Self, ParseNumericsError> {
        // The first GPUs that libtorch 2.11 computes on are of capability 5.0.
        let sm = text.strip_prefix("cuda:").and_then(|sm| sm.parse().ok());
        let of_gpu = sm.filter(|sm| (50..=999).contains(sm)).map(|sm| Self::Cuda { sm });
        // A class has one spelling, since it names queues: no sign, no leading zero.
        let mut all = [Self::CpuPortable, Self::CpuNative].into_iter().chain(of_gpu);
        let class = all.find(|class| class.to_string() == text);
        class.ok_or_else(|| ParseNumericsError(text.to_owned()))
    }
}

serde_as_text!(Numerics);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::encode;

    #[test]
    fn a_class_has_one_spelling() {
        for name in ["cpu-portable", "cpu-native", "cuda:75", "cuda:90", "cuda:120"] {
            let class: Numerics = name.parse().unwrap();
            assert_eq!(class.to_string(), name);
            assert_eq!(serde_json::to_string(&class).unwrap(), format!("{name:?}"));
            assert_eq!(serde_json::from_str::<Numerics>(&format!("{name:?}")).unwrap(), class);
        }
        for text in
            ["", "cpu", "cuda", "cuda:", "cuda:+90", "cuda:090", "cuda:9.0", "cuda:0", "CUDA:90"]
        {
            let refused = text.parse::<Numerics>().unwrap_err().to_string();
            assert!(refused.contains("as in `cuda:90`"), "{refused}");
        }
    }

    /// Results of earlier releases are read, and nothing is computed in their class.
    #[test]
    fn a_class_of_earlier_releases_is_read_from_records_and_refused_in_new_runs() {
        let file = include_str!("../../../jobs/runs/smoke.toml");
        let run = crate::Run::parse(file).unwrap();
        let text = file.replace("\"cpu-portable\"", "\"cpu-native\"");
        let refused = crate::Run::parse(&text).unwrap_err().to_string();
        assert_eq!(
            refused,
            "numerics = \"cpu-native\": this class is gone: leave it out, cpu-portable is as fast"
        );
        let record = crate::RunConfig { numerics: Numerics::CpuNative, ..run.config().clone() };
        assert!(crate::Run::resolve(record).is_ok());
    }

    /// Names of results hold the number of a class.
    #[test]
    fn classes_keep_their_numbers() {
        assert_eq!(encode(&Numerics::CpuPortable), [0, 0, 0, 0]);
        assert_eq!(encode(&Numerics::CpuNative), [1, 0, 0, 0]);
        assert_eq!(encode(&Numerics::Cuda { sm: 90 }), [2, 0, 0, 0, 90, 0]);
    }
}
