//! Weights by their names in LLaDA's checkpoints, in and out of the stacked matrices that the forward
//! pass multiplies with; and the draw of new ones.
//!
//! `q_proj`, `k_proj`, `v_proj` are one matrix in memory, `ff_proj` and `up_proj` another. Gradients and files know
//! only the checkpoint's names. Does not check an adapter's contents.

use std::collections::BTreeMap;

use agrpo_spec::{Purpose, Seed};
use tch::{Device, Kind, Tensor};

use super::config::ModelConfig;
use super::linear::{Leaf, Linear, Lora};
use super::names::{HEAD, PREFIX, module};
use crate::error::{Result, data};
use crate::tensors::NamedTensors;

/// One transformer block; all of one kind, row-major, output features first.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) attn_norm_D: Tensor,
    /// q, k and v, each D x D.
    pub(super) qkv: Linear,
    /// D x D.
    pub(super) attn_out: Linear,
    pub(super) ff_norm_D: Tensor,
    /// ff_proj (the gate) and up_proj, each M x D.
    pub(super) ff_in: Linear,
    /// D x M.
    pub(super) ff_out: Linear,
}

#[derive(Debug)]
pub(super) struct Weights {
    pub(super) wte_VxD: Tensor,
    pub(super) blocks: Vec<Block>,
    pub(super) ln_f_D: Tensor,
    /// The head, V x D.
    pub(super) ff_out: Linear,
}

impl Block {
    fn linears(&self) -> [&Linear; 4] {
        [&self.qkv, &self.attn_out, &self.ff_in, &self.ff_out]
    }

    fn linears_mut(&mut self) -> [&mut Linear; 4] {
        [&mut self.qkv, &mut self.attn_out, &mut self.ff_in, &mut self.ff_out]
    }
}

impl Weights {
    /// Weights from this program's own tensors by the checkpoint's names, in one kind.
    pub(super) fn from_named(
        config: &ModelConfig,
        tensors: &NamedTensors,
        kind: Kind,
    ) -> Result<Self> {
        Self::assemble(config, |names| {
            let take = |name: &String| {
                let tensor = tensors.get(name).ok_or_else(|| data(format!("no tensor {name}")))?;
                Ok(tensor.to_kind(kind).contiguous())
            };
            match names {
                [name] => take(name),
                _ => Ok(Tensor::cat(&names.iter().map(take).collect::<Result<Vec<_>, _>>()?, 0)),
            }
        })
    }

    /// Weights from a source of tensors by their names in the checkpoint, of which several are stacked.
    pub(super) fn assemble(
        config: &ModelConfig,
        stacked: impl Fn(&[String]) -> Result<Tensor>,
    ) -> Result<Self> {
        let alone = |module: &str| stacked(&[format!("{module}.weight")]);
        let linear = |modules: Vec<String>| -> Result<Linear> {
            let names: Vec<_> = modules.iter().map(|module| format!("{module}.weight")).collect();
            Ok(Linear::new(modules, stacked(&names)?))
        };
        let mut blocks = vec![];
        for n in 0..config.n_layers {
            let stack = |names: &[&str]| linear(names.iter().map(|name| module(n, name)).collect());
            blocks.push(Block {
                attn_norm_D: alone(&module(n, "attn_norm"))?,
                qkv: stack(&["q_proj", "k_proj", "v_proj"])?,
                attn_out: stack(&["attn_out"])?,
                ff_norm_D: alone(&module(n, "ff_norm"))?,
                ff_in: stack(&["ff_proj", "up_proj"])?,
                ff_out: stack(&["ff_out"])?,
            });
        }
        Ok(Self {
            wte_VxD: alone(&format!("{PREFIX}wte"))?,
            blocks,
            ln_f_D: alone(&format!("{PREFIX}ln_f"))?,
            ff_out: linear(vec![HEAD.to_owned()])?,
        })
    }

    /// Applies `of` to every tensor, an adapter's included.
    pub(super) fn map(&self, of: impl Fn(&Tensor) -> Tensor) -> Self {
        let block = |block: &Block| Block {
            attn_norm_D: of(&block.attn_norm_D),
            qkv: block.qkv.map(&of),
            attn_out: block.attn_out.map(&of),
            ff_norm_D: of(&block.ff_norm_D),
            ff_in: block.ff_in.map(&of),
            ff_out: block.ff_out.map(&of),
        };
        Self {
            wte_VxD: of(&self.wte_VxD),
            blocks: self.blocks.iter().map(block).collect(),
            ln_f_D: of(&self.ln_f_D),
            ff_out: self.ff_out.map(&of),
        }
    }

