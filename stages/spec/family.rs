//! Families of models that this program computes, as data: names of tensors and of configuration keys, conventions of
//! forward pass, sampler and chat. One file each, of which none knows another. Reads no file and computes nothing.

use serde::{Deserialize, Serialize};

mod dream;
mod llada;
mod llada_moe;
mod llama;
mod sdar;
mod traits;

pub use traits::{
    AttendsTo, BlocksFrom, ChatLayout, ConfigKeys, Conventions, EndsAfter, ExpertNames,
    FamilyTraits, Predicts, Spread, TensorNames, ThresholdRule,
};

/// A family of models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// LLaDA 8B and 1.5.
    #[default]
    Llada,
    /// Dream 7B.
    Dream,
    /// SDAR.
    Sdar,
    /// Autoregressive models.
    Llama,
    /// LLaDA-MoE 7B-A1B.
    LladaMoe,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Llada, Self::Dream, Self::Sdar, Self::Llama, Self::LladaMoe];

    /// What its models have in common.
    pub fn traits(self) -> &'static FamilyTraits {
        match self {
            Self::Llada => &llada::TRAITS,
            Self::Dream => &dream::TRAITS,
            Self::Sdar => &sdar::TRAITS,
            Self::Llama => &llama::TRAITS,
            Self::LladaMoe => &llada_moe::TRAITS,
        }
    }

    /// Whether this is the family that run files need not name.
    pub(crate) fn is_llada(&self) -> bool {
        *self == Self::Llada
    }

    /// As run files name it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Llada => "llada",
            Self::Dream => "dream",
            Self::Sdar => "sdar",
            Self::Llama => "llama",
            Self::LladaMoe => "llada-moe",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_its_own() {
        for family in Family::ALL {
            let others = Family::ALL.into_iter().filter(|other| *other != family);
            let own = family.traits();
            for other in others {
                assert_ne!(own.model_type, other.traits().model_type);
                assert_ne!(own.name, other.traits().name);
            }
            let named = serde_json::to_value(family).unwrap();
            assert_eq!(named, family.key());
            let document: serde_json::Map<_, _> = serde_json::from_str(own.document).unwrap();
            assert!(!document.contains_key(own.keys.d_model));
            for piece in own.chat.pieces {
                let ChatLayout { begin, role_start, role_end, turn_end, .. } = own.chat;
                assert!([begin, role_start, role_end, turn_end].concat().contains(piece));
            }
        }
    }
}
