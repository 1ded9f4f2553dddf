//! The softmax of whole rows of logits by libtorch, differentiable: of other kinds than f32, and on a GPU, where sampler and
//! learner share it as they share `softmax.rs` on the processor. The formulas are the same, and sums are in f64, a
//! [`CHUNK`] at a time. Draws nothing.

use tch::{Kind, Tensor};

use super::row::CHUNK;

/// The distributions of S rows at a temperature.
pub(crate) struct Rows {
    /// (l - max l) / T, S x V, in the kind of the logits; -inf where a token has no probability.
    distance_SV: Tensor,
    /// exp of it, S x V.
    weight_SV: Tensor,
    /// The sums of the weights of each [`CHUNK`] tokens, S x C, f64.
    sums_SC: Tensor,
}

impl Rows {
    /// `impossible_SV` is true at tokens without probability, or has one row for all.
    pub(crate) fn new(
        logits_SV: &Tensor,
        temperature: f64,
        impossible_SV: Option<&Tensor>,
    ) -> Self {
        let scaled_SV = logits_SV / temperature;
        let scaled_SV = match impossible_SV {
            Some(impossible_SV) => scaled_SV.masked_fill(impossible_SV, f64::NEG_INFINITY),
            None => scaled_SV,
        };
        // The maximum cancels out, and so do its derivatives.
        let distance_SV = &scaled_SV - scaled_SV.detach().amax(-1, true);
        let weight_SV = distance_SV.exp();
        let sums_SC = chunk_sums(&weight_SV);
        Self { distance_SV, weight_SV, sums_SC }
    }

    /// The log-probabilities of all tokens, in nats, S x V, in the kind of the logits; NaN in a row without a finite
    /// maximum, or with a NaN.
    pub(crate) fn log_probabilities(&self) -> Tensor {
        &self.distance_SV - self.log_sum_S1().to_kind(self.distance_SV.kind())
    }

    /// The sums of the weights of each [`CHUNK`] tokens, S x C, f64.
    pub(crate) fn sums(&self) -> &Tensor {
        &self.sums_SC
    }

    /// In nats, S x 1, f64.
    pub(crate) fn entropies(&self) -> Tensor {
        // A token without probability has no part.
        let terms_SV =
            (&self.weight_SV * &self.distance_SV).nan_to_num(0.0, None::<f64>, None::<f64>);
        self.log_sum_S1() - sum(&chunk_sums(&terms_SV)) / sum(&self.sums_SC)
    }

    fn log_sum_S1(&self) -> Tensor {
        sum(&self.sums_SC).log()
    }
}

fn sum(t: &Tensor) -> Tensor {
    t.sum_dim_intlist(-1, true, Kind::Double)
}

/// S x V to S x C.
fn chunk_sums(t_SV: &Tensor) -> Tensor {
    let v = t_SV.size()[1];
    let chunk = i64::try_from(CHUNK).unwrap_or(v);
    let whole = v / chunk;
    let body = t_SV.narrow(1, 0, whole * chunk).unflatten(1, [whole, chunk]);
    let body_SC = body.sum_dim_intlist(-1, false, Kind::Double);
    if v == whole * chunk {
        return body_SC;
    }
    Tensor::cat(&[body_SC, sum(&t_SV.narrow(1, whole * chunk, v - whole * chunk))], 1)
}
