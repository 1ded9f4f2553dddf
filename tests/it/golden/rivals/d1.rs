//! diffu-GRPO against d1's `DiffuGRPOTrainer`.

use agrpo_compute::estimator::{Batch, Given, with_prompts};
use agrpo_spec::{EstimatorKind, Samples};

use super::super::{floats, ids, policy};
use super::{Case, MicroBatch};

#[test]
fn diffu_grpo_is_d1_s() {
    let policy = policy();
    for case in Case::all("d1") {
        let (prompt, completion) = (case.count("P") as usize, case.count("C"));
        let sampler = case.sampler(completion, 1);
        let model = case.model(&policy);
        let config = case.config(EstimatorKind::DiffuGrpo, Samples::Count(1));
        for part in MicroBatch::all(&case) {
            let rows = part.rows.len();
            let trajectories = case.trajectories(&part.rows, vec![0; rows * completion as usize]);
            let worths = case.worths(&part.rows);
            let batch = Batch::new(&trajectories, &worths, rows, &sampler, &model).unwrap();
            let old = floats(&case.rows("old_token_logps", Some(part.seed), &part.rows));
            let inputs = ids(&case.rows("masked_input_ids", Some(part.seed), &part.rows));
            let length = prompt + completion as usize;
            let masks = |input: &[i64]| input[prompt..].iter().all(|&id| id == model.mask_token_id);
            assert!(inputs.chunks(length).all(masks), "all of a completion is masked");
            part.compare(&case, &policy, (&batch, &config, &old), |batch, config, old| {
                let inputs = inputs.clone();
                let given = Given { old: Some(old), ..Given::default() };
                with_prompts(batch, config, given, move |row, _| {
                    inputs[row * length..][..prompt].to_vec()
                })
            });
        }
    }
}
