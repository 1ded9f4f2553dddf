//! Sample completions of an iteration's rollouts: the best, the worst, and one at random.
//!
//! The choice is a function of the run alone. Artifacts that were lost or deleted by retention are left out.

use agrpo_spec::{Manifest, Purpose, Rewards, StageDigest, StageKey, StageKind, StageSpec, decode};
use agrpo_store::{JobsError, Result, Store};
use serde::Serialize;

use crate::history::RunHistory;
use crate::trajectory::{Trajectories, Trajectory};

const MOST_SHARDS: u32 = 16;

/// Why a completion is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// None of the iteration has more reward.
    Best,
    /// None of the iteration has less.
    Worst,
    /// By chance.
    Random,
}

/// A completion and what it was worth.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Why it is shown; none where it was asked for.
    pub choice: Option<Choice>,
    /// The iteration that sampled it, from 1; the base samples those of iteration 1.
    pub iteration: u32,
    /// The rollout.
    pub rollout: StageDigest,
    /// Its reward.
    pub reward: Option<f64>,
    /// Whether it is right.
    pub correct: Option<bool>,
    /// The parts of the reward.
    pub parts: Vec<(String, f64)>,
    /// Its trajectory.
    pub trajectory: Trajectory,
}

/// The best, the worst and one other completion of an iteration, of those that the store still has.
pub async fn of_iteration(
    store: &Store,
    history: &RunHistory,
    iteration: u32,
) -> Result<Vec<Sample>> {
    let mut all = vec![];
    for shard in 0..history.run().config().rollout.shards.min(MOST_SHARDS) {
        let key = StageKey::new(StageKind::Reward, iteration, shard);
        let Some(done) = history.stages.get(&key) else { continue };
        let Some(&rewards) = done.outputs.get("rewards") else { continue };
        let bytes = store.cas.get(rewards).await.ok();
        let Some(rewards) = bytes.and_then(|bytes| decode::<Rewards>(&bytes)) else { continue };
        all.extend(rewards.rows.into_iter().enumerate().map(|(row, worth)| (shard, row, worth)));
    }
    // The first of equal ones, so that the choice is a function of the run.
    let best = (0..all.len()).rev().max_by(|&a, &b| all[a].2.reward.total_cmp(&all[b].2.reward));
    let worst = (0..all.len()).min_by(|&a, &b| all[a].2.reward.total_cmp(&all[b].2.reward));
    let chance = history.run().seed().child(Purpose::Sample, iteration.into());
    let random = u64::try_from(all.len()).ok().filter(|count| *count > 0);
    let random = random.and_then(|count| usize::try_from(chance.below(count, 0, 0)).ok());
    let chosen = [(best, Choice::Best), (worst, Choice::Worst), (random, Choice::Random)];
    let mut samples = vec![];
    for (index, choice) in chosen {
        let Some((shard, row, worth)) = index.and_then(|index| all.get(index)) else { continue };
        let key = StageKey::new(StageKind::Rollout, iteration, *shard);
        let Some(done) = history.stages.get(&key) else { continue };
        let Some(manifest) = store.records.manifest(done.stage).await? else { continue };
        // Lost and deleted artifacts are left out.
        let Ok(Some(sample)) = read(store, &manifest, *row).await else { continue };
        samples.push(Sample {
            choice: Some(choice),
            reward: Some(worth.reward),
            correct: Some(worth.correct),
            parts: worth.parts.clone().into_iter().collect(),
            ..sample
        });
    }
    Ok(samples)
}

/// One completion of a rollout by its stage, whatever run it belongs to. Data error where it cannot be read.
pub async fn of_rollout(store: &Store, rollout: StageDigest, row: usize) -> Result<Option<Sample>> {
    let missing = || JobsError::data(format!("the record of stage {rollout} is missing"));
    let manifest = store.records.manifest(rollout).await?.ok_or_else(missing)?;
    read(store, &manifest, row).await
}

/// A completion of which the rewards are not known; `None` beyond the last row.
async fn read(store: &Store, manifest: &Manifest, row: usize) -> Result<Option<Sample>> {
    let rollout = manifest.stage;
    let StageSpec::Rollout(spec) = &manifest.spec else {
        let kind = manifest.spec.kind();
        return Err(JobsError::data(format!(
            "{rollout} is a stage of kind {kind}, expected a rollout"
        )));
    };
    let trajectories = Trajectories::read(store, spec, manifest).await?;
    Ok(trajectories.trajectory(row).map(|trajectory| Sample {
        choice: None,
        iteration: spec.iteration,
        rollout,
        reward: None,
        correct: None,
        parts: vec![],
        trajectory,
    }))
}
