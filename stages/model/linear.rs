//! A matrix to multiply with, and the low-rank matrices that adapt it.
//!
//! ```text
//! y = W x + s B (A x)      (Hu et al., LoRA, arXiv 2106.09685)
//! ```
//! Modules of a checkpoint that read the same input are stacked in one W: one large product is faster
//! than several small ones. Each module has an A and a B of its own, or none, and names of its own.
//! Who is trained, W or A and B, is not decided here.

use std::collections::BTreeMap;
use std::ops::Range;

use tch::{Kind, Tensor};

use crate::tensor_file::NamedTensors;

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
    /// One place a module.
    lora: Vec<Option<Lora>>,
}

/// Rows are multiplied in multiples of this many. MKL's kernels treat the rows that are left over
/// differently, in both numerics classes: without this, what a row gives would depend on how many
/// others are computed with it, and the learner's log-probabilities would differ from the sampler's
/// in the last bit.
pub(super) const ROWS: i64 = 8;

/// x W', ... x I to ... x O, each row the same whatever the others are.
fn product(x: &Tensor, weight_OxI: &Tensor) -> Tensor {
    let mut size = x.size();
    let inputs = size.pop().unwrap_or(1);
    let rows: i64 = size.iter().product();
    size.push(weight_OxI.size()[0]);
    let x_NxI = x.reshape([rows, inputs]);
    let spare = (-rows).rem_euclid(ROWS);
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

    fn to_kind(&self, kind: Kind) -> Self {
        Self {
            a_RxI: of_kind(&self.a_RxI, kind),
            b_OxR: of_kind(&self.b_OxR, kind),
            scale: self.scale,
        }
    }
}

impl Linear {
    /// Modules, named as in the checkpoint, whose matrices lie one below the other. All have one shape.
    pub(super) fn new(modules: Vec<String>, weight_OxI: Tensor) -> Self {
        let lora = modules.iter().map(|_| None).collect();
        Self { modules, weight_OxI, lora }
    }

    /// All outputs.
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

    /// Adds what the modules' own matrices make of `x`.
    fn adapted(&self, y: Tensor, x: &Tensor, modules: Range<usize>) -> Tensor {
        let lora = &self.lora[modules];
        if lora.iter().all(Option::is_none) {
            return y;
        }
        let change = |lora: &Option<Lora>| match lora {
            Some(lora) => lora.apply(x),
            None => y.narrow(-1, 0, self.outputs()).zeros_like(),
        };
        let changes: Vec<Tensor> = lora.iter().map(change).collect();
        y + Tensor::cat(&changes, -1)
    }

    /// Outputs of one module.
    fn outputs(&self) -> i64 {
        self.weight_OxI.size()[0] / length(self.modules.len())
    }

    /// Takes the matrices of its modules out of those that were found.
    pub(super) fn adapt(&mut self, found: &mut BTreeMap<String, Lora>) {
        for (module, place) in self.modules.iter().zip(&mut self.lora) {
            *place = found.remove(module).map(|lora| lora.to_kind(self.weight_OxI.kind()));
        }
    }

    pub(super) fn to_kind(&self, kind: Kind) -> Self {
        Self {
            modules: self.modules.clone(),
            weight_OxI: of_kind(&self.weight_OxI, kind),
            lora: self.lora.iter().map(|l| l.as_ref().map(|l| l.to_kind(kind))).collect(),
        }
    }

    /// The checkpoint's matrices, stacked.
    pub(super) fn leaf(&self) -> &Tensor {
        &self.weight_OxI
    }

    /// The matrices that adapt the modules.
    pub(super) fn lora_leaves(&self) -> impl Iterator<Item = &Tensor> {
        self.lora.iter().flatten().flat_map(|lora| [&lora.a_RxI, &lora.b_OxR])
    }

    /// What `of` reads off the stacked matrices, by the checkpoint's names.
    pub(super) fn name_weights(&self, named: &mut NamedTensors, of: impl Fn(&Tensor) -> Tensor) {
        let parts = of(&self.weight_OxI).chunk(length(self.modules.len()), 0);
        let names = self.modules.iter().map(|module| format!("{module}.weight"));
        named.extend(names.zip(parts));
    }

    /// What `of` reads off the matrices that adapt, by PEFT's names.
    pub(super) fn name_lora(&self, named: &mut NamedTensors, of: impl Fn(&Tensor) -> Tensor) {
        for (module, lora) in self.modules.iter().zip(&self.lora) {
            if let Some(lora) = lora {
                named.insert(lora_name(module, 'A'), of(&lora.a_RxI));
                named.insert(lora_name(module, 'B'), of(&lora.b_OxR));
            }
        }
    }
}

/// A copy in another kind, without gradients.
pub(super) fn of_kind(tensor: &Tensor, kind: Kind) -> Tensor {
    tensor.detach().to_dtype(kind, false, true)
}

fn length(n: usize) -> i64 {
    i64::try_from(n).expect("modules are few")
}
