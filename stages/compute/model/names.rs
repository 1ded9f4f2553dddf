//! The names and shapes of a checkpoint's tensors, by its family. Reads and allocates no tensor.

use agrpo_spec::TensorNames;

use super::config::ModelConfig;

impl ModelConfig {
    /// The names that the family's checkpoints use.
    pub(super) fn names(&self) -> &'static TensorNames {
        &self.family.traits().tensors
    }
}

/// A part of a block by its name in the block.
pub(super) fn of_block(names: &TensorNames, block: i64, name: &str) -> String {
    format!("{}{block}.{name}", names.blocks)
}

/// Names and shapes of the modules that multiply with a matrix, output features first.
pub(super) fn linear_modules(config: &ModelConfig) -> Vec<(String, [i64; 2])> {
    let (d, m, v) = (config.d_model, config.mlp_hidden_size, config.embedding_size);
    let (q, kv) = (config.n_heads * config.head_size, config.n_kv_heads * config.head_size);
    let names = config.names();
    let mut modules = vec![(names.head.to_owned(), [v, d])];
    let ([attention, mlp], shapes) =
        (parts(names), [[q, d], [kv, d], [kv, d], [d, q], [m, d], [m, d], [d, m]]);
    for n in 0..config.n_layers {
        let of_attention = attention.iter().map(|name| of_block(names, n, name));
        modules.extend(of_attention.zip(shapes));
        for expert in 0..config.n_experts.unwrap_or(1) {
            let of_mlp = mlp.iter().map(|name| of_expert(names, (n, expert), name));
            modules.extend(of_mlp.zip(shapes.into_iter().skip(4)));
        }
    }
    modules
}

/// The modules of attention and those of the SwiGLU.
pub(super) fn parts(names: &TensorNames) -> [&[&'static str]; 2] {
    let (attention, mlp) = names.modules.split_at(4);
    [attention, mlp]
}

/// A module of a block's SwiGLU, or of that of one of its experts.
pub(super) fn of_expert(names: &TensorNames, (block, expert): (i64, i64), name: &str) -> String {
    match &names.experts {
        Some(experts) => of_block(names, block, &format!("{}{expert}.{name}", experts.before)),
        None => of_block(names, block, name),
    }
}

impl ModelConfig {
    /// Names and shapes of a checkpoint's tensors, sorted by name.
    pub fn tensors(&self) -> Vec<(String, Vec<i64>)> {
        let (d, v) = (self.d_model, self.embedding_size);
        let names = self.names();
        let matrices = linear_modules(self).into_iter();
        let mut shapes: Vec<(String, Vec<i64>)> =
            matrices.map(|(module, shape)| (format!("{module}.weight"), shape.into())).collect();
        shapes.push((format!("{}.weight", names.embedding), vec![v, d]));
        shapes.push((format!("{}.weight", names.norm), vec![d]));
        for n in 0..self.n_layers {
            if let (Some(experts), Some(count)) = (&names.experts, self.n_experts) {
                let router = of_block(names, n, experts.router);
                shapes.push((format!("{router}.weight"), vec![count, d]));
            }
            let mut of_block = |name, end, size| {
                shapes.push((format!("{}.{end}", of_block(names, n, name)), vec![size]));
            };
            for name in [names.attention_norm, names.mlp_norm] {
                of_block(name, "weight", d);
            }
            for name in names.qk_norms.into_iter().flatten() {
                of_block(name, "weight", self.head_size);
            }
            if self.family.traits().has_qkv_bias {
                for (name, heads) in
                    names.modules.into_iter().zip([self.n_heads, self.n_kv_heads, self.n_kv_heads])
                {
                    of_block(name, "bias", heads * self.head_size);
                }
            }
        }
        shapes.sort();
        shapes
    }
}
