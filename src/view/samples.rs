//! Sample completions of an iteration's rollouts: the best, the worst, and one at random.
//!
//! The choice is a function of the run alone, so that two reports of a run show the same. Artifacts that were lost
//! or deleted by retention are left out.

use agrpo_spec::{Rewards, RowReward, StageDigest, StageKey, StageKind, StageSpec, decode};
use agrpo_store::Store;
use serde::Serialize;

use crate::ViewError;
use crate::history::RunHistory;
use crate::trajectory::{Trajectories, Trajectory};

/// Shards of an iteration that are looked through.
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

impl Choice {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Worst => "worst",
            Self::Random => "by chance",
        }
    }
}

/// A completion and what it was worth.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Why it is shown; none where it was asked for.
    pub choice: Option<Choice>,
    /// Whose policy wrote it, counted from 1: the base writes those of iteration 1.
    pub iteration: u32,
    /// The rollout.
    pub rollout: StageDigest,
    /// Its reward.
    pub reward: Option<f64>,
    /// Whether it is right.
    pub correct: Option<bool>,
    /// The parts of the reward.
    pub parts: Vec<(String, f64)>,
    /// How it came about.
    pub trajectory: Trajectory,
}

/// The best, the worst and one other completion of an iteration, of those that the store still has.
pub async fn of_iteration(
    store: &Store,
    history: &RunHistory,
    iteration: u32,
) -> Result<Vec<Sample>, ViewError> {
    let mut all = vec![];
    for shard in 0..history.run().config().rollout.shards.min(MOST_SHARDS) {
        let key = StageKey::new(StageKind::Reward, iteration, shard);
        let Some(done) = history.stages().get(&key) else { continue };
        let Some(rewards) = rewards(store, done.outputs.get("rewards").copied()).await else {
            continue;
        };
        all.extend(rewards.rows.into_iter().enumerate().map(|(row, worth)| (shard, row, worth)));
    }
    // Of equals the first, so that the choice is a function of the run.
    let best = (0..all.len()).rev().max_by(|&a, &b| all[a].2.reward.total_cmp(&all[b].2.reward));
    let worst = (0..all.len()).min_by(|&a, &b| all[a].2.reward.total_cmp(&all[b].2.reward));
    let chance = history.run().seed().child(agrpo_spec::Purpose::Sample, iteration.into());
    let random = u64::try_from(all.len()).ok().filter(|count| *count > 0);
    let random = random.and_then(|count| usize::try_from(chance.below(count, 0, 0)).ok());
    let chosen = [(best, Choice::Best), (worst, Choice::Worst), (random, Choice::Random)];
    let mut samples = vec![];
    for (place, choice) in chosen {
        let Some((shard, row, worth)) = place.and_then(|place| all.get(place)) else { continue };
        let key = StageKey::new(StageKind::Rollout, iteration, *shard);
        if let Some(sample) = sample(store, history, key, *row, Some(worth)).await? {
            samples.push(Sample { choice: Some(choice), ..sample });
        }
    }
    Ok(samples)
}

/// One completion of a rollout; `None` where the store has it no longer.
async fn sample(
    store: &Store,
    history: &RunHistory,
    key: StageKey,
    row: usize,
    worth: Option<&RowReward>,
) -> Result<Option<Sample>, ViewError> {
    let Some(done) = history.stages().get(&key) else { return Ok(None) };
    let Some(manifest) = store.manifest(done.stage).await? else { return Ok(None) };
    let StageSpec::Rollout(spec) = &manifest.spec else { return Ok(None) };
    let Ok(trajectories) = Trajectories::read(store, spec, &manifest).await else {
        return Ok(None);
    };
    Ok(trajectories.trajectory(row).map(|trajectory| Sample {
        choice: None,
        iteration: key.iteration,
        rollout: done.stage,
        reward: worth.map(|worth| worth.reward),
        correct: worth.map(|worth| worth.correct),
        parts: worth.map_or_else(Vec::new, |worth| worth.parts.clone().into_iter().collect()),
        trajectory,
    }))
}

async fn rewards(store: &Store, digest: Option<agrpo_spec::ArtifactDigest>) -> Option<Rewards> {
    decode(&store.get_blob(digest?).await.ok()?)
}

/// One completion of a rollout by its stage, whatever run it belongs to. Data error where it cannot be read.
pub async fn of_rollout(
    store: &Store,
    rollout: StageDigest,
    row: usize,
) -> Result<Option<Sample>, ViewError> {
    let missing = || ViewError::Data(format!("the record of stage {rollout} is missing"));
    let manifest = store.manifest(rollout).await?.ok_or_else(missing)?;
    let StageSpec::Rollout(spec) = &manifest.spec else {
        let kind = manifest.spec.kind();
        return Err(ViewError::Data(format!("{rollout} is a {kind} stage, expected a rollout")));
    };
    let trajectories = Trajectories::read(store, spec, &manifest).await?;
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
