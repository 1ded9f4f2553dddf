//! What follows attention in a block: one SwiGLU, or several experts of which each token chooses a few. Knows no name of a
//! tensor.
//!
//! ```text
//! swiglu(x)  = down(silu(gate(x)) * up(x))                           (Shazeer, arXiv 2002.05202)
//! experts(x) = sum over the T largest p_e of p_e swiglu_e(x),  p = softmax(router x) over all experts
//! ```
//! as in LLaDA-MoE's own code, which does not divide by the sum of the chosen p_e. A token's result does not depend on the
//! tokens beside it: experts are added in their order.

use tch::Tensor;

use super::linear::{Linear, product, wide};
use crate::kernels;

#[derive(Debug)]
pub(super) enum Mlp {
    Dense(SwiGlu),
    Experts {
        /// X x D.
        router_XxD: Tensor,
        /// How many experts a token chooses, T.
        per_token: i64,
        experts: Vec<SwiGlu>,
    },
}

/// A SwiGLU's matrices.
#[derive(Debug)]
pub(super) struct SwiGlu {
    /// Gates and values, each M x D.
    pub(super) ff_in: Linear,
    /// D x M.
    pub(super) ff_out: Linear,
}

impl SwiGlu {
    fn apply(&self, x: &Tensor) -> Tensor {
        self.ff_out.apply(&swiglu(&self.ff_in.apply(x)))
    }

    fn map(&self, of: &impl Fn(&Tensor) -> Tensor) -> Self {
        Self { ff_in: self.ff_in.map(of), ff_out: self.ff_out.map(of) }
    }
}

impl Mlp {
    /// ... x D to ... x D.
    pub(super) fn apply(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Dense(swiglu) => swiglu.apply(x),
            Self::Experts { router_XxD, per_token, experts } => {
                let x_ND = x.flatten(0, -2);
                let p_NX = product(&x_ND, router_XxD).softmax(-1, wide(x.kind()));
                let (p_NT, chosen_NT) = p_NX.topk(*per_token, -1, true, true);
                let mut y_ND = x_ND.zeros_like();
                for (number, expert) in (0i64..).zip(experts) {
                    let own_NT = chosen_NT.eq(number);
                    let rows_R = own_NT.any_dim(1, false).nonzero().squeeze_dim(1);
                    if rows_R.numel() == 0 {
                        continue;
                    }
                    let p_N1 = (&p_NT * own_NT).sum_dim_intlist(1, true, p_NT.kind());
                    let p_R1 = p_N1.index_select(0, &rows_R).to_kind(x.kind());
                    let y_RD = expert.apply(&x_ND.index_select(0, &rows_R)) * p_R1;
                    y_ND = y_ND.index_add(0, &rows_R, &y_RD);
                }
                y_ND.view_as(x)
            }
        }
    }

    fn swiglus(&self) -> &[SwiGlu] {
        match self {
            Self::Dense(swiglu) => std::slice::from_ref(swiglu),
            Self::Experts { experts, .. } => experts,
        }
    }

    fn swiglus_mut(&mut self) -> &mut [SwiGlu] {
        match self {
            Self::Dense(swiglu) => std::slice::from_mut(swiglu),
            Self::Experts { experts, .. } => experts,
        }
    }

    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.swiglus().iter().flat_map(|swiglu| [&swiglu.ff_in, &swiglu.ff_out])
    }

    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.swiglus_mut().iter_mut().flat_map(|swiglu| [&mut swiglu.ff_in, &mut swiglu.ff_out])
    }

    /// The matrix by which tokens choose their experts.
    pub(super) fn router(&self) -> Option<&Tensor> {
        match self {
            Self::Dense(_) => None,
            Self::Experts { router_XxD, .. } => Some(router_XxD),
        }
    }

    /// The same with `of` applied to every tensor.
    pub(super) fn map(&self, of: &impl Fn(&Tensor) -> Tensor) -> Self {
        match self {
            Self::Dense(swiglu) => Self::Dense(swiglu.map(of)),
            Self::Experts { router_XxD, per_token, experts } => Self::Experts {
                router_XxD: of(router_XxD),
                per_token: *per_token,
                experts: experts.iter().map(|expert| expert.map(of)).collect(),
            },
        }
    }
}

/// silu(g) u, of gates and values beside each other: ... x 2M to ... x M.
pub(super) fn swiglu(gated: &Tensor) -> Tensor {
    if kernels::compute(gated) {
        return kernels::swiglu(gated);
    }
    let parts = gated.chunk(2, -1);
    parts[0].silu() * &parts[1]
}
