//! Weights by their names in a family's checkpoints, in and out of the stacked matrices that the forward
//! pass multiplies with; and the draw of new ones.
//!
//! Those of queries, keys and values are one matrix in memory, those of gates and values of the SwiGLU another. Gradients
//! and files know only the checkpoint's names. Does not check an adapter's contents.

use std::collections::BTreeMap;

use agrpo_spec::{Purpose, Seed, TensorNames};
use tch::{Device, Kind, Tensor};

use super::config::ModelConfig;
use super::linear::{Leaf, Linear, Lora};
use super::mlp::{Mlp, SwiGlu};
use super::names::{of_block, of_expert, parts};
use crate::error::{Result, data};
use crate::tensors::NamedTensors;

/// One transformer block; all of one kind, row-major, output features first.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) attn_norm_D: Tensor,
    /// Queries, H E x D, and keys and values, each K E x D.
    pub(super) qkv: Linear,
    /// Of the heads of queries and of keys, where the family has them.
    pub(super) qk_norms_E: Option<[Tensor; 2]>,
    /// D x H E.
    pub(super) attn_out: Linear,
    pub(super) ff_norm_D: Tensor,
    pub(super) mlp: Mlp,
}

#[derive(Debug)]
pub(super) struct Weights {
    names: &'static TensorNames,
    pub(super) wte_VxD: Tensor,
    pub(super) blocks: Vec<Block>,
    pub(super) ln_f_D: Tensor,
    /// The head, V x D.
    pub(super) ff_out: Linear,
}

impl Block {
    fn linears(&self) -> impl Iterator<Item = &Linear> {
        [&self.qkv, &self.attn_out].into_iter().chain(self.mlp.linears())
    }

    fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        [&mut self.qkv, &mut self.attn_out].into_iter().chain(self.mlp.linears_mut())
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
        let (names, traits) = (config.names(), config.family.traits());
        let alone = |module: &str| stacked(&[format!("{module}.weight")]);
        let linear = |modules: Vec<(String, i64)>, has_bias: bool| -> Result<Linear> {
            let parts = |end: &str| -> Vec<String> {
                modules.iter().map(|(module, _)| format!("{module}.{end}")).collect()
            };
            let weight_OxI = stacked(&parts("weight"))?;
            let bias_O = has_bias.then(|| stacked(&parts("bias"))).transpose()?;
            Ok(Linear::new(modules, weight_OxI, bias_O))
        };
        let (d, m) = (config.d_model, config.mlp_hidden_size);
        let (q, kv) = (config.n_heads * config.head_size, config.n_kv_heads * config.head_size);
        let [of_attention, of_mlp] = parts(names);
        let swiglu = |n, expert| -> Result<SwiGlu> {
            let mut modules =
                of_mlp.iter().map(|name| of_expert(names, (n, expert), name)).zip([m, m, d]);
            let ff_in = linear(modules.by_ref().take(2).collect(), false)?;
            Ok(SwiGlu { ff_in, ff_out: linear(modules.collect(), false)? })
        };
        let mut blocks = vec![];
        for n in 0..config.n_layers {
            let mut modules =
                of_attention.iter().map(|name| of_block(names, n, name)).zip([q, kv, kv, d]);
            let norm = |name| alone(&of_block(names, n, name));
            let mlp = match (&names.experts, config.n_experts) {
                (Some(experts), Some(count)) => Mlp::Experts {
                    router_XxD: norm(experts.router)?,
                    per_token: config.experts_per_token.unwrap_or(1),
                    experts: (0..count)
                        .map(|expert| swiglu(n, expert))
                        .collect::<Result<_, _>>()?,
                },
                _ => Mlp::Dense(swiglu(n, 0)?),
            };
            blocks.push(Block {
                attn_norm_D: norm(names.attention_norm)?,
                qkv: linear(modules.by_ref().take(3).collect(), traits.has_qkv_bias)?,
                qk_norms_E: match names.qk_norms {
                    Some([of_q, of_k]) => Some([norm(of_q)?, norm(of_k)?]),
                    None => None,
                },
                attn_out: linear(modules.collect(), false)?,
                ff_norm_D: norm(names.mlp_norm)?,
                mlp,
            });
        }
        Ok(Self {
            names,
            wte_VxD: alone(names.embedding)?,
            blocks,
            ln_f_D: alone(names.norm)?,
            ff_out: linear(vec![(names.head.to_owned(), config.embedding_size)], false)?,
        })
    }

    /// Applies `of` to every tensor, an adapter's included.
    pub(super) fn map(&self, of: impl Fn(&Tensor) -> Tensor) -> Self {
        let block = |block: &Block| Block {
            attn_norm_D: of(&block.attn_norm_D),
            qkv: block.qkv.map(&of),
            qk_norms_E: block.qk_norms_E.as_ref().map(|norms| norms.each_ref().map(&of)),
            attn_out: block.attn_out.map(&of),
            ff_norm_D: of(&block.ff_norm_D),
            mlp: block.mlp.map(&of),
        };
        Self {
            names: self.names,
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
        self.blocks.iter().position(|block| block.linears().any(Linear::is_trained))
    }

    /// Every tensor of the checkpoint that can be trained.
    pub(super) fn leaves(&self) -> Vec<Leaf<'_>> {
        let names = self.names;
        let mut alone = vec![
            (names.embedding.to_owned(), &self.wte_VxD),
            (names.norm.to_owned(), &self.ln_f_D),
        ];
        for (n, block) in (0..).zip(&self.blocks) {
            alone.push((of_block(names, n, names.attention_norm), &block.attn_norm_D));
            alone.push((of_block(names, n, names.mlp_norm), &block.ff_norm_D));
            if let (Some(experts), Some(router_XxD)) = (&names.experts, block.mlp.router()) {
                alone.push((of_block(names, n, experts.router), router_XxD));
            }
            let qk_norms = names.qk_norms.into_iter().flatten();
            for (name, norm_E) in qk_norms.zip(block.qk_norms_E.iter().flatten()) {
                alone.push((of_block(names, n, name), norm_E));
            }
        }
        let alone =
            alone.into_iter().map(|(name, t)| (vec![(format!("{name}.weight"), t.size()[0])], t));
        alone.chain(self.linears().flat_map(Linear::weights)).collect()
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

/// New weights: norms 1, biases 0, matrices normal with deviation `std`, those that write into the residual
/// stream divided by sqrt(2 * n_layers) (Radford et al., GPT-2). Drawn in Rust from the seed.
pub(super) fn draw(config: &ModelConfig, std: f64, seed: Seed) -> NamedTensors {
    let residual = std / (2.0 * config.n_layers as f64).sqrt();
    let names = config.names();
    let [_, _, _, attention, _, _, down] = names.modules.map(|name| format!(".{name}.weight"));
    let mut named = NamedTensors::new();
    for (index, (name, shape)) in (0u64..).zip(config.tensors()) {
        let tensor = if shape.len() == 1 {
            let fill = if name.ends_with(".bias") { 0.0 } else { 1.0 };
            Tensor::full(&shape, fill, (Kind::Float, Device::Cpu))
        } else {
            let into_residual = name.starts_with(names.blocks)
                && (name.ends_with(&attention) || name.ends_with(&down));
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