    /// Attaches an adapter's matrices, by the checkpoint's names of the modules.
    pub(super) fn adapt(&mut self, mut found: BTreeMap<String, Lora>) {
        self.linears_mut().for_each(|linear| linear.adapt(&mut found));
    }

    /// Replaces every adapted W by W + s B A.
    pub(super) fn merge(&mut self) {
        self.linears_mut().for_each(Linear::merge);
    }

    /// The weights without an adapter, on the same memory.
    pub(super) fn base(&self) -> Self {
        let mut base = self.map(Tensor::shallow_clone);
        base.linears_mut().for_each(Linear::drop_adapters);
        base
    }

    /// Gives the adapter's matrices memory of their own.
    pub(super) fn copy_adapters(&mut self) {
        self.linears_mut().for_each(Linear::copy_adapters);
    }

    /// The lowest block that is trained; `None` where only the head is.
    pub(super) fn lowest_trained(&self) -> Option<usize> {
        self.blocks.iter().position(|block| block.linears().into_iter().any(Linear::is_trained))
    }

    /// Every tensor of the checkpoint that can be trained.
    pub(super) fn leaves(&self) -> Vec<Leaf<'_>> {
        let mut alone =
            vec![(format!("{PREFIX}wte"), &self.wte_VxD), (format!("{PREFIX}ln_f"), &self.ln_f_D)];
        for (n, block) in (0..).zip(&self.blocks) {
            alone.push((module(n, "attn_norm"), &block.attn_norm_D));
            alone.push((module(n, "ff_norm"), &block.ff_norm_D));
        }
        let alone = alone.into_iter().map(|(name, t)| (vec![format!("{name}.weight")], t));
        alone.chain(self.linears().map(Linear::weights)).collect()
    }

    /// The adapter's matrices alone.
    pub(super) fn adapters(&self) -> Vec<Leaf<'_>> {
        self.linears().flat_map(Linear::adapters).collect()
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        std::iter::once(&self.ff_out).chain(self.blocks.iter().flat_map(Block::linears))
    }

    fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let of_blocks = self.blocks.iter_mut().flat_map(Block::linears_mut);
        std::iter::once(&mut self.ff_out).chain(of_blocks)
    }
}

/// New weights: norms 1, matrices normal with deviation `std`, those that write into the residual
/// stream divided by sqrt(2 * n_layers) (Radford et al., GPT-2). Drawn in Rust from the seed.
pub(super) fn draw(config: &ModelConfig, std: f64, seed: Seed) -> NamedTensors {
    let residual = std / (2.0 * config.n_layers as f64).sqrt();
    let mut named = NamedTensors::new();
    for (index, (name, shape)) in (0u64..).zip(config.tensors()) {
        let tensor = if shape.len() == 1 {
            Tensor::ones(&shape, (Kind::Float, Device::Cpu))
        } else {
            let into_residual = name.contains(".blocks.")
                && (name.ends_with("attn_out.weight") || name.ends_with("ff_out.weight"));
            let std = if into_residual { residual } else { std };
            let count = shape.iter().product::<i64>();
            let count = usize::try_from(count).expect("sizes are positive");
            let values = normal(seed.child(Purpose::Weights, index), count, std);
            Tensor::from_slice(&values).view(&shape[..])
        };
        named.insert(name, tensor);
    }
    named
}

/// Normal numbers by Box and Muller's transform, with elementary functions whose bits are the same
/// on every machine.
fn normal(seed: Seed, count: usize, std: f64) -> Vec<f32> {
    let pairs = u32::try_from(count.div_ceil(2)).expect("a tensor of fewer than 2^33 numbers");
    let mut values = Vec::with_capacity(count + 1);
    for pair in 0..pairs {
        let radius = (-2.0 * libm::log(1.0 - seed.uniform(pair, 0))).sqrt() * std;
        let angle = std::f64::consts::TAU * seed.uniform(pair, 1);
        for value in [radius * libm::cos(angle), radius * libm::sin(angle)] {
            #[expect(clippy::cast_possible_truncation, reason = "weights are f32")]
            values.push(value as f32);
        }
    }
    values.truncate(count);
    values
}
