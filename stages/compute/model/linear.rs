//! A matrix to multiply with, and the low-rank matrices that adapt it.
//!
//! ```text
//! y = W x + b + s B (A x)      (Hu et al., LoRA, arXiv 2106.09685)
//! ```
//! Modules of a checkpoint that read the same input are stacked in one W: one large product is faster than several
//! small ones. Each module has an A and a B of its own, or none, and names of its own. Does not decide whether W is
//! trained, or A and B.
//!
//! A and B are f32 over a W of half precision, since their updates are smaller than what half precision can hold. A pass
//! computes with them in W's kind (`linear/adapted.rs`), as in the published runs; sums inside products are f32.

use std::{collections::BTreeMap, ops::Range};

use tch::{Kind, Tensor};

use crate::kernels;

mod adapted;
mod product;

use adapted::adapted;
pub(super) use adapted::{Lora, Module};
pub(super) use product::{ROWS, product, wide};

/// One or several modules that read the same input.
#[derive(Debug)]
pub(super) struct Linear {
    /// In the order in which they are stacked.
    modules: Vec<Module>,
    /// O counts the outputs of all modules.
    weight_OxI: Tensor,
    /// Added to the outputs, in families that have it.
    bias_O: Option<Tensor>,
}

/// The name of a module's A or B in PEFT's files.
pub(super) fn lora_name(module: &str, matrix: char) -> String {
    format!("base_model.model.{module}.lora_{matrix}.weight")
}

impl Linear {
    /// Modules, by their names in the checkpoint and their numbers of outputs, whose matrices lie one below the other.
    pub(super) fn new(
        modules: Vec<(String, i64)>,
        weight_OxI: Tensor,
        bias_O: Option<Tensor>,
    ) -> Self {
        let module = |(name, outputs)| Module { name, outputs, lora: None };
        Self { modules: modules.into_iter().map(module).collect(), weight_OxI, bias_O }
    }

    pub(super) fn apply(&self, x: &Tensor) -> Tensor {
        with_bias(self.adapted(x, &self.weight_OxI, &self.modules), self.bias_O.as_ref())
    }

    /// The outputs of some of the stacked modules.
    pub(super) fn apply_some(&self, x: &Tensor, modules: Range<usize>) -> Tensor {
        let outputs = |modules: &[Module]| modules.iter().map(|module| module.outputs).sum();
        let start = outputs(&self.modules[..modules.start]);
        let modules = &self.modules[modules];
        let some = |whole: &Tensor| whole.narrow(0, start, outputs(modules));
        let y = self.adapted(x, &some(&self.weight_OxI), modules);
        with_bias(y, self.bias_O.as_ref().map(some).as_ref())
    }

    /// The outputs of modules whose rows of W these are, with those of their own matrices.
    fn adapted(&self, x: &Tensor, rows_OxI: &Tensor, modules: &[Module]) -> Tensor {
        if modules.iter().all(|module| module.lora.is_none()) {
            return product(x, rows_OxI);
        }
        if !kernels::compute(x) {
            return adapted(x, rows_OxI, modules);
        }
        let y = product(x, rows_OxI);
        let change = |module: &Module| match &module.lora {
            Some(lora) => lora.apply(x),
            None => y.narrow(-1, 0, module.outputs).zeros_like(),
        };
        let changes: Vec<Tensor> = modules.iter().map(change).collect();
        y + Tensor::cat(&changes, -1)
    }

    /// Takes the matrices of its modules out of those that were found.
    pub(super) fn adapt(&mut self, found: &mut BTreeMap<String, Lora>) {
        let (kind, device) = (wide(self.weight_OxI.kind()), self.weight_OxI.device());
        for module in &mut self.modules {
            let found = found.remove(&module.name);
            module.lora = found.map(|lora| lora.map(|t| of_kind(t, kind).to_device(device)));
        }
    }

    /// Replaces W, A and B by W + s B A, rounded to W's kind. Does not write to W, which may be shared.
    pub(super) fn merge(&mut self) {
        if self.modules.iter().all(|module| module.lora.is_none()) {
            return;
        }
        let kind = self.weight_OxI.kind();
        let outputs: Vec<i64> = self.modules.iter().map(|module| module.outputs).collect();
        let rows = self.weight_OxI.split_with_sizes(&outputs, 0);
        let merge = |(rows_OxI, module): (Tensor, &Module)| match &module.lora {
            Some(Lora { a_RxI, b_OxR, scale }) => {
                (rows_OxI.to_kind(wide(kind)) + b_OxR.matmul(a_RxI) * *scale).to_kind(kind)
            }
            None => rows_OxI,
        };
        let merged: Vec<Tensor> = rows.into_iter().zip(&self.modules).map(merge).collect();
        self.weight_OxI = Tensor::cat(&merged, 0);
        self.drop_adapters();
    }

    pub(super) fn copy_adapters(&mut self) {
        for lora in self.modules.iter_mut().filter_map(|module| module.lora.as_mut()) {
            *lora = lora.map(Tensor::copy);
        }
    }

    pub(super) fn drop_adapters(&mut self) {
        self.modules.iter_mut().for_each(|module| module.lora = None);
    }

    /// The same modules with `of` applied to every tensor.
    pub(super) fn map(&self, of: impl Fn(&Tensor) -> Tensor) -> Self {
        let module = |module: &Module| Module {
            name: module.name.clone(),
            outputs: module.outputs,
            lora: module.lora.as_ref().map(|lora| lora.map(&of)),
        };
        let modules = self.modules.iter().map(module).collect();
        Self { modules, weight_OxI: of(&self.weight_OxI), bias_O: self.bias_O.as_ref().map(&of) }
    }

    pub(super) fn is_trained(&self) -> bool {
        self.weight_OxI.requires_grad() || self.adapters().iter().any(|(_, t)| t.requires_grad())
    }

    /// The stacked matrices and biases, with the checkpoint's names of the parts.
    pub(super) fn weights(&self) -> Vec<Leaf<'_>> {
        let parts = |end: &str| {
            let part = |module: &Module| (format!("{}.{end}", module.name), module.outputs);
            self.modules.iter().map(part).collect()
        };
        let bias = self.bias_O.as_ref().map(|bias| (parts("bias"), bias));
        std::iter::once((parts("weight"), &self.weight_OxI)).chain(bias).collect()
    }

    /// The matrices that adapt the modules, by PEFT's names.
    pub(super) fn adapters(&self) -> Vec<Leaf<'_>> {
        let mut leaves = vec![];
        for Module { name, lora, .. } in &self.modules {
            if let Some(Lora { a_RxI, b_OxR, .. }) = lora {
                for (matrix, tensor) in [('A', a_RxI), ('B', b_OxR)] {
                    leaves.push((vec![(lora_name(name, matrix), tensor.size()[0])], tensor));
                }
            }
        }
        leaves
    }
}

fn with_bias(y: Tensor, bias_O: Option<&Tensor>) -> Tensor {
    match bias_O {
        Some(bias_O) => y + bias_O,
        None => y,
    }
}

/// A tensor that can be trained, with the names and the rows of the parts that are stacked in it.
pub(super) type Leaf<'a> = (Vec<(String, i64)>, &'a Tensor);

/// A copy in another kind, without gradients.
pub(super) fn of_kind(tensor: &Tensor, kind: Kind) -> Tensor {
    tensor.detach().to_dtype(kind, false, true)
}
