//! A linear layer with adapters by libtorch: half precision, f64, and every kind on a GPU.
//!
//! ```text
//! y = x W' + (x A') (s B)'      one product with the A of all modules; each B's is added to the y of its module
//! dx = dy W + dh A,  dA = dh' x,  dB = s dy' h,   h = x A',  dh = dy (s B)
//! ```
//! Computes in the kind of x: A and s B, which are f32 masters over a W of half precision, are cast once per pass, and
//! their gradients are cast back. Makes no f32 copy of activations, and keeps x and h alone for the backward pass. W
//! gets no gradient: it is not trained beside its adapters.

use tch::{Kind, Tensor, no_grad_guard};

use super::product::{product, with_spare_rows};
use crate::kernels::differentiable;

/// The matrices that adapt one module. R is their rank, I and O are the module's inputs and outputs.
#[derive(Debug)]
pub(in crate::model) struct Lora {
    pub(in crate::model) a_RxI: Tensor,
    pub(in crate::model) b_OxR: Tensor,
    pub(in crate::model) scale: f64,
}

/// A module of a checkpoint.
#[derive(Debug)]
pub(in crate::model) struct Module {
    /// In the checkpoint.
    pub(in crate::model) name: String,
    pub(in crate::model) outputs: i64,
    pub(in crate::model) lora: Option<Lora>,
}

impl Lora {
    /// s B (A x).
    pub(super) fn apply(&self, x: &Tensor) -> Tensor {
        product(&product(x, &self.a_RxI), &self.b_OxR) * self.scale
    }

    pub(super) fn map(&self, of: impl Fn(&Tensor) -> Tensor) -> Self {
        Self { a_RxI: of(&self.a_RxI), b_OxR: of(&self.b_OxR), scale: self.scale }
    }
}

/// The adapters of stacked modules, cast to the kind of a pass. S is the sum of their ranks.
struct Cast {
    a_SxI: Tensor,
    /// s B of each adapted module.
    b_OxR: Vec<Tensor>,
}

impl Cast {
    fn new(adapters: &[(i64, Lora)], kind: Kind) -> Self {
        let a: Vec<&Tensor> = adapters.iter().map(|(_, lora)| &lora.a_RxI).collect();
        let b = |(_, lora): &(i64, Lora)| (&lora.b_OxR * lora.scale).to_kind(kind);
        Self { a_SxI: Tensor::cat(&a, 0).to_kind(kind), b_OxR: adapters.iter().map(b).collect() }
    }
}

/// y, ... x I to ... x O, of stacked modules of which some have an adapter. A row does not depend on the other rows.
pub(super) fn adapted(x: &Tensor, weight_OxI: &Tensor, modules: &[Module]) -> Tensor {
    let mut inputs = vec![x];
    // Each with the first of its module's outputs.
    let (mut adapters, mut asked) = (vec![], vec![]);
    let mut output = 0;
    for Module { outputs, lora, .. } in modules {
        let first = output;
        output += outputs;
        let Some(lora) = lora else { continue };
        inputs.extend([&lora.a_RxI, &lora.b_OxR]);
        asked.push((lora.a_RxI.requires_grad(), lora.b_OxR.requires_grad()));
        adapters.push((first, lora.map(Tensor::detach)));
    }
    let (x_NI, weight_OxI) = (x.detach().flatten(0, -2), weight_OxI.detach());
    let (h_NS, y) = forward(&x_NI, &weight_OxI, &adapters);
    let mut size = x.size();
    size.pop();
    size.push(weight_OxI.size()[0]);
    let (x_size, is_x_asked) = (x.size(), x.requires_grad());
    differentiable(&inputs, y.view(&size[..]), move |dy| {
        let dy_NO = dy.reshape([-1, weight_OxI.size()[0]]);
        let cast = Cast::new(&adapters, dy_NO.kind());
        let (dh_NS, gradients) = of_adapters(&dy_NO, (&x_NI, &h_NS), (&adapters, &cast), &asked);
        let dx = is_x_asked.then(|| {
            let mut dx_NI = dy_NO.matmul(&weight_OxI);
            drop(dx_NI.addmm_(&dh_NS, &cast.a_SxI));
            dx_NI.view(&x_size[..])
        });
        std::iter::once(dx).chain(gradients).collect()
    })
}

/// h and y, without a graph.
fn forward(x_NI: &Tensor, weight_OxI: &Tensor, adapters: &[(i64, Lora)]) -> (Tensor, Tensor) {
    let _no_grad = no_grad_guard();
    let Cast { a_SxI, b_OxR } = Cast::new(adapters, x_NI.kind());
    let rows = x_NI.size()[0];
    let matrices = [weight_OxI, &a_SxI].into_iter().chain(&b_OxR);
    let smallest = matrices.map(|matrix| matrix.size().iter().product()).min().unwrap_or(1);
    let padded_NI = with_spare_rows(x_NI, smallest);
    let y_NO = padded_NI.linear(weight_OxI, None::<&Tensor>);
    let h_NS = padded_NI.linear(&a_SxI, None::<&Tensor>);
    let mut first = 0;
    for ((output, _), b_OxR) in adapters.iter().zip(&b_OxR) {
        let (outputs, rank) = (b_OxR.size()[0], b_OxR.size()[1]);
        let h_NR = h_NS.narrow(1, first, rank);
        drop(y_NO.narrow(1, *output, outputs).addmm_(&h_NR, &b_OxR.tr()));
        first += rank;
    }
    (h_NS.narrow(0, 0, rows), y_NO.narrow(0, 0, rows))
}

/// dh, and the gradients of each A and B that are asked for.
fn of_adapters(
    dy_NO: &Tensor,
    (x_NI, h_NS): (&Tensor, &Tensor),
    (adapters, cast): (&[(i64, Lora)], &Cast),
    asked: &[(bool, bool)],
) -> (Tensor, Vec<Option<Tensor>>) {
    let (mut dh, mut of_b, mut first) = (vec![], vec![], 0);
    for (((output, lora), b_OxR), (_, is_b_asked)) in adapters.iter().zip(&cast.b_OxR).zip(asked) {
        let (outputs, rank) = (b_OxR.size()[0], b_OxR.size()[1]);
        let dy_NO = dy_NO.narrow(1, *output, outputs);
        dh.push(dy_NO.matmul(b_OxR));
        of_b.push(is_b_asked.then(|| {
            let db_OR = dy_NO.tr().matmul(&h_NS.narrow(1, first, rank));
            db_OR.to_kind(lora.b_OxR.kind()) * lora.scale
        }));
        first += rank;
    }
    let dh_NS = Tensor::cat(&dh, 1);
    let da_SI = asked.iter().any(|(a, _)| *a).then(|| dh_NS.tr().matmul(x_NI));
    let (mut all, mut first) = (vec![], 0);
    for (((_, lora), of_b), (is_a_asked, _)) in adapters.iter().zip(of_b).zip(asked) {
        let rank = lora.a_RxI.size()[0];
        let of_a = da_SI.as_ref().filter(|_| *is_a_asked);
        let cut = |da_SI: &Tensor| da_SI.narrow(0, first, rank).to_kind(lora.a_RxI.kind());
        all.extend([of_a.map(cut), of_b]);
        first += rank;
    }
    (dh_NS, all)
}

#[cfg(test)]
mod tests;
