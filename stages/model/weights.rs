//! Weights by their names in LLaDA's checkpoints, in and out of the fused matrices that the forward
//! pass multiplies with; and the draw of new ones.
//!
//! `q_proj`, `k_proj`, `v_proj` are one matrix in memory, `ff_proj` and `up_proj` another: one large
//! product is faster than several small ones. Gradients and files know only the checkpoint's names.

use agrpo_spec::{Purpose, Seed, StageError};
use tch::{Kind, Tensor};

use super::config::ModelConfig;
use crate::error::data;
use crate::tensor_file::NamedTensors;

const PREFIX: &str = "model.transformer.";

/// One transformer block; all of one kind, row-major, output features first.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) attn_norm_D: Tensor,
    /// q, k and v, stacked.
    pub(super) qkv_3DxD: Tensor,
    pub(super) attn_out_DxD: Tensor,
    pub(super) ff_norm_D: Tensor,
    /// ff_proj (the gate) and up_proj, stacked.
    pub(super) ff_in_2MxD: Tensor,
    pub(super) ff_out_DxM: Tensor,
}

/// All weights of a model.
#[derive(Debug)]
pub(super) struct Weights {
    pub(super) wte_VxD: Tensor,
    pub(super) blocks: Vec<Block>,
    pub(super) ln_f_D: Tensor,
    pub(super) ff_out_VxD: Tensor,
}

impl Block {
    fn map(&self, of: impl Fn(&Tensor) -> Tensor) -> Self {
        Self {
            attn_norm_D: of(&self.attn_norm_D),
            qkv_3DxD: of(&self.qkv_3DxD),
            attn_out_DxD: of(&self.attn_out_DxD),
            ff_norm_D: of(&self.ff_norm_D),
            ff_in_2MxD: of(&self.ff_in_2MxD),
            ff_out_DxM: of(&self.ff_out_DxM),
        }
    }
}

/// Names and shapes of a checkpoint's tensors, sorted by name.
pub(super) fn checkpoint_shapes(config: &ModelConfig) -> Vec<(String, Vec<i64>)> {
    let (d, m, v) = (config.d_model, config.mlp_hidden_size, config.embedding_size);
    let mut shapes = vec![
        (format!("{PREFIX}wte.weight"), vec![v, d]),
        (format!("{PREFIX}ln_f.weight"), vec![d]),
        (format!("{PREFIX}ff_out.weight"), vec![v, d]),
    ];
    for n in 0..config.n_layers {
        let of_block: [(&str, Vec<i64>); 9] = [
            ("attn_norm", vec![d]),
            ("q_proj", vec![d, d]),
            ("k_proj", vec![d, d]),
            ("v_proj", vec![d, d]),
            ("attn_out", vec![d, d]),
            ("ff_norm", vec![d]),
            ("ff_proj", vec![m, d]),
            ("up_proj", vec![m, d]),
            ("ff_out", vec![d, m]),
        ];
        shapes.extend(
            of_block.map(|(name, shape)| (format!("{PREFIX}blocks.{n}.{name}.weight"), shape)),
        );
    }
    shapes.sort();
    shapes
}

impl Weights {
    /// From a checkpoint's tensors, in f32: every one accounted for.
    pub(super) fn from_named(
        config: &ModelConfig,
        mut tensors: NamedTensors,
    ) -> Result<Self, StageError> {
        for (name, shape) in checkpoint_shapes(config) {
            let tensor =
                tensors.get(&name).ok_or_else(|| data(format!("the checkpoint lacks {name}")))?;
            if tensor.size() != shape {
                let found = tensor.size();
                return Err(data(format!("{name} has the shape {found:?}, expected {shape:?}")));
            }
        }
        let mut take = |name: String| {
            tensors.remove(&name).expect("checked above").to_kind(Kind::Float).contiguous()
        };
        let mut blocks = vec![];
        for n in 0..config.n_layers {
            let mut part = |name: &str| take(format!("{PREFIX}blocks.{n}.{name}.weight"));
            blocks.push(Block {
                attn_norm_D: part("attn_norm"),
                qkv_3DxD: Tensor::cat(&[part("q_proj"), part("k_proj"), part("v_proj")], 0),
                attn_out_DxD: part("attn_out"),
                ff_norm_D: part("ff_norm"),
                ff_in_2MxD: Tensor::cat(&[part("ff_proj"), part("up_proj")], 0),
                ff_out_DxM: part("ff_out"),
            });
        }
        let weights = Self {
            wte_VxD: take(format!("{PREFIX}wte.weight")),
            blocks,
            ln_f_D: take(format!("{PREFIX}ln_f.weight")),
            ff_out_VxD: take(format!("{PREFIX}ff_out.weight")),
        };
        match tensors.keys().next() {
            Some(extra) => Err(data(format!("the checkpoint has an unknown tensor {extra}"))),
            None => Ok(weights),
        }
    }

    /// A copy in another kind, without gradients.
    pub(super) fn to_kind(&self, kind: Kind) -> Self {
        let of = |tensor: &Tensor| tensor.detach().to_dtype(kind, false, true);
        Self {
            wte_VxD: of(&self.wte_VxD),
            blocks: self.blocks.iter().map(|block| block.map(of)).collect(),
            ln_f_D: of(&self.ln_f_D),
            ff_out_VxD: of(&self.ff_out_VxD),
        }
    }

    /// By the checkpoint's names; `of` picks what is read off each fused matrix (itself, its gradient).
    pub(super) fn to_named(&self, of: impl Fn(&Tensor) -> Tensor) -> NamedTensors {
        let mut named = NamedTensors::new();
        let mut put = |name: String, tensor: Tensor| {
            named.insert(format!("{PREFIX}{name}.weight"), tensor);
        };
        put("wte".into(), of(&self.wte_VxD));
        put("ln_f".into(), of(&self.ln_f_D));
        put("ff_out".into(), of(&self.ff_out_VxD));
        for (n, block) in self.blocks.iter().enumerate() {
            let mut parts = vec![
                ("attn_norm", of(&block.attn_norm_D)),
                ("attn_out", of(&block.attn_out_DxD)),
                ("ff_norm", of(&block.ff_norm_D)),
                ("ff_out", of(&block.ff_out_DxM)),
            ];
            parts.extend(
                ["q_proj", "k_proj", "v_proj"].into_iter().zip(of(&block.qkv_3DxD).chunk(3, 0)),
            );
            parts.extend(["ff_proj", "up_proj"].into_iter().zip(of(&block.ff_in_2MxD).chunk(2, 0)));
            for (name, tensor) in parts {
                put(format!("blocks.{n}.{name}"), tensor);
            }
        }
        named
    }

    /// Every tensor that a gradient may be asked for.
    pub(super) fn leaves(&self) -> Vec<&Tensor> {
        let mut leaves = vec![&self.wte_VxD, &self.ln_f_D, &self.ff_out_VxD];
        for block in &self.blocks {
            leaves.extend([
                &block.attn_norm_D,
                &block.qkv_3DxD,
                &block.attn_out_DxD,
                &block.ff_norm_D,
                &block.ff_in_2MxD,
                &block.ff_out_DxM,
            ]);
        }
        leaves
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
            Tensor::ones(&shape, (Kind::Float, tch::Device::Cpu))
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
