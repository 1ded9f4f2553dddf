//! A matrix to multiply with, and the low-rank matrices that adapt it.
//!
//! ```text
//! y = W x + s B (A x)      (Hu et al., LoRA, arXiv 2106.09685)
//! ```
//! Modules of a checkpoint that read the same input are stacked in one W: one large product is faster than several
//! small ones. Each module has an A and a B of its own, or none, and names of its own. Does not decide whether W is
//! trained, or A and B.
//!
//! A and B are f32 over a W of half precision, and so is what they compute: their updates are smaller than
//! what half precision can hold, and so are many terms of their gradients. The sum is rounded once.

use std::{collections::BTreeMap, ops::Range};

use tch::{Device, Kind, Tensor};

use crate::{kernels, tensors::length};

/// The matrices that adapt one module. R is their rank, I and O are the module's inputs and outputs.
#[derive(Debug)]
pub(super) struct Lora {
    pub(super) a_RxI: Tensor,
    pub(super) b_OxR: Tensor,
    pub(super) scale: f64,
}

/// One or several modules with equally many outputs.
#[derive(Debug)]
pub(super) struct Linear {
    /// The modules' names in the checkpoint, in the order in which they are stacked.
    modules: Vec<String>,
    /// O counts the outputs of all modules.
    weight_OxI: Tensor,
    lora: Vec<Option<Lora>>,
}

/// libtorch multiplies rows in multiples of this many. Its libraries treat the rows that are left over
/// differently: without this, the result of a row would depend on how many others are computed with it, and the
/// learner's log-probabilities would differ from the sampler's in the last bit.
pub(super) const ROWS: i64 = 8;

/// libtorch multiplies matrices of half precision with one library up to this many multiplications, and with
/// another one above. Rows are added until all of them count as large.
const SMALL_IN_HALF: i64 = 16 * 16 * 16;

/// The kind in which norms and rotations of half precision are computed.
pub(super) fn wide(kind: Kind) -> Kind {
    match kind {
        Kind::BFloat16 | Kind::Half => Kind::Float,
        _ => kind,
    }
}

/// x W', ... x I to ... x O. A row does not depend on the other rows.
pub(super) fn product(x: &Tensor, weight_OxI: &Tensor) -> Tensor {
    if kernels::compute(x) {
        return kernels::linear(x, weight_OxI);
    }
    let mut size = x.size();
    let inputs = size.pop().unwrap_or(1);
    let rows: i64 = size.iter().product();
    let outputs = weight_OxI.size()[0];
    size.push(outputs);
    let x_NxI = x.reshape([rows, inputs]);
    let is_half = wide(x.kind()) != x.kind() && x.device() == Device::Cpu;
    let least = if is_half { SMALL_IN_HALF / (inputs * outputs) + 1 } else { rows };
    let spare = (least - rows).max(0) + (-rows.max(least)).rem_euclid(ROWS);
    if spare == 0 {
        return x_NxI.linear(weight_OxI, None::<&Tensor>).view(&size[..]);
    }
    let padded = x_NxI.constant_pad_nd([0, 0, 0, spare]);
    padded.linear(weight_OxI, None::<&Tensor>).narrow(0, 0, rows).reshape(size)
}

/// The name of a module's A or B in PEFT's files.
pub(super) fn lora_name(module: &str, matrix: char) -> String {
    format!("base_model.model.{module}.lora_{matrix}.weight")
}

impl Lora {
    fn apply(&self, x: &Tensor) -> Tensor {
        product(&product(x, &self.a_RxI), &self.b_OxR) * self.scale
    }

    fn map(&self, of: impl Fn(&Tensor) -> Tensor) -> Self {
        Self { a_RxI: of(&self.a_RxI), b_OxR: of(&self.b_OxR), scale: self.scale }
    }
}

impl Linear {
    /// Modules, named as in the checkpoint, whose matrices lie one below the other. All have one shape.
    pub(super) fn new(modules: Vec<String>, weight_OxI: Tensor) -> Self {
        let lora = modules.iter().map(|_| None).collect();
        Self { modules, weight_OxI, lora }
    }

    pub(super) fn apply(&self, x: &Tensor) -> Tensor {
        self.adapted(product(x, &self.weight_OxI), x, 0..self.modules.len())
    }

