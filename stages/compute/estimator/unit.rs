//! What estimators are made of: states, what is read off them, ratios.
//!
//! A *read* is the log-probability of an event at one position of a state, a *factor* one ratio of the
//! policy gradient, made of one or more reads, a *unit* the factors that share states. Draws and computes
//! nothing; `pass.rs` turns units into a loss.

use agrpo_spec::EstimatorConfig;

/// A kind of estimator, applied to one batch: numbered units, built on demand.
pub trait Estimator {
    /// How many units there are.
    fn units(&self) -> usize;
    /// One of them.
    fn unit(&self, n: usize) -> Unit;
    /// How ratios become a loss.
    fn surrogate(&self) -> Surrogate;
    /// The number of completions, or of tokens, that the loss is a mean over; 0 where there is nothing to learn.
    /// An update weights its shards by it, so that its gradient is the mean over all of them.
    fn mean_over(&self) -> f64;
    /// Forward and backward passes of the estimate, in states, if no two states were equal.
    fn samples(&self) -> usize;
}

/// The tokens among which a position's distribution is taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Support {
    /// The whole vocabulary.
    Whole,
    /// All but this id, the mask.
    AllBut(i64),
    /// These ids alone, the recorded kept set.
    Kept(Vec<i64>),
}

/// What a read is the probability of.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// This token is drawn.
    Token(i64),
    /// A token is drawn that is no more probable than any of these (position, token) of the same
    /// state: the position is passed over in low-confidence order. A tie is lost by the position
    /// further right.
    Loses(Vec<(i64, i64)>),
}

/// The log-probability of an event at one position of one of the unit's states.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// Which of the unit's states.
    pub state: usize,
    /// Position in the sequence, prompt included.
    pub position: i64,
    /// Of what.
    pub event: Event,
    /// Among which tokens.
    pub support: Support,
    /// What the log-probability is multiplied by.
    pub coefficient: f64,
}

/// One ratio of the surrogate.
#[derive(Clone, Debug, PartialEq)]
pub struct Factor {
    /// Its log-probability is their sum.
    pub reads: Vec<Read>,
    /// The log-probability under the policy that sampled, if it was recorded; else it is computed.
    pub old: Option<f64>,
    /// A.
    pub advantage: f64,
    /// w, every mean included.
    pub weight: f64,
    /// Whether it has a KL term.
    pub has_kl: bool,
}

/// Factors that have to be computed together, and their states.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unit {
    /// Token ids, each of the same length.
    pub states: Vec<Vec<i64>>,
    /// Ratios.
    pub factors: Vec<Factor>,
}

/// How ratios become a loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Surrogate {
    /// From below at 1 - clip_low.
    pub clip_low: f64,
    /// From above at 1 + clip_high.
    pub clip_high: f64,
    /// What logits are divided by.
    pub temperature: f64,
    /// beta, the weight of the divergence from the reference.
    pub kl: f64,
    /// Whether the divergence's samples are weighted by rho.
    pub kl_ratio: bool,
}

impl Surrogate {
    /// What GRPO's descendants share: clipping as configured, untempered logits, the plain divergence.
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
