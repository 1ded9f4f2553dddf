//! The names and shapes of LLaDA's checkpoints. Reads and allocates no tensor.

use super::config::ModelConfig;

/// How every tensor of a checkpoint begins.
pub(super) const PREFIX: &str = "model.transformer.";

pub(super) const HEAD: &str = "model.transformer.ff_out";

pub(super) fn module(block: i64, name: &str) -> String {
    format!("{PREFIX}blocks.{block}.{name}")
}

/// Names and shapes of the modules that multiply with a matrix, output features first.
pub(super) fn linear_modules(config: &ModelConfig) -> Vec<(String, [i64; 2])> {
    let (d, m, v) = (config.d_model, config.mlp_hidden_size, config.embedding_size);
    let mut modules = vec![(HEAD.to_owned(), [v, d])];
    for n in 0..config.n_layers {
        let of_block = [
            ("q_proj", [d, d]),
            ("k_proj", [d, d]),
            ("v_proj", [d, d]),
            ("attn_out", [d, d]),
            ("ff_proj", [m, d]),
            ("up_proj", [m, d]),
            ("ff_out", [d, m]),
        ];
        modules.extend(of_block.map(|(name, shape)| (module(n, name), shape)));
    }
    modules
}

impl ModelConfig {
    /// Names and shapes of a checkpoint's tensors, sorted by name.
    pub fn tensors(&self) -> Vec<(String, Vec<i64>)> {
        let (d, v) = (self.d_model, self.embedding_size);
        let matrices = linear_modules(self).into_iter();
        let mut shapes: Vec<(String, Vec<i64>)> =
            matrices.map(|(module, shape)| (format!("{module}.weight"), shape.into())).collect();
        shapes.push((format!("{PREFIX}wte.weight"), vec![v, d]));
        shapes.push((format!("{PREFIX}ln_f.weight"), vec![d]));
        for n in 0..self.n_layers {
            for name in ["attn_norm", "ff_norm"] {
                shapes.push((format!("{}.weight", module(n, name)), vec![d]));
            }
        }
        shapes.sort();
        shapes
    }
}