    /// The outputs of some of the stacked modules.
    pub(super) fn apply_some(&self, x: &Tensor, modules: Range<usize>) -> Tensor {
        let outputs = self.outputs();
        let (start, count) = (length(modules.start), length(modules.len()));
        let rows = self.weight_OxI.narrow(0, start * outputs, count * outputs);
        self.adapted(product(x, &rows), x, modules)
    }

    /// Adds the products of the modules' own matrices and `x`.
    fn adapted(&self, y: Tensor, x: &Tensor, modules: Range<usize>) -> Tensor {
        let lora = &self.lora[modules];
        if lora.iter().all(Option::is_none) {
            return y;
        }
        let kind = y.kind();
        let (x, y) = (x.to_kind(wide(kind)), y.to_kind(wide(kind)));
        let change = |lora: &Option<Lora>| match lora {
            Some(lora) => lora.apply(&x),
            None => y.narrow(-1, 0, self.outputs()).zeros_like(),
        };
        let changes: Vec<Tensor> = lora.iter().map(change).collect();
        (y + Tensor::cat(&changes, -1)).to_kind(kind)
    }

    fn outputs(&self) -> i64 {
        self.weight_OxI.size()[0] / length(self.modules.len())
    }

    /// Takes the matrices of its modules out of those that were found.
    pub(super) fn adapt(&mut self, found: &mut BTreeMap<String, Lora>) {
        let (kind, device) = (wide(self.weight_OxI.kind()), self.weight_OxI.device());
        for (module, lora) in self.modules.iter().zip(&mut self.lora) {
            let found = found.remove(module);
            *lora = found.map(|lora| lora.map(|t| of_kind(t, kind).to_device(device)));
        }
    }

    /// Replaces W, A and B by W + s B A, rounded to W's kind. Does not write to W, which may be shared.
    pub(super) fn merge(&mut self) {
        let kind = self.weight_OxI.kind();
        let rows = self.weight_OxI.chunk(length(self.modules.len()), 0);
        let merge = |(rows_OxI, lora): (Tensor, &Option<Lora>)| match lora {
            Some(Lora { a_RxI, b_OxR, scale }) => {
                (rows_OxI.to_kind(wide(kind)) + b_OxR.matmul(a_RxI) * *scale).to_kind(kind)
            }
            None => rows_OxI,
        };
        if self.lora.iter().any(Option::is_some) {
            let merged: Vec<Tensor> = rows.into_iter().zip(&self.lora).map(merge).collect();
            *self = Self::new(std::mem::take(&mut self.modules), Tensor::cat(&merged, 0));
        }
    }

    pub(super) fn drop_adapters(&mut self) {
        self.lora.fill_with(|| None);
    }

    /// The same modules with `of` applied to every matrix.
    pub(super) fn map(&self, of: impl Fn(&Tensor) -> Tensor) -> Self {
        let lora = self.lora.iter().map(|lora| lora.as_ref().map(|lora| lora.map(&of)));
        let (modules, weight_OxI) = (self.modules.clone(), of(&self.weight_OxI));
        Self { modules, weight_OxI, lora: lora.collect() }
    }

    pub(super) fn is_trained(&self) -> bool {
        self.weight_OxI.requires_grad() || self.adapters().iter().any(|(_, t)| t.requires_grad())
    }

    /// The stacked matrices, with the checkpoint's names of the parts.
    pub(super) fn weights(&self) -> Leaf<'_> {
        let names = self.modules.iter().map(|module| format!("{module}.weight"));
        (names.collect(), &self.weight_OxI)
    }

    /// The matrices that adapt the modules, by PEFT's names.
    pub(super) fn adapters(&self) -> Vec<Leaf<'_>> {
        let mut leaves = vec![];
        for (module, lora) in self.modules.iter().zip(&self.lora) {
            if let Some(Lora { a_RxI, b_OxR, .. }) = lora {
                leaves.push((vec![lora_name(module, 'A')], a_RxI));
                leaves.push((vec![lora_name(module, 'B')], b_OxR));
            }
        }
        leaves
    }
}

/// A tensor that can be trained, with the names of the parts that are stacked in it.
pub(super) type Leaf<'a> = (Vec<String>, &'a Tensor);

/// A copy in another kind, without gradients.
pub(super) fn of_kind(tensor: &Tensor, kind: Kind) -> Tensor {
    tensor.detach().to_dtype(kind, false, true)
}
