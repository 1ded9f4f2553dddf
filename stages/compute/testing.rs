//! Settings for the tests of several modules, in which every value is explicit and nothing is filtered or drawn by
//! chance, and whole runs computed in memory. A test changes what it is about. No policies, no trajectories.

use agrpo_spec::memory::{GradientSizes, Sizes};
use agrpo_spec::{
    Cache, Confidence, EstimatorConfig, EstimatorKind, Family, GradientSpec, Inputs, ModelShape,
    Outputs, Plan, PositionRule, Real, Run, Sampler, StageError, StageKey, StageSpec,
};

pub(crate) mod published;
#[path = "../../tests/support/run_file.rs"]
pub(crate) mod run_file;

pub(crate) fn real(value: f64) -> Real {
    Real::new(value).unwrap()
}

/// `steps` steps for `tokens` tokens in blocks of `block`.
pub(crate) fn sampler(tokens: u32, block: u32, steps: u32, position: PositionRule) -> Sampler {
    Sampler {
        completion_tokens: tokens,
        block_tokens: block,
        steps,
        temperature: real(1.0),
        top_k: 0,
        top_p: real(1.0),
        position,
        confidence: Confidence::Sampling,
        guidance: real(0.0),
        cache: Cache::None,
        threshold: None,
    }
}

/// The smallest model.
pub(crate) fn shape(init_std: f64) -> ModelShape {
    ModelShape {
        family: Family::default(),
        n_kv_heads: None,
        head_size: None,
        attention_block: None,
        n_experts: None,
        experts_per_token: None,
        d_model: 8,
        n_layers: 1,
        n_heads: 2,
        mlp_hidden_size: 8,
        rope_theta: real(1e4),
        rms_norm_eps: real(1e-5),
        init_std: real(init_std),
    }
}

/// The smallest model of a family, with what the family may choose: shared heads of keys, heads of their own size, blocks
/// of four tokens, four experts.
pub(crate) fn shape_of(family: Family, init_std: f64) -> ModelShape {
    let keys = &family.traits().keys;
    ModelShape {
        family,
        n_kv_heads: keys.n_kv_heads.map(|_| 1),
        head_size: keys.head_size.map(|_| 6),
        attention_block: keys.attention_block.map(|_| 4),
        n_experts: keys.n_experts.map(|_| 4),
        experts_per_token: keys.experts_per_token.map(|_| 2),
        ..shape(init_std)
    }
}

/// What this gradient takes on one thread, all weights trained by one policy.
pub(crate) fn gradient_sizes(spec: &GradientSpec, sizes: Sizes, length: u64) -> GradientSizes<'_> {
    GradientSizes {
        estimator: &spec.estimator,
        sampler: &spec.sampler,
        group: spec.group,
        precision: spec.precision,
        lora: None,
        other_policies: 0,
        shards: 1,
        sizes,
        length,
        inputs_in_memory: true,
        threads: 1,
        is_gpu: false,
    }
}

/// The unbiased choices: every step, a constant divisor.
pub(crate) fn config(kind: EstimatorKind) -> EstimatorConfig {
    EstimatorConfig { micro_batch: 256, ..EstimatorConfig::plain(kind) }
}

/// Every stage of a run with its spec and its outputs, computed one after the other; and all outputs as inputs.
pub(crate) fn computed(
    run: &str,
    execute: impl Fn(&StageSpec, &Inputs) -> Result<Outputs, StageError>,
) -> (Vec<(StageKey, StageSpec, Outputs)>, Inputs) {
    let (mut plan, mut inputs) = (Plan::new(Run::parse(run).unwrap()), Inputs::default());
    let mut all = vec![];
    while let Some((key, spec)) = plan.pending().first_key_value().map(|(k, s)| (*k, s.clone())) {
        let made = execute(&spec, &inputs).unwrap();
        let digest_of = |name: &str| made.artifacts.get(name).map(|made| made.digest().unwrap());
        plan.finished(key, digest_of).unwrap();
        for artifact in made.artifacts.values() {
            inputs.insert(artifact.digest().unwrap(), artifact.clone());
        }
        all.push((key, spec, made));
    }
    (all, inputs)
}
