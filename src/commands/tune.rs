//! `agrpo tune`: the estimators of a run's policy gradient, measured on a fresh batch.
//!
//! Reads a policy, samples with the run's own settings, and leaves nothing behind in the store: seconds
//! are part of the answer, so it is no stage. The measurement and its report are those of `agrpo_lab::tune`.

use agrpo_compute::model::{Placement, Policy as Model};
use agrpo_lab::tune::{
    self, Fresh, Grid, Question, Report, Row, Sample, Subject, measure, refusal,
};
use agrpo_spec::{Artifact, EstimatorKind, Run, Sampler, StageError, StageSpec};

use crate::args::{PolicyArg, TuneArgs};
use crate::commands::chart;
use crate::commands::policies::{Policy as PolicyOf, policies};
use crate::device::ComputeDevice;
use crate::exit::{Exit, Failure};
use crate::machine;
use crate::output;
use crate::session::Session;

/// Measures the run's estimators.
pub(super) fn tune(args: &TuneArgs, session: &Session) -> Result<Exit, Failure> {
    args.plot.as_deref().map_or(Ok(()), chart::check_writable)?;
    let (run, policy) = session.block_on(async {
        let store = session.existing_store().await?;
        let id = store.resolve_run(&args.run).await?;
        let run = store.run(id).await?;
        let all = policies(&store, &run, session).await?;
        let found = match args.iteration {
            PolicyArg::Base => all.first(),
            PolicyArg::Latest => all.last(),
        };
        let none = || Failure::new(Exit::Unexpected, "there is no policy to measure");
        Ok((run, *found.ok_or_else(none)?))
    })?;
    let grid = grid(&run, args)?;
    let device = ComputeDevice::find(args.device.device, &session.settings)?;
    device.enter(&session.settings, run.config().numerics, None)?;
    let rollout = tune::batch(&run, (policy.iteration, policy.artifact), args.prompts, args.seed);
    let spec = StageSpec::Rollout(rollout.clone());
    let inputs = session.block_on(async {
        let store = session.existing_store().await?;
        let mut inputs = store.load_inputs(&spec).await?;
        for &file in run.config().reward.files.values() {
            inputs.insert(file, Artifact::Blob(store.get_blob(file).await?.into()));
        }
        Ok(inputs)
    })?;
    let files = inputs.folder(policy.artifact)?;
    let config = run.config();
    let at = Placement::on(device.id, run.base().precision());
    let model = Model::for_training(files, config.lora.as_ref(), run.seed(), at)?;
    let clock = machine::stopwatch();
    let worth = (&config.reward, &config.advantage);
    let fresh = Fresh::sample(&rollout, worth, &model, (&inputs, &*device.programs), &clock)?;
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
    let mut progress = |row: &Row, all: usize| {
        done += 1;
        let (setting, spread) = (row.setting, output::percent(row.relative_std));
        output::talk(format!("tune {done}/{all}  {setting}  relative std {spread}"));
    };
    let tuning = measure(&question, &grid, &clock, &mut progress).map_err(failure)?;
    let sample = Sample::of(&fresh, rollout.prompts, rollout.group);
    let PolicyOf { iteration, artifact } = policy;
    let policy = Subject { name: policy.name(), iteration, artifact };
    let report = Report::new(&run, policy, args.seed, grid.repeats, sample, tuning);
    if args.json.json {
        output::json(&report)?;
    } else {
        output::line(report.describe())?;
    }
    if let Some(place) = &args.plot {
        chart::write(place, &tune::chart(&report)?)?;
    }
    Ok(Exit::Done)
}

/// A batch from which nothing can be learned, and what to do about it.
fn failure(error: StageError) -> Failure {
    match error {
        StageError::Invalid(why) => Failure::usage(why)
            .hint("--prompts N: more prompts make it likelier that completions of one differ")
            .hint("--seed N draws other completions; --iteration chooses the base or the newest policy"),
        error => error.into(),
    }
}

/// The settings that are asked for.
fn grid(run: &Run, args: &TuneArgs) -> Result<Grid, Failure> {
    let config = run.config();
    let sampler = Sampler::from(&config.rollout);
    let kinds: Vec<EstimatorKind> = args.estimators.iter().map(|asked| asked.0).collect();
    for &kind in &kinds {
        if let Some(why) = refusal(kind, &sampler, &config.estimator) {
            return Err(Failure::usage(format!("--estimators {why}")));
        }
    }
    Ok(Grid::new(config, &kinds, &args.k, args.repeats))
}
