//! AGRPO where both of its unequal bounds clip, and what top-k and top-p keep, also of the cases of `agrpo_gradient/`.

use agrpo_compute::estimator::{recompute, with_draws};
use agrpo_compute::model::{Policy, Queries};
use agrpo_compute::sampler::kept_tokens;
use tch::Tensor;

use super::super::gradient::Case as Sampled;
use super::super::{floats, ids, policy};
use super::{Case, LOGP, estimate, int, reference};

fn clipped(case: &Case, policy: &Policy) -> Sampled {
    let tensors = case.tensors.iter().map(|(name, it)| (name.clone(), it.shallow_clone()));
    Sampled::of(case.settings.clone(), tensors.collect(), policy)
}

#[test]
fn loss_and_gradient_are_agrpo_s_where_both_bounds_clip() {
    let policy = policy();
    let base = reference(&policy);
    for case in Case::all("agrpo") {
        let number = &case.settings["case"];
        let sampled = clipped(&case, &policy);
        let batch = sampled.batch();
        let estimator = with_draws(&batch, &sampled.config, sampled.draws(&batch));
        let ours = estimate(&estimator, &sampled.config, &policy, case.reference(&policy).as_ref());
        case.compare(&ours, "loss", "", 1.0);
        assert!(ours.measured.clipped_low > 0.0 && ours.measured.clipped_high > 0.0);

        let steps = ids(&case.tensors["mc_steps"]);
        let k = case.count("k") as usize;
        let is_drawn = |cell: usize| {
            let row = cell / sampled.trajectories.completion_len;
            steps[row * k..][..k].contains(&sampled.trajectories.unmask_steps[cell])
        };
        let all = |_| true;
        let compare = |by: &Policy, name: &str, of: &dyn Fn(usize) -> bool| {
            let theirs = floats(&case.tensors[name]);
            let ours = recompute(&batch, by, 16).unwrap().into_iter().enumerate();
            let ours = ours.filter_map(|(cell, found)| Some((cell, found?.0)));
            let mut compared = 0;
            for (cell, ours) in ours.filter(|(cell, _)| of(*cell)) {
                let (theirs, what) = (theirs[cell], format!("case {number}, {name}, {cell}"));
                assert!((ours - theirs).abs() < LOGP, "{what}: {ours} against {theirs}");
                compared += 1;
            }
            assert!(compared > 0, "case {number}, {name}");
        };
        compare(&policy, "token_logps", &all);
        compare(&policy, "new_token_logps", &is_drawn);
        compare(&base, "reference_token_logps", &is_drawn);
    }
}

/// Without a filter the reference's sampler may write the mask; ours never does.
#[test]
fn kept_sets_are_agrpo_s() {
    let policy = policy();
    let clipping = Case::all("agrpo");
    let clipping = clipping.iter().map(|case| clipped(case, &policy));
    for case in Sampled::all(&policy).into_iter().chain(clipping) {
        let (all, mask) = (&case.trajectories, case.model.mask_token_id);
        let is_filtered = case.sampler.top_k > 0 || case.sampler.top_p.get() < 1.0;
        let mut compared = 0;
        let of_row = |row| (0..all.sampled_steps(row)).map(move |step| (row, i64::from(step)));
        for (row, step) in (0..all.rows).flat_map(of_row) {
            let logits = logits(&policy, &all.state(row, step, mask));
            for at in (0..all.completion_len).filter(|&at| all.steps(row)[at] == step) {
                let logits = &logits[all.prompt_len + at];
                let kept = kept_tokens(logits, &case.sampler, usize::try_from(mask).unwrap());
                let ours: Vec<i64> = kept.unwrap().into_iter().map(int).collect();
                let theirs = all.kept_at(row * all.completion_len + at).unwrap().iter().copied();
                let theirs: Vec<i64> = theirs.filter(|&id| is_filtered || id != mask).collect();
                let number = &case.settings["case"];
                assert_eq!(ours, theirs, "case {number}, row {row}, position {at}");
                compared += 1;
            }
        }
        assert!(compared > 0, "case {}", case.settings["case"]);
    }
}

/// Logits by position.
fn logits(policy: &Policy, state: &[i64]) -> Vec<Vec<f32>> {
    let _no_grad = tch::no_grad_guard();
    let ids = Tensor::from_slice(state).unsqueeze(0);
    let hidden = policy.hidden(&ids, &Queries::All).unwrap();
    Vec::try_from(policy.head(&hidden).squeeze_dim(0)).unwrap()
}
