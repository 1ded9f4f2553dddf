//! coupled-GRPO against DiffuCoder's `coupled_grpo.py`, with logits as LLaDA has them and shifted.

use agrpo_compute::estimator::{Batch, Estimator, Given, Halves, with_halves};
use agrpo_compute::model::Policy;
use agrpo_compute::trajectories::Trajectories;
use agrpo_spec::{EstimatorConfig, EstimatorKind, Samples};

use super::super::{floats, ids, policy};
use super::{Case, MicroBatch, assert_loss, estimate};

/// What was drawn for a seed, by row and position.
struct Drawn {
    ratio: f64,
    masked: Vec<bool>,
    old: Vec<f64>,
    shifted_logits: bool,
}

impl Drawn {
    fn new(case: &Case, seed: usize, rows: &std::ops::Range<usize>) -> Self {
        let masked = ids(&case.rows("masked", Some(seed), rows));
        Self {
            ratio: floats(&case.tensors["r"])[seed],
            masked: masked.into_iter().map(|is_masked| is_masked == 1).collect(),
            old: floats(&case.rows("old_token_logps", Some(seed), rows)),
            shifted_logits: case.settings["shifted_logits"].as_bool().unwrap(),
        }
    }

    fn estimator<'a>(&'a self, batch: &'a Batch<'a>, config: &EstimatorConfig) -> Estimator<'a> {
        let tokens = self.masked.len() / batch.rows();
        let given = Given { old: Some(&self.old), shifted_logits: self.shifted_logits };
        with_halves(batch, config, given, move |row, _| Halves {
            ratio: self.ratio,
            in_first: self.masked[row * tokens..][..tokens].to_vec(),
        })
    }
}

fn config(case: &Case) -> EstimatorConfig {
    case.config(EstimatorKind::CoupledGrpo, Samples::Count(1))
}

fn written(case: &Case, rows: &std::ops::Range<usize>) -> Trajectories {
    case.trajectories(rows, vec![0; rows.len() * case.count("C") as usize])
}

#[test]
fn coupled_grpo_is_diffucoder_s() {
    let policy = policy();
    for case in Case::all("coupled") {
        let (sampler, model) = (case.sampler(case.count("C"), 1), case.model(&policy));
        let config = config(&case);
        for part in MicroBatch::all(&case) {
            let (trajectories, worths) = (written(&case, &part.rows), case.worths(&part.rows));
            let batch = Batch::new(&trajectories, &worths, worths.len(), &sampler, &model).unwrap();
            let drawn = Drawn::new(&case, part.seed, &part.rows);
            part.compare(&case, &policy, (&batch, &config, &drawn.old), |batch, config, _| {
                drawn.estimator(batch, config)
            });
        }
        all_micro_batches_together(&case, &policy);
    }
}

/// The mean over groups is what the published code accumulates over micro-batches of one group each.
fn all_micro_batches_together(case: &Case, policy: &Policy) {
    let parts = MicroBatch::all(case);
    let Some(part) = parts.first().filter(|part| part.rows.len() < case.all_rows().len()) else {
        return;
    };
    let (rows, group) = (case.all_rows(), part.rows.len());
    let (sampler, model) = (case.sampler(case.count("C"), 1), case.model(policy));
    let (trajectories, worths) = (written(case, &rows), case.worths(&rows));
    let batch = Batch::new(&trajectories, &worths, group, &sampler, &model).unwrap();
    let drawn = Drawn::new(case, part.seed, &rows);
    let config = config(case);
    let reference = case.reference(policy);
    let ours = estimate(&drawn.estimator(&batch, &config), &config, policy, reference.as_ref());
    let of_seed: Vec<_> = parts.iter().filter(|other| other.seed == part.seed).collect();
    assert_eq!(of_seed.len() * group, rows.len(), "a loss of every micro-batch");
    let loss = |part: &&MicroBatch| {
        case.tensors[&format!("{}loss", part.prefix)].double_value(&[]) / of_seed.len() as f64
    };
    assert_loss(ours.measured.loss, of_seed.iter().map(loss).sum(), "all micro-batches");
}
