//! Merged steps against d2's `d2StepMergeTrainer`: every segment alone, and all of them.

use agrpo_compute::estimator::{Batch, Given, with_segments};
use agrpo_spec::{EstimatorKind, Samples};

use super::super::{floats, ids, policy};
use super::{Case, assert_loss, cells, compare_logps, estimate, int, with_all_rows};

#[test]
fn merged_steps_are_d2_s() {
    let policy = policy();
    for case in Case::all("d2") {
        let number = &case.settings["case"];
        let (rows, segments) = (case.all_rows(), case.count("N"));
        let sampler = case.sampler(case.count("block_length"), case.count("steps"));
        let model = case.model(&policy);
        let config = case.config(EstimatorKind::MergedStep, Samples::Count(segments));
        let steps = ids(&case.tensors["unmask_steps"]);
        let (trajectories, worths) = (case.trajectories(&rows, steps), case.worths(&rows));
        let batch = Batch::new(&trajectories, &worths, rows.len(), &sampler, &model).unwrap();
        let seed = case.count("seed_index") as usize;
        let old = floats(&case.rows("old_token_logps", Some(seed), &rows));
        let prompts = ids(&case.rows("masked_prompt_ids", Some(seed), &rows));
        let given = Given { old: Some(&old), ..Given::default() };
        let width = trajectories.prompt_len;
        let prompt = |row: usize| prompts[row * width..][..width].to_vec();
        let reference = case.reference(&policy);
        let theirs = &case.tensors[&format!("seed{seed}.token_logps")];
        let losses = floats(&case.tensors[&format!("seed{seed}.segment_losses")]);
        let mut compared = 0;
        for (n, &loss) in (0..segments).zip(&losses) {
            let what = format!("case {number}, segment {n}");
            let written = case.tensors["segment_masks"].get(n.into());
            let trained = cells(&(written * &case.tensors["completion_mask"]));
            compared += trained.len();
            let all = with_segments(&batch, &with_all_rows(&config), given, n..n + 1, prompt);
            compare_logps(&all, &policy, theirs, &trained, &what);
            if let Some(reference) = &reference {
                let theirs = case.rows("reference_token_logps", Some(seed), &rows);
                compare_logps(&all, reference, &theirs, &trained, &what);
            }
            let share = with_segments(&batch, &config, given, n..n + 1, prompt);
            let ours = estimate(&share, &config, &policy, reference.as_ref());
            let scale = f64::from(segments);
            assert_loss(scale * ours.measured.loss, loss, &what);
            let prefix = format!("seed{seed}.segment{n}.");
            if case.tensors.contains_key(&format!("{prefix}grad_total_norm")) {
                case.compare(&ours, &format!("{prefix}loss"), &prefix, scale);
            }
        }
        assert_eq!(losses.len(), segments as usize, "case {number}");
        assert_eq!(int(compared), case.tensors["completion_mask"].sum(None).int64_value(&[]));
        let whole = with_segments(&batch, &config, given, 0..segments, prompt);
        let ours = estimate(&whole, &config, &policy, reference.as_ref());
        let loss = format!("seed{seed}.mean_loss");
        assert!(case.tensors.contains_key(&loss), "case {number}");
        case.compare(&ours, &loss, &format!("seed{seed}.mean."), 1.0);
    }
}
