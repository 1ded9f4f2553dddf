//! The building blocks of estimators: states, reads and ratios.
//!
//! A *read* is the log-probability of an event at one position of a state, a *factor* one ratio of the
//! policy gradient, made of one or more reads, a *unit* the factors that share states. Draws and computes
//! nothing; `pass.rs` turns units into a loss.

use agrpo_spec::EstimatorConfig;

/// A kind of estimator, applied to one batch: numbered units, built on demand.
pub struct Estimator<'a> {
    pub(super) units: usize,
    pub(super) unit: Box<dyn Fn(usize) -> Unit + Sync + 'a>,
    pub(super) surrogate: Surrogate,
    /// The number of completions, of groups, or of tokens, that the loss is a mean over; 0 where there is nothing to learn.
    /// An update weights its shards by it, so that its gradient is the mean over all of them.
    pub mean_over: f64,
    /// Forward and backward passes of the estimate, in states, if no two states were equal.
    pub samples: usize,
}

impl std::fmt::Debug for Estimator<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Estimator").finish_non_exhaustive()
    }
}

/// The tokens among which a position's distribution is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Support {
    /// The whole vocabulary.
    #[default]
    Whole,
    /// All but this id, the mask.
    AllBut(i64),
    /// The recorded kept set.
    Kept(Vec<i64>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    /// This token is drawn.
    Token(i64),
    /// A token is drawn that is no more probable than any of these (position, token) of the same
    /// state: the position is passed over in low-confidence order. A tie is lost by the position
    /// further right.
    Loses(Vec<(i64, i64)>),
}

/// `coefficient` times the log-probability of an event at one position, prompt included, of one of the unit's
/// states.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Read {
    pub(super) state: usize,
    pub(super) position: i64,
    pub(super) event: Event,
    pub(super) support: Support,
    pub(super) coefficient: f64,
}

/// One ratio of the surrogate, whose log-probability is the sum of its reads.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Factor {
    pub(super) reads: Vec<Read>,
    /// The log-probability under the policy that sampled, if it was recorded; else it is computed.
    pub(super) old: Option<f64>,
    pub(super) advantage: f64,
    /// w, every mean included.
    pub(super) weight: f64,
    pub(super) has_kl: bool,
}

/// Factors that have to be computed together, and their states: token ids, each of the same length.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Unit {
    pub(super) states: Vec<Vec<i64>>,
    pub(super) factors: Vec<Factor>,
}

/// How ratios become a loss: clipped to 1 - `clip_low` ..= 1 + `clip_high`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Surrogate {
    pub(super) clip_low: f64,
    pub(super) clip_high: f64,
    /// The divisor of the logits.
    pub(super) temperature: f64,
    /// beta, the weight of the divergence from the reference.
    pub(super) kl: f64,
    /// Whether the divergence's samples are weighted by rho.
    pub(super) kl_ratio: bool,
}

impl Surrogate {
    /// The settings that GRPO's descendants share: clipping as configured, untempered logits, the plain divergence.
    pub(super) fn untempered(config: &EstimatorConfig) -> Self {
        Self {
            clip_low: config.clip_low.get(),
            clip_high: config.clip_high.get(),
            temperature: 1.0,
            kl: config.kl.get(),
            kl_ratio: false,
        }
    }
}
