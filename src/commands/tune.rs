//! `agrpo tune`: the estimators of a run's policy gradient, measured on a fresh batch.
//!
//! Reads a policy, samples with the run's own settings, and leaves nothing behind in the store: seconds
//! are part of the answer, so it is no stage. What is measured is in `agrpo_stages::tune`, what is made
//! of it in `report.rs`.

mod chart;
mod report;

use std::collections::BTreeSet;

use agrpo_spec::{
    Artifact, EstimatorKind, Numerics, Purpose, RolloutSpec, Run, Sampler, Samples, Seed,
    StageError, StageKind, StageSpec,
};
use agrpo_stages::model::{Placement, Policy as Model};
use agrpo_stages::tune::{Fresh, Grid, Question, Row, measure, refusal};

use self::report::{Report, Sample, words};
use crate::cli::{PolicyArg, TuneArgs};
use crate::commands::policies::{Policy, policies};
use crate::commands::{block_on, open_store};
use crate::exit::{Exit, Failure};
use crate::machine;
use crate::output;
use crate::place::Place;
use crate::settings::Settings;
use crate::tally::percent;

/// Prompts of the batch, unless more or fewer are asked for.
const PROMPTS: u32 = 8;
/// The largest of the powers of two that are measured unasked.
const MOST_SAMPLES: u32 = 32;

/// Measures the run's estimators.
pub(super) fn tune(args: &TuneArgs, settings: &Settings) -> Result<Exit, Failure> {
    let flag = args.store.store.as_deref();
    args.plot.as_deref().map_or(Ok(()), crate::commands::chart::check_place)?;
    let (run, policy) = block_on(async {
        let store = open_store(settings, flag).await?;
        let id = store.resolve_run(&args.run).await?;
        let run = store.run(id).await?;
        let all = policies(&store, &run, flag).await?;
        let found = match args.iteration {
            PolicyArg::Base => all.first(),
            PolicyArg::Latest => all.last(),
        };
        let none = || Failure::new(Exit::Unexpected, "there is no policy to measure");
        Ok((run, *found.ok_or_else(none)?))
    })?;
    let grid = grid(&run, args)?;
    let numerics = run.config().numerics;
    let place = Place::find(args.device.device, settings)?;
    place.enter(settings, numerics, None)?;
    let rollout = rollout(&run, policy, numerics, args);
    let spec = StageSpec::Rollout(rollout.clone());
    let inputs = block_on(async {
        let store = open_store(settings, flag).await?;
        let mut inputs = store.load_inputs(&spec).await?;
        for &file in run.config().reward.files.values() {
            inputs.insert(file, Artifact::Blob(store.get_blob(file).await?.into()));
        }
        Ok(inputs)
    })?;
    let files = inputs.folder(policy.artifact)?;
    let config = run.config();
    let at = Placement::on(place.device, run.base().precision());
    let model = Model::for_training(files, config.lora.as_ref(), run.seed(), at)?;
    let clock = machine::stopwatch();
    let worth = (&config.reward, &config.advantage);
    let fresh = Fresh::sample(&rollout, worth, &model, (&inputs, &*place.programs), &clock)?;
    let question = Question {
        policy: &model,
        trajectories: &fresh.trajectories,
        worths: &fresh.worths(),
        group: config.rollout.group as usize,
        sampler: &rollout.sampler,
        estimator: &config.estimator,
        rollout_seconds: fresh.seconds,
        seed: rollout.seed,
    };
    let mut done = 0;
    let mut tell = |row: &Row, all: usize| {
        done += 1;
        let (setting, spread) = (words(&row.setting), percent(row.relative_std));
        output::talk(format!("tune {done}/{all}  {setting}  relative std {spread}"));
    };
    let tuning = measure(&question, &grid, &clock, &mut tell).map_err(told)?;
    let sample = Sample::of(&fresh, rollout.prompts, rollout.group);
    let report = Report::new(&run, policy, args.seed, grid.repeats, sample, tuning);
    if args.json.json {
        output::json(&report)?;
    } else {
        output::line(report.describe())?;
    }
    if let Some(place) = &args.plot {
        crate::commands::chart::write(place, &chart::draw(&report)?)?;
    }
    Ok(Exit::Done)
}

/// A batch from which nothing can be learned, and what to do about it.
fn told(error: StageError) -> Failure {
    match error {
        StageError::Invalid(why) => Failure::usage(why)
            .hint("--prompts N: more prompts make it likelier that completions of one differ")
            .hint("--seed N draws other completions; --iteration chooses the base or the newest policy"),
        error => error.into(),
    }
}

/// What is to be measured.
fn grid(run: &Run, args: &TuneArgs) -> Result<Grid, Failure> {
    let config = run.config();
    let sampler = Sampler::from(&config.rollout);
    for asked in &args.estimators {
        if let Some(why) = refusal(asked.0, &sampler, &config.estimator) {
            return Err(Failure::usage(format!("--estimators {why}")));
        }
    }
    let kinds = match args.estimators.as_slice() {
        [] => EstimatorKind::ALL.to_vec(),
        asked => EstimatorKind::ALL
            .into_iter()
            .filter(|kind| asked.iter().any(|one| one.0 == *kind))
            .collect(),
    };
    let samples: BTreeSet<u32> = match args.k.as_slice() {
        [] => {
            let most = config.rollout.steps.min(MOST_SAMPLES);
            let doubled = std::iter::successors(Some(1), |k| Some(k * 2));
            let own = match config.estimator.k {
                Samples::Count(k) => Some(k),
                Samples::All => None,
            };
            doubled.take_while(|&k| k <= most).chain(own).collect()
        }
        asked => asked.iter().copied().collect(),
    };
    Ok(Grid { kinds, samples: samples.into_iter().collect(), repeats: args.repeats })
}

/// The batch: the prompts that the run would take next, with other draws than its own.
fn rollout(run: &Run, policy: Policy, numerics: Numerics, args: &TuneArgs) -> RolloutSpec {
    let config = run.config();
    let of_shard = config.rollout.prompts / config.rollout.shards;
    let seed: Seed = run.seed().child(Purpose::Tuning, args.seed);
    RolloutSpec {
        version: StageKind::Rollout.version(),
        numerics,
        seed,
        task: config.task.clone(),
        language: run.base().language(),
        policy: policy.artifact,
        precision: run.base().precision(),
        iteration: policy.iteration + 1,
        first_prompt: u64::from(policy.iteration) * u64::from(config.rollout.prompts),
        prompts: args.prompts.unwrap_or(of_shard.clamp(2, PROMPTS)),
        group: config.rollout.group,
        micro_batch: config.rollout.micro_batch,
        sampler: Sampler::from(&config.rollout),
        // Learner and sampler are one policy here.
        merge_adapter: false,
    }
}
