//! GRPO in autoregressive order (JustGRPO, arXiv 2601.15165): rollouts write one token at a time from
//! left to right (`rollout.block_tokens = 1`), so that the likelihood is the chain rule's.
//!
//! ```text
//! loss = -1/(C M) sum over rows, t of min(rho_t A, clip(rho_t) A),   log pi(y_t) = log p(y_t | q, y_<t, masks)
//! ```
//! with C the completion's length and M the completions of an update whose advantage is not 0 (with a divergence, which is
//! not published, all that are counted, as each has a term); tempered as sampled.
//! Of an autoregressive model (`model.family = "llama"`) this is GRPO itself: what is behind a position has no part in its
//! distribution, so one pass over the row gives all t (Shao et al., arXiv 2402.03300).
//! Published with every t (`k = "all"`); a number of k draws them uniformly. Source: `logprob_loss`
//! (LeapLabTHU/JustGRPO, eebe50e), whose results `tests/golden/rivals` holds. It differs in three points: there 1e-5 is added to M, against a
//! division by 0, where here nothing is summed; there a
//! distribution is over the whole vocabulary, the mask included, here it is the sampler's, without the mask and under its
//! kept sets; and there tokens after an end-of-sequence count, here a row ends with it.

use agrpo_spec::{EstimatorConfig, Horizon, Seed, StepWeights};

use super::batch::{Batch, count};
use super::unit::{Estimator, Surrogate};
use super::{agrpo::with_draws, timesteps};

pub(super) fn new<'a>(batch: &'a Batch<'a>, config: &EstimatorConfig, seed: Seed) -> Estimator<'a> {
    let rows = batch.moving(config.kl.get() > 0.0);
    let config = EstimatorConfig {
        horizon: Horizon::Sampled,
        step_weights: StepWeights::Uniform,
        position_gradient: false,
        ..config.clone()
    };
    let mut draws = timesteps::draw(batch, &rows, &config, seed);
    let completions = count(rows.len());
    draws.iter_mut().for_each(|draw| draw.weight /= completions);
    let estimator = with_draws(batch, &config, draws);
    let surrogate = Surrogate { kl_ratio: false, ..estimator.surrogate };
    Estimator { surrogate, mean_over: completions, ..estimator }
}
