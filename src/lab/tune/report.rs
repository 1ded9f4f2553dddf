//! A tuning as text and as JSON. Judges nothing that `measure.rs` and `choice.rs` have not judged.

use agrpo_spec::{ArtifactDigest, Horizon, Run, RunId};
use agrpo_view::text::{name_of, percent, table};
use serde::Serialize;

use super::measure::{Question, Tuning};
use super::row::{Row, SEEN};
use super::{choice::ClosedForm, grid::Setting};

/// The policy that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Subject {
    /// Its name in tables and charts.
    #[serde(rename = "policy")]
    pub name: String,
    /// The iteration that made it; 0 is the base.
    pub iteration: u32,
    /// Its weights.
    pub artifact: ArtifactDigest,
}

/// The JSON document of a tuning.
#[derive(Debug, Serialize)]
pub struct Report {
    run: RunId,
    name: String,
    #[serde(flatten)]
    policy: Subject,
    seed: u64,
    repeats: u32,
    batch: Sample,
    horizon: Horizon,
    /// The run's own estimator, and its cost if it was measured.
    own: Own,
    #[serde(flatten)]
    pub(super) tuning: Tuning,
}

/// The batch that was measured on.
#[derive(Debug, Serialize)]
struct Sample {
    prompts: u32,
    group: u32,
    completions: usize,
    /// Completions with an advantage.
    moving: usize,
    correct: usize,
}

#[derive(Debug, Serialize)]
struct Own {
    #[serde(flatten)]
    setting: Setting,
    cost: Option<f64>,
}

impl Report {
    /// The report on a run's policy.
    pub fn new(
        run: &Run,
        policy: Subject,
        question: &Question<'_>,
        (seed, repeats): (u64, u32),
        mut tuning: Tuning,
    ) -> Self {
        let (config, rows) = (run.config(), &question.fresh.rewards.rows);
        let setting = Setting::of(&config.estimator);
        let cost = tuning.rows.iter().find(|row| row.setting == setting).and_then(|row| row.cost);
        if config.estimator.kl.get() > 0.0 {
            tuning.left_out.push("the divergence term, estimator.kl".to_owned());
        }
        Self {
            run: run.id(),
            name: config.name.clone(),
            policy,
            seed,
            repeats,
            batch: Sample {
                prompts: question.rollout.prompts,
                group: question.rollout.group,
                completions: rows.len(),
                moving: rows.iter().filter(|row| row.advantage != 0.0).count(),
                correct: rows.iter().filter(|row| row.correct).count(),
            },
            horizon: config.estimator.horizon,
            own: Own { setting, cost },
            tuning,
        }
    }

    /// The report for people.
    pub fn describe(&self) -> String {
        const HEAD: &str =
            "kind,k,strata,weights,samples,states,seconds,rel. std,var. ratio,bias,cosine,cost";
        let head = HEAD.split(',').map(str::to_owned).collect();
        let rows: Vec<_> = [head].into_iter().chain(self.tuning.rows.iter().map(cells)).collect();
        let mut lines =
            vec![self.title(), self.batch(), String::new(), table(&rows), String::new()];
        lines.extend(self.recommendation());
        lines.extend(self.tuning.closed_form.as_ref().map(formula));
        lines.extend(self.tuning.positions.as_ref().map(|positions| {
            let (share, cosine) = (percent(positions.share), number(positions.cosine));
            format!("gradient of the positions chosen: {share} of the whole; without it, cosine {cosine}")
        }));
        lines.extend(self.tuning.left_out.iter().map(|why| format!("left out: {why}")));
        lines.join("\n")
    }

    pub(super) fn title(&self) -> String {
        format!("{} ({}): estimators at {}", self.name, self.run.short(), self.policy.name)
    }

    fn batch(&self) -> String {
        let Sample { prompts, group, completions, moving, .. } = self.batch;
        let rollout = self.tuning.rollout;
        let horizon = name_of(&self.horizon);
        format!(
            "{prompts} prompts x {group} completions, {moving} of {completions} with an advantage; {} estimates each; {horizon} horizon\n\
             the batch itself: relative std {}, {:.3} s to sample",
            self.repeats,
            percent(rollout.relative_std),
            rollout.seconds
        )
    }

    fn recommendation(&self) -> Vec<String> {
        let Some(best) = self.tuning.recommended else {
            return vec!["nothing is recommended: no k of agrpo was measured".to_owned()];
        };
        let mut lines = vec![format!(
            "recommended: {best}; its cost, (rollout + step variance) x (rollout + gradient seconds), is the least"
        )];
        if let (false, Some(cost)) = (best == self.own.setting, self.own.cost) {
            lines.push(format!("the run's own, {}, costs {cost:.2} times that", self.own.setting));
        }
        lines
    }
}

fn cells(row: &Row) -> Vec<String> {
    let Setting { kind, k, strata, step_weights, position_gradient } = row.setting;
    let kind = if position_gradient { format!("{kind}+positions") } else { kind.to_string() };
    vec![
        kind,
        k.to_string(),
        strata.map_or_else(dash, |strata| name_of(&strata)),
        step_weights.map_or_else(dash, |weights| name_of(&weights)),
        row.samples.to_string(),
        format!("{:.0}", row.states),
        format!("{:.4}", row.seconds),
        percent(row.relative_std),
        number(row.variance_ratio),
        bias(row),
        number(row.cosine),
        number(row.cost),
    ]
}

/// The bias as a share of the target's length, or below what it is if noise hides it.
fn bias(row: &Row) -> String {
    // Where nothing is drawn there is no noise.
    if row.bias_z.is_none_or(|z| z >= SEEN) {
        return percent(row.bias_share);
    }
    // What a bias would have to be to stand out: two errors above what was seen.
    let most = (row.squared_bias.max(0.0) + 2.0 * row.squared_bias_error).sqrt();
    let length = row.variance.sqrt() / row.relative_std;
    format!("< {}", percent(most / length))
}

fn formula(form: &ClosedForm) -> String {
    let ClosedForm { k, step_variance, rollout_variance, seconds_per_sample, rollout_seconds } =
        form;
    let spread = (step_variance / rollout_variance).sqrt();
    let price = (rollout_seconds / seconds_per_sample).sqrt();
    format!(
        "by formula, plain sampling: k* = sigma_step / sigma_roll x sqrt(c_roll / c_grad) = {spread:.2} x {price:.2} = {k:.1}"
    )
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(dash, |value| format!("{value:.2}"))
}

/// In place of what a setting does not have.
fn dash() -> String {
    "-".to_owned()
}
