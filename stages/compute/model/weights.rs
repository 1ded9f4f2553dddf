//! Weights by their names in LLaDA's checkpoints, in and out of the stacked matrices that the forward
//! pass multiplies with; and the draw of new ones.
//!
//! `q_proj`, `k_proj`, `v_proj` are one matrix in memory, `ff_proj` and `up_proj` another. Gradients and
//! files know only the checkpoint's names. Does not check what an adapter holds.

use std::collections::BTreeMap;

use agrpo_spec::{Purpose, Seed, StageError};
use tch::{Device, Kind, Tensor};

use super::config::ModelConfig;
use super::linear::{Linear, Lora, of_kind};
use super::names::{PREFIX, checkpoint_shapes, head_module, module};
use crate::error::data;
use crate::tensors::NamedTensors;

/// The modules that are stacked in one matrix.
const QKV: [&str; 3] = ["q_proj", "k_proj", "v_proj"];
const FF_IN: [&str; 2] = ["ff_proj", "up_proj"];

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

/// All weights of a model.
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
    /// From a checkpoint's tensors, in one kind: every one accounted for.
    pub(super) fn from_named(
        config: &ModelConfig,
        tensors: &NamedTensors,
        kind: Kind,
    ) -> Result<Self, StageError> {
        let shapes = checkpoint_shapes(config);
        for (name, shape) in &shapes {
            let tensor =
                tensors.get(name).ok_or_else(|| data(format!("the checkpoint lacks {name}")))?;
            if tensor.size() != *shape {
                let found = tensor.size();
                return Err(data(format!("{name} has the shape {found:?}, expected {shape:?}")));
            }
        }
        let is_known =
            |name: &String| shapes.binary_search_by(|(known, _)| known.cmp(name)).is_ok();
        if let Some(extra) = tensors.keys().find(|name| !is_known(name)) {
            return Err(data(format!("the checkpoint has an unknown tensor {extra}")));
        }
        let take = |name: &str| Ok(tensors[name].to_kind(kind).contiguous());
        Self::assemble(config, take, |names| {
            let parts = names.iter().map(|name| take(name));
            Ok(Tensor::cat(&parts.collect::<Result<Vec<_>, StageError>>()?, 0))
        })
    }

    /// From a source of tensors by their names in the checkpoint: of one, and of several one below the
    /// other, which become one matrix.
    pub(super) fn assemble(
        config: &ModelConfig,
        one: impl Fn(&str) -> Result<Tensor, StageError>,
        stacked: impl Fn(&[String]) -> Result<Tensor, StageError>,
    ) -> Result<Self, StageError> {
        let alone = |module: &str| one(&format!("{module}.weight"));
        let linear = |modules: Vec<String>| -> Result<Linear, StageError> {
            let names: Vec<_> = modules.iter().map(|module| format!("{module}.weight")).collect();
            Ok(Linear::new(modules, stacked(&names)?))
        };
        let mut blocks = vec![];
        for n in 0..config.n_layers {
            let stack = |names: &[&str]| linear(names.iter().map(|name| module(n, name)).collect());
            blocks.push(Block {
                attn_norm_D: alone(&module(n, "attn_norm"))?,
                qkv: stack(&QKV)?,
                attn_out: stack(&["attn_out"])?,
                ff_norm_D: alone(&module(n, "ff_norm"))?,
                ff_in: stack(&FF_IN)?,
                ff_out: stack(&["ff_out"])?,
            });
        }
        Ok(Self {
            wte_VxD: alone(&format!("{PREFIX}wte"))?,
            blocks,
            ln_f_D: alone(&format!("{PREFIX}ln_f"))?,
            ff_out: linear(vec![head_module()])?,
        })
    }

    /// A copy in another kind, without gradients.
    pub(super) fn to_kind(&self, kind: Kind) -> Self {
        self.map(|tensor| of_kind(tensor, kind), |linear| linear.to_kind(kind))
    }

    /// The same on the same memory, with gradients of their own.
    pub(super) fn handles(&self) -> Self {
        self.map(Tensor::detach, Linear::handles)
    }

    fn map(&self, tensor: impl Fn(&Tensor) -> Tensor, linear: impl Fn(&Linear) -> Linear) -> Self {
        let block = |block: &Block| Block {
            attn_norm_D: tensor(&block.attn_norm_D),
            qkv: linear(&block.qkv),
            attn_out: linear(&block.attn_out),
            ff_norm_D: tensor(&block.ff_norm_D),
            ff_in: linear(&block.ff_in),
            ff_out: linear(&block.ff_out),
        };
        Self {
            wte_VxD: tensor(&self.wte_VxD),
            blocks: self.blocks.iter().map(block).collect(),
            ln_f_D: tensor(&self.ln_f_D),
            ff_out: linear(&self.ff_out),
        }
    }

    /// Moves every matrix that is elsewhere to a device.
    pub(super) fn move_to(&mut self, device: Device) {
        let norms = self.blocks.iter_mut().flat_map(|b| [&mut b.attn_norm_D, &mut b.ff_norm_D]);
        for tensor in norms.chain([&mut self.wte_VxD, &mut self.ln_f_D]) {
            *tensor = tensor.detach().to_device(device);
        }
        self.ff_out.move_to(device);
        self.blocks.iter_mut().flat_map(Block::linears_mut).for_each(|l| l.move_to(device));
    }

    /// Attaches an adapter's matrices, by the checkpoint's names of the modules.
    pub(super) fn adapt(&mut self, mut found: BTreeMap<String, Lora>) {
        self.ff_out.adapt(&mut found);
        for linear in self.blocks.iter_mut().flat_map(Block::linears_mut) {
            linear.adapt(&mut found);
        }
    }

    /// W + s B A in place of every adapted W.
    pub(super) fn merge(&mut self) {
        self.ff_out.merge();
        self.blocks.iter_mut().flat_map(Block::linears_mut).for_each(Linear::merge);
    }

    /// Without an adapter, on the same memory.
    pub(super) fn base(&self) -> Self {
        self.map(Tensor::shallow_clone, Linear::base)
    }

    /// The lowest block that is trained; `None` where only the head is.
    pub(super) fn lowest_trained(&self) -> Option<usize> {
        self.blocks.iter().position(|block| block.linears().into_iter().any(Linear::is_trained))
    }

    /// By the checkpoint's names; `of` picks what is read off each tensor (itself, its gradient).
    pub(super) fn to_named(&self, of: impl Fn(&Tensor) -> Tensor) -> NamedTensors {
        let mut named = NamedTensors::new();
        for (name, norm_or_embedding) in self.unstacked() {
            named.insert(format!("{name}.weight"), of(norm_or_embedding));
        }
        for linear in self.linears() {
            linear.name_weights(&mut named, &of);
        }
        named
    }

    /// The adapter's matrices alone, by PEFT's names.
    pub(super) fn lora_to_named(&self, of: impl Fn(&Tensor) -> Tensor) -> NamedTensors {
        let mut named = NamedTensors::new();
        for linear in self.linears() {
            linear.name_lora(&mut named, &of);
        }
        named
    }

    /// Every tensor of the checkpoint that can be trained.
    pub(super) fn leaves(&self) -> Vec<&Tensor> {
        let unstacked = self.unstacked().into_iter().map(|(_, tensor)| tensor);
        unstacked.chain(self.linears().map(Linear::leaf)).collect()
    }

    /// The adapter's matrices.
    pub(super) fn lora_leaves(&self) -> Vec<&Tensor> {
        self.linears().flat_map(Linear::lora_leaves).collect()
    }

    /// Embedding and norms, with their modules.
    fn unstacked(&self) -> Vec<(String, &Tensor)> {
        let mut tensors =
            vec![(format!("{PREFIX}wte"), &self.wte_VxD), (format!("{PREFIX}ln_f"), &self.ln_f_D)];
        for (n, block) in (0..).zip(&self.blocks) {
            tensors.push((module(n, "attn_norm"), &block.attn_norm_D));
            tensors.push((module(n, "ff_norm"), &block.ff_norm_D));
        }
        tensors
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        std::iter::once(&self.ff_out).chain(self.blocks.iter().flat_map(Block::linears))
    }
}

/// New weights: norms 1, matrices normal with deviation `std`, those that write into the residual
/// stream divided by sqrt(2 * n_layers) (Radford et al., GPT-2). Drawn in Rust from the seed.
pub(super) fn draw(config: &ModelConfig, std: f64, seed: Seed) -> NamedTensors {
    #[expect(clippy::cast_precision_loss, reason = "layers are few")]
    let residual = std / (2.0 * config.n_layers as f64).sqrt();
    let mut named = NamedTensors::new();
    for (index, (name, shape)) in (0u64..).zip(checkpoint_shapes(config)) {
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
