//! What this machine measured: the last stages of each kind that it computed, of this run or of one whose stages have the
//! same sizes, on as many threads, which as many stages shared. Manifests say all of it; one that does not say how many
//! stages were computed at once is passed over. Reads stores on this machine alone, and ignores what it cannot read: an
//! estimate does without.

use std::collections::BTreeMap;

use agrpo_spec::{Environment, Manifest, Run, RunConfig, StageKind};

use super::super::prelude::{Result, Serialize, Session, Store};

/// Stages of a kind that are looked at, the last ones of a run.
const LAST: usize = 5;

/// The median of some stages.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Measured {
    /// With its inputs read and its outputs stored.
    pub(super) seconds: f64,
    pub(super) stages: usize,
}

/// By kind; empty without a store.
pub(super) fn measured(
    session: &Session,
    run: &Run,
    here: &Environment,
) -> BTreeMap<StageKind, Measured> {
    if session.store_folder().is_none() {
        return BTreeMap::new();
    }
    let found = session.on_store(async |store| look(&store, run, here).await);
    found.unwrap_or_default().into_iter().map(|(kind, seconds)| (kind, median(seconds))).collect()
}

async fn look(
    store: &Store,
    run: &Run,
    here: &Environment,
) -> Result<BTreeMap<StageKind, Vec<f64>>> {
    let records = &store.records;
    let mut found = BTreeMap::<StageKind, Vec<f64>>::new();
    for id in records.runs().await? {
        let is_like = match records.run(id).await {
            Ok(other) => id == run.id() || is_like(run.config(), other.config()),
            Err(_) => false,
        };
        if !is_like {
            continue;
        }
        let entries = records.recorded_entries(id).await?;
        for kind in StageKind::ALL {
            let of_kind = entries.iter().rev().filter(|(key, _)| key.kind == kind);
            for (_, stage) in of_kind.take(LAST) {
                let Ok(Some(manifest)) = records.manifest(*stage).await else { continue };
                if is_of(&manifest, run, here) {
                    found.entry(kind).or_default().push(seconds(&manifest));
                }
            }
        }
    }
    Ok(found)
}

/// Whether the stages of two runs have the same sizes, whatever they learn.
fn is_like(ours: &RunConfig, other: &RunConfig) -> bool {
    let mut other = RunConfig {
        name: ours.name.clone(),
        seed: ours.seed,
        training: ours.training.clone(),
        optimizer: ours.optimizer.clone(),
        retention: ours.retention,
        ..other.clone()
    };
    if let (Some(sft), Some(ours)) = (&mut other.sft, &ours.sft) {
        (sft.steps, sft.noisy_steps) = (ours.steps, ours.noisy_steps);
        sft.optimizer = ours.optimizer.clone();
    }
    other == *ours
}

/// Whether the stage was computed here, in the run's class, on as many threads beside as many others.
fn is_of(manifest: &Manifest, run: &Run, here: &Environment) -> bool {
    manifest.spec.numerics() == run.config().numerics && is_as(&manifest.environment, here)
}

fn is_as(there: &Environment, here: &Environment) -> bool {
    (&there.host, &there.cpu, &there.gpu) == (&here.host, &here.cpu, &here.gpu)
        && (there.threads, there.stages_at_once) == (here.threads, here.stages_at_once)
}

fn seconds(manifest: &Manifest) -> f64 {
    let phases = &manifest.phases;
    (phases.fetch_ms + phases.compute_ms + phases.store_ms) / 1e3
}

fn median(mut seconds: Vec<f64>) -> Measured {
    seconds.sort_by(f64::total_cmp);
    Measured { seconds: seconds[seconds.len() / 2], stages: seconds.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: (&str, &str)) -> RunConfig {
        let text = include_str!("../../../jobs/runs/smoke.toml");
        assert!(text.contains(change.0), "{change:?}");
        Run::parse(&text.replacen(change.0, change.1, 1)).unwrap().config().clone()
    }

    #[test]
    fn stages_of_the_same_sizes_are_compared_whatever_they_learn() {
        let ours = config(("", ""));
        for same in [
            ("seed = 1 ", "seed = 2 "),
            ("iterations = 10", "iterations = 99"),
            ("learning_rate = 5e-4", "learning_rate = 1e-4"),
            ("\nsteps = 450", "\nsteps = 900"),
        ] {
            assert!(is_like(&ours, &config(same)), "{same:?}");
        }
        for other in [
            ("d_model = 64", "d_model = 128"),
            ("prompts = 64", "prompts = 32"),
            ("steps_per_stage = 50", "steps_per_stage = 25"),
            ("problems = 500", "problems = 100"),
        ] {
            assert!(!is_like(&ours, &config(other)), "{other:?}");
        }
    }

    #[test]
    fn a_time_counts_where_as_many_stages_shared_as_many_threads() {
        let here = Environment {
            host: "here".to_owned(),
            threads: 4,
            stages_at_once: Some(1),
            ..Environment::default()
        };
        let later = Environment { agrpo: "later".to_owned(), started_unix_ms: 7, ..here.clone() };
        assert!(is_as(&later, &here));
        for other in [
            Environment { stages_at_once: Some(4), ..here.clone() },
            Environment { stages_at_once: None, ..here.clone() },
            Environment { threads: 1, ..here.clone() },
            Environment { gpu: Some("a GPU".to_owned()), ..here.clone() },
            Environment { host: "there".to_owned(), ..here.clone() },
        ] {
            assert!(!is_as(&other, &here), "{other:?}");
        }
    }

    #[test]
    fn a_median_is_one_of_what_was_measured() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]).seconds, 2.0);
        assert_eq!(median(vec![4.0]).stages, 1);
    }
}
