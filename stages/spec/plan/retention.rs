//! Which outputs of a stage a run's retention deletes, by the stage's place in the plan.

use super::{Plan, StageKey};
use crate::run::{Keep, Retention, Run};
use crate::stage::StageKind;

impl Retention {
    /// The outputs of a stage that retention deletes once the update of iteration `newest` is complete.
    /// The caller keeps a policy that an evaluation still needs.
    pub fn deletes(&self, run: &Run, key: StageKey, newest: u32) -> &'static [&'static str] {
        let is_past = key.iteration < newest;
        match key.kind {
            StageKind::Gradient if self.gradients == Keep::DropAfterUpdate && is_past => {
                &["gradient"]
            }
            StageKind::Rollout if self.trajectories == Keep::DropAfterUpdate && is_past => {
                &["trajectories"]
            }
            StageKind::Update | StageKind::Updates | StageKind::Sft
                if self.deletes_policy(run, key, newest) =>
            {
                &["policy", "optimizer"]
            }
            _ => &[],
        }
    }

    fn deletes_policy(&self, run: &Run, key: StageKey, newest: u32) -> bool {
        let Some(every) = self.keep_policies else { return false };
        if key.kind == StageKind::Sft {
            return newest >= 2 && Plan::last_chunk(run).is_some_and(|last| key < last);
        }
        let is_kept = key.iteration.is_multiple_of(every.get())
            || key.iteration == run.config().training.iterations;
        // The newest two stay: if one is damaged, the other is a short way back.
        key.iteration.saturating_add(2) <= newest
            && !(is_kept && key == Plan::last_update(run, key.iteration))
    }

    /// How many stages of a kind still have all their outputs when the run is done.
    pub fn whole_at_end(&self, run: &Run, kind: StageKind) -> u64 {
        let config = run.config();
        let iterations = config.training.iterations;
        let fused = config.estimator.fused_updates;
        let places = match kind {
            StageKind::Gradient | StageKind::Update if fused => 0..0,
            StageKind::Updates if !fused => 0..0,
            StageKind::Sft => 0..run.sft_chunks(),
            _ => 1..iterations + 1,
        };
        if kind == StageKind::Evaluation {
            return (0..=iterations).map(|at| Plan::evaluations(run, at).len() as u64).sum();
        }
        let shards = if StageKey::is_sharded(kind) { config.rollout.shards } else { 1 };
        let updates = if StageKey::is_of_update(kind) { config.estimator.inner_updates } else { 1 };
        places
            .flat_map(|place| (0..shards).map(move |shard| StageKey::new(kind, place, shard)))
            .flat_map(|key| (1..=updates).map(move |inner| key.of_update(inner)))
            .filter(|key| self.deletes(run, *key, iterations).is_empty())
            .count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(inner_updates: u32, retention: &str) -> Run {
        let smoke = include_str!("../../../jobs/runs/smoke.toml");
        let mut config = Run::parse(smoke).unwrap().config().clone();
        config.training.iterations = 7;
        config.estimator.inner_updates = inner_updates;
        config.retention = toml::from_str(retention).unwrap();
        Run::resolve(config).unwrap()
    }

    fn kept(run: &Run, kind: StageKind, newest: u32) -> Vec<u32> {
        let retention = run.config().retention;
        let inner =
            if kind == StageKind::Update { run.config().estimator.inner_updates } else { 1 };
        let is_kept = |i: &u32| {
            retention.deletes(run, StageKey::new(kind, *i, 0).of_update(inner), newest).is_empty()
        };
        (1..=newest).filter(is_kept).collect()
    }

    #[test]
    fn every_nth_the_newest_two_and_the_last_stay() {
        let thinned = run(1, "keep_policies = 3");
        assert_eq!(kept(&thinned, StageKind::Update, 1), [1]);
        assert_eq!(kept(&thinned, StageKind::Update, 5), [3, 4, 5]);
        assert_eq!(kept(&thinned, StageKind::Update, 7), [3, 6, 7]);
        assert_eq!(kept(&thinned, StageKind::Gradient, 7).len(), 7);
        let base = StageKey::new(StageKind::Sft, thinned.sft_chunks() - 1, 0);
        assert!(thinned.config().retention.deletes(&thinned, base, 7).is_empty(), "the base stays");
        assert_eq!(thinned.config().retention.whole_at_end(&thinned, StageKind::Update), 3);
        let evaluation = StageKey::evaluation(0, None);
        assert!(thinned.config().retention.deletes(&thinned, evaluation, 7).is_empty());
    }

    #[test]
    fn of_several_updates_an_iteration_only_the_last_is_worth_keeping() {
        let thinned = run(2, "keep_policies = 3");
        let first = StageKey::new(StageKind::Update, 3, 0);
        assert!(!thinned.config().retention.deletes(&thinned, first, 6).is_empty());
        assert!(thinned.config().retention.deletes(&thinned, first, 4).is_empty());
        assert_eq!(kept(&thinned, StageKind::Update, 6), [3, 5, 6]);
    }

    #[test]
    fn fused_updates_are_kept_as_updates_are() {
        let mut config = run(24, "keep_policies = 3").config().clone();
        config.estimator.fused_updates = true;
        let thinned = Run::resolve(config).unwrap();
        assert_eq!(kept(&thinned, StageKind::Updates, 6), [3, 5, 6]);
        let whole_at_end = |kind| thinned.config().retention.whole_at_end(&thinned, kind);
        assert_eq!(whole_at_end(StageKind::Updates), 3);
        assert_eq!((whole_at_end(StageKind::Gradient), whole_at_end(StageKind::Update)), (0, 0));
        assert_eq!(thinned.config().retention.whole_at_end(&run(1, ""), StageKind::Updates), 0);
    }

    #[test]
    fn gradients_and_trajectories_go_once_the_next_update_is_complete() {
        let text = "gradients = \"drop-after-update\"\ntrajectories = \"drop-after-update\"";
        let lean = run(1, text);
        for kind in [StageKind::Gradient, StageKind::Rollout] {
            assert_eq!(kept(&lean, kind, 4), [4]);
        }
        let shards = u64::from(lean.config().rollout.shards);
        for (kind, left) in [(StageKind::Gradient, shards), (StageKind::Reward, 7 * shards)] {
            assert_eq!(lean.config().retention.whole_at_end(&lean, kind), left);
        }
        assert_eq!(kept(&lean, StageKind::Update, 7).len(), 7);
        assert_eq!(kept(&lean, StageKind::Reward, 7).len(), 7);
    }

    #[test]
    fn retention_is_not_part_of_a_run_s_identity() {
        let (all, few) = (run(1, ""), run(1, "keep_policies = 3"));
        assert_eq!(all.id(), few.id());
        assert!(all.config().retention.keeps_all() && !few.config().retention.keeps_all());
        let json = |run: &Run| serde_json::to_string(run.config()).unwrap();
        assert_eq!(json(&all), json(&few), "nor of its record");
    }

    #[test]
    fn mistakes_are_reported_with_the_line() {
        let smoke = include_str!("../../../jobs/runs/smoke.toml");
        for (text, expected) in [
            ("[retention]\nkeep_policies = 0", "keep_policies"),
            ("[retention]\ngradients = \"drop\"", "drop-after-update"),
            ("[retention]\npolicies = 3", "keep_policies"),
        ] {
            let error = Run::parse(&format!("{smoke}\n{text}\n")).unwrap_err().to_string();
            assert!(error.starts_with("line ") && error.contains(expected), "{error}");
        }
    }
}
