//! An estimate's gradient on the tiny checkpoint of each family, against finite differences of its loss in f64.

use std::collections::BTreeMap;

use agrpo_spec::{Files, Purpose};

use super::*;
use crate::model::PADDING;

/// A checkpoint of `tests/golden`.
fn checkpoint(name: &str) -> Files {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/");
    let is_model = |name: &str| {
        name == "config.json" || name.starts_with("model") && name.ends_with(".safetensors")
    };
    let files = std::fs::read_dir(format!("{folder}{name}")).unwrap();
    let mut model = BTreeMap::new();
    for path in files.map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if is_model(&name) {
            model.insert(name, std::fs::read(path).unwrap().into());
        }
    }
    model
}

/// Six completions after prompts of two lengths.
fn rows() -> Vec<Row> {
    let row = |n: u64| {
        let padding = usize::try_from(1 + n / 3).unwrap();
        let token = |at| i64::try_from(Seed::new(n / 3).below(150, 0, at)).unwrap();
        let tokens: Vec<i64> = (0..9).map(token).collect();
        let prompt = [&vec![PADDING; padding], &tokens[padding..]].concat();
        Row { prompt, seed: Seed::new(8).child(Purpose::Sample, n) }
    };
    (0..6).map(row).collect()
}

/// Along each tensor's own gradient g the loss rises by |g|^2.
#[test]
fn gradients_on_tiny_checkpoints_are_finite_differences() {
    crate::use_one_thread();
    for (name, block, position) in [
        ("llada_tiny", 4, PositionRule::Random),
        ("dream_tiny", 8, PositionRule::Entropy),
        ("sdar_tiny", 4, PositionRule::LowConfidence),
        ("llada_moe_tiny", 4, PositionRule::LowConfidence),
    ] {
        let policy = Policy::from_folder(&checkpoint(name)).unwrap();
        let sampler = Sampler { temperature: real(0.8), ..sampler(8, block, 4, position) };
        let all = sample(&policy, &rows(), &sampler, 4, &Threads::one()).unwrap();
        let worths =
            [1.0, -0.5, 0.3, -1.0, 0.8, 0.2].map(|advantage| Worth { advantage, counted: true });
        let batch = Batch::new(&all, &worths, 3, &sampler, policy.config()).unwrap();
        let position_gradient = position == PositionRule::LowConfidence;
        let config = EstimatorConfig { position_gradient, ..config(EstimatorKind::Agrpo) };
        let estimator = estimator(&batch, &config, Seed::new(1));
        let estimate = |policy: &Policy, behaviour: &Policy| {
            let policies = Policies { policy, behaviour: Some(behaviour), reference: None };
            accumulate(&estimator, &policies, &config, &Threads::one()).unwrap()
        };
        let gradients = estimate(&policy, &policy).gradient;
        let (double, behaviour) = (policy.to_double(), policy.to_double());
        let mut worst = 0f64;
        for (tensor, gradient) in &gradients {
            let gradient = gradient.to_kind(Kind::Double);
            let square = gradient.square().sum(Kind::Double).double_value(&[]);
            if square == 0.0 {
                continue;
            }
            let moved = |by: f64| {
                let _no_grad = no_grad_guard();
                drop(double.parameters()[tensor].shallow_clone().g_add_(&(&gradient * by)));
            };
            let h = 1e-5 / square.sqrt();
            moved(h);
            let above = estimate(&double, &behaviour).measured.loss;
            moved(-2.0 * h);
            let below = estimate(&double, &behaviour).measured.loss;
            moved(h);
            worst = worst.max(((above - below) / (2.0 * h) / square - 1.0).abs());
        }
        assert!(worst < 1e-4, "{name}: {worst}");
    }
}
