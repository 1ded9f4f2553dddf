//! One policy at one length and number of steps: what is to be evaluated, and what its stages stored, as a row. Shares and
//! intervals are computed by `statistics.rs` from the histograms in their documents. Compares no rows.

use std::collections::BTreeMap;

use agrpo_fleet::batch::Settled;
use agrpo_spec::{
    ArtifactDigest, Evaluation, EvaluationResult, EvaluationSpec, GridCell, Sampler, StageDigest,
    Together,
};
use agrpo_view::statistics::{Estimate, Interval, interval, pass_at};

use crate::commands::prelude::{Failure, Result, Serialize, Store, output};
use crate::commands::resolve::Policy;

/// One policy at one number of steps, to be evaluated.
pub(super) struct Cell {
    pub(super) policy: Policy,
    pub(super) sampler: Sampler,
    pub(super) problems: u32,
    /// One, or the shards.
    pub(super) stages: Vec<EvaluationSpec>,
}

/// The same, evaluated.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) policy: String,
    pub(super) iteration: u32,
    pub(super) artifact: ArtifactDigest,
    /// The stage; the first one of an evaluation in shards.
    pub(super) stage: StageDigest,
    /// All stages of an evaluation in shards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) shards: Vec<StageDigest>,
    /// Whether all of it was in the store.
    pub(super) reused: bool,
    /// The length and the steps, as a grid names them.
    pub(super) cell: GridCell,
    pub(super) steps: u32,
    pub(super) tokens_per_step: u32,
    /// What the task's protocol reports: the share of right completions, or of points where answers earn parts of them.
    pub(super) score: f64,
    /// Of `score`; none where it is of points.
    pub(super) interval: Option<Interval>,
    /// Forward passes of a completion, in the mean.
    pub(super) passes: f64,
    pub(super) correct: u64,
    pub(super) accuracy: Estimate,
    pub(super) solved_by: Vec<u64>,
    /// By the number of completions: 1, 2, 4 and so on, and all.
    pub(super) pass_at: BTreeMap<usize, Estimate>,
}

fn corrupt(stage: StageDigest, why: impl std::fmt::Display) -> Failure {
    Failure::data(format!("the evaluation of stage {stage} cannot be read: {why}"))
        .hint(format!("agrpo replay {}", stage.short()))
}

async fn document(store: &Store, one: &Settled) -> Result<Evaluation> {
    let stage = one.manifest.stage;
    let blob = one.manifest.output("evaluation").ok_or_else(|| corrupt(stage, "no output"))?;
    let bytes = store.cas.get(blob).await?;
    Evaluation::from_bytes(&bytes).map_err(|error| corrupt(stage, error))
}

/// The row of a cell, from its stage or its shards.
pub(super) async fn row(store: &Store, cell: &Cell, settled: &[Settled]) -> Result<Row> {
    let stages: Vec<StageDigest> = settled.iter().map(|one| one.manifest.stage).collect();
    let stage = *stages.first().ok_or_else(|| Failure::unexpected("a cell has no stage"))?;
    let mut documents = vec![];
    for one in settled {
        documents.push(document(store, one).await?);
    }
    let corrupt = |why: &str| corrupt(stage, why);
    let document = Evaluation::whole(&documents.iter().collect::<Vec<_>>());
    let document = document.ok_or_else(|| corrupt("its shards do not fit together"))?;
    let result = document.results.into_iter().next();
    let result = result.ok_or_else(|| corrupt("no result"))?;
    let interval = interval(&result);
    let EvaluationResult { accuracy: score, correct, solved_by, .. } = result;
    let accuracy = pass_at(&solved_by, 1).ok_or_else(|| corrupt("no completion"))?;
    let metrics: Vec<_> = settled.iter().map(|one| &one.manifest.metrics).collect();
    let passes = BTreeMap::whole(&metrics);
    let passes = passes.and_then(|all| all.get(agrpo_spec::metrics::PASSES).copied());
    let passes = passes.ok_or_else(|| corrupt("no number of passes"))?;
    let draws = solved_by.len() - 1;
    let doubled = std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|&n| n < draws);
    let tries = doubled.chain([draws]);
    Ok(Row {
        policy: output::policy(cell.policy.iteration),
        iteration: cell.policy.iteration,
        artifact: cell.policy.artifact,
        stage,
        shards: if stages.len() > 1 { stages } else { vec![] },
        reused: settled.iter().all(|one| one.reused),
        cell: GridCell::from(&cell.sampler),
        score,
        interval,
        steps: cell.sampler.steps,
        tokens_per_step: cell.sampler.completion_tokens / cell.sampler.steps,
        passes,
        correct,
        accuracy,
        pass_at: tries.filter_map(|n| Some((n, pass_at(&solved_by, n)?))).collect(),
        solved_by,
    })
}
