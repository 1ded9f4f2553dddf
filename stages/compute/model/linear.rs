//! A matrix to multiply with, and the low-rank matrices that adapt it.
//!
//! ```text
//! y = W x + s B (A x)      (Hu et al., LoRA, arXiv 2106.09685)
//! ```
//! Modules of a checkpoint that read the same input are stacked in one W: one large product is faster than several
//! small ones. Each module has an A and a B of its own, or none, and names of its own. Does not decide whether W is
//! trained, or A and B.
//!
//! A and B are f32 over a W of half precision, since their updates are smaller than what half precision can hold. A pass
//! computes with them in W's kind (`linear/adapted.rs`), as in the published runs; sums inside products are f32.

use std::{collections::BTreeMap, ops::Range};

use tch::{Kind, Tensor};

use crate::{kernels, tensors::length};

mod adapted;
mod product;

pub(super) use adapted::Lora;
use adapted::adapted;
pub(super) use product::{ROWS, product, wide};

/// One or several modules with equally many outputs.
#[derive(Debug)]
pub(super) struct Linear {
    /// The modules' names in the checkpoint, in the order in which they are stacked.
    modules: Vec<String>,
    /// O counts the outputs of all modules.
    weight_OxI: Tensor,
    lora: Vec<Option<Lora>>,
}

/// The name of a module's A or B in PEFT's files.
pub(super) fn lora_name(module: &str, matrix: char) -> String {
    format!("base_model.model.{module}.lora_{matrix}.weight")
}

impl Linear {
    /// Modules, named as in the checkpoint, whose matrices lie one below the other. All have one shape.
    pub(super) fn new(modules: Vec<String>, weight_OxI: Tensor) -> Self {
        let lora = modules.iter().map(|_| None).collect();
        Self { modules, weight_OxI, lora }
    }

    pub(super) fn apply(&self, x: &Tensor) -> Tensor {
        self.adapted(x, &self.weight_OxI, 0..self.modules.len())
    }

    /// The outputs of some of the stacked modules.
    pub(super) fn apply_some(&self, x: &Tensor, modules: Range<usize>) -> Tensor {
        let outputs = self.outputs();
        let (start, count) = (length(modules.start), length(modules.len()));
        self.adapted(x, &self.weight_OxI.narrow(0, start * outputs, count * outputs), modules)
    }

    /// The outputs of modules whose rows of W these are, with those of their own matrices.
    fn adapted(&self, x: &Tensor, rows_OxI: &Tensor, modules: Range<usize>) -> Tensor {
        let lora = &self.lora[modules];
        if lora.iter().all(Option::is_none) {
            return product(x, rows_OxI);
        }
        if !kernels::compute(x) {
            return adapted(x, rows_OxI, lora);
        }
        let y = product(x, rows_OxI);
        let change = |lora: &Option<Lora>| match lora {
            Some(lora) => lora.apply(x),
            None => y.narrow(-1, 0, self.outputs()).zeros_like(),
        };
        let changes: Vec<Tensor> = lora.iter().map(change).collect();
        y + Tensor::cat(&changes, -1)
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

    pub(super) fn copy_adapters(&mut self) {
        self.lora.iter_mut().flatten().for_each(|lora| *lora = lora.map(Tensor::copy));
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
