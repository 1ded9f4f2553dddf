//! `agrpo tune`: the estimators of a run's policy gradient, measured on a fresh batch. Reads a policy, samples with
//! the run's own settings, and leaves nothing behind in the store: seconds are part of the answer, so it is no stage.
//! The measurement and its report are those of `agrpo_lab::tune`.

use agrpo_compute::model::{Placement, Policy as Model};
use agrpo_lab::tune::{self, Fresh, Grid, Question, Report, Row, Subject, measure, refusal};
use agrpo_spec::{Artifact, Base, Sampler, StageError, StageSpec};

use super::files::{SVG, try_chart, write_and_report};
use super::prelude::{ComputeDevice, Exit, Failure, Result, Session, machine, output};
use super::resolve::{Policy, of_run};
use crate::args::{PolicyArg, TuneArgs};

pub(super) fn tune(args: &TuneArgs, session: &Session) -> Result<Exit> {
    try_chart(args.plot.as_deref())?;
    let (run, policies) = session.block_on(of_run(&args.run, session))?;
    let policy = match args.iteration {
        PolicyArg::Base => policies.first(),
        PolicyArg::Latest => policies.last(),
    };
    let policy = *policy.ok_or_else(|| Failure::unexpected("there is no policy to measure"))?;
    let config = run.config();
    let sampler = Sampler::from(&config.rollout);
    let family = match run.base() {
        Base::Scratch(shape, _) => shape.family,
        Base::Checkpoint(checkpoint) => checkpoint.shape.family,
    };
    let mut kinds = args.estimators.iter();
    if let Some(why) = kinds.find_map(|&kind| refusal(kind, (&sampler, family), &config.estimator))
    {
        return Err(Failure::usage(format!("--estimators {why}")));
    }
    let grid = Grid::new(config, &args.estimators, &args.k, args.repeats);
    let device = ComputeDevice::find(args.device.id, args.threads.count, &session.settings)?;
    device.enter(&session.settings, config.numerics, None)?;
    let rollout = tune::batch(&run, (policy.iteration, policy.artifact), args.prompts, args.seed);
    let spec = StageSpec::Rollout(rollout.clone());
    let inputs = session.on_store(async |store| {
        let mut inputs = store.cas.load_inputs(&spec).await?;
        for &file in config.reward.files.values() {
            inputs.insert(file, Artifact::Blob(store.cas.get(file).await?.into()));
        }
        Ok(inputs)
    })?;
    let files = inputs.folder(policy.artifact)?;
    let at = Placement::on(device.id, run.base().precision());
    let model =
        Model::from_folder_at(files, at)?.ready_to_train(config.lora.as_ref(), run.seed())?;
    let clock = machine::stopwatch();
    let worth = (&config.reward, &config.advantage);
    let fresh = Fresh::sample(
        &rollout,
        worth,
        (&model, &device.threads),
        (&inputs, &*device.programs),
        &clock,
    )?;
    let question = Question {
        policy: &model,
        rollout: &rollout,
        fresh: &fresh,
        estimator: &config.estimator,
        threads: &device.threads,
    };
    let mut done = 0;
    let mut progress = |row: &Row, all: usize| {
        done += 1;
        let (setting, spread) = (row.setting, output::percent(row.relative_std));
        output::talk(format!("tune {done}/{all}  {setting}  relative std {spread}"));
    };
    let tuning = measure(&question, &grid, &clock, &mut progress).map_err(failure)?;
    let Policy { iteration, artifact } = policy;
    let policy = Subject { name: output::policy(iteration), iteration, artifact };
    let report = Report::new(&run, policy, &question, (args.seed, grid.repeats), tuning);
    output::answer(args.answer.json, &report, || report.describe())?;
    if let Some(place) = &args.plot {
        write_and_report(place, &SVG, &tune::chart(&report)?)?;
    }
    Ok(Exit::Done)
}

/// A batch from which nothing can be learned, and what to do about it.
fn failure(error: StageError) -> Failure {
    let prompts = "--prompts N: more prompts make it likelier that completions of one differ";
    let seed =
        "--seed N draws other completions; --iteration chooses the base or the newest policy";
    Failure::from(error).hint_on(Exit::Usage, prompts).hint_on(Exit::Usage, seed)
}
