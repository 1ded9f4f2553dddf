//! Grades by the `[reward]` of a run file: its templates, rules and program, read from the paths that it names.
//!
//! Needs no store and no dataset. A file that is named by its digest alone cannot be read here.

use std::collections::BTreeMap;
use std::path::Path;

use agrpo_compute::RowGrader;
use agrpo_grading::Row;
use agrpo_programs::Programs;
use agrpo_spec::{
    Artifact, ArtifactDigest, DatasetTask, Inputs, RewardConfig, Run, StageError, Task as RunTask,
    with_digests,
};
use agrpo_store::regular;
use bytes::Bytes;
use serde_json::{Value, json};

use super::graded::Graded;
use crate::commands::files::{name_of, plain, read_text};
use crate::commands::sources;
use crate::exit::Failure;
use crate::settings::Settings;

/// A run file's task, with what grades it.
pub(super) struct Task {
    task: DatasetTask,
    reward: RewardConfig,
    inputs: Inputs,
    programs: Programs,
}

impl Task {
    pub(super) fn read(file: &Path, settings: &Settings) -> Result<Self, Failure> {
        let text = read_text(file)?;
        let at = |failure: Failure| failure.at(name_of(file));
        let mut inputs = Inputs::default();
        let mut digests = BTreeMap::new();
        for source in sources::named(&text, file, &[]).map_err(at)? {
            // The problems are in the rows that are graded, not in the dataset.
            let mut digest = source.sha256.unwrap_or(ArtifactDigest::of(b""));
            if let (true, Some(from)) = (source.key.starts_with(sources::PROGRAM), &source.from) {
                let bytes = regular::read(Path::new(from)).map(Bytes::from).map_err(|error| {
                    at(Failure::usage(format!(
                        "{}: cannot read {from}: {}",
                        source.key,
                        plain(&error)
                    )))
                })?;
                digest = ArtifactDigest::of(&bytes);
                inputs.insert(digest, Artifact::Blob(bytes.into()));
            }
            digests.insert(source.key, digest);
        }
        if digests.contains_key(agrpo_spec::CHECKPOINT) {
            let nothing = ArtifactDigest::of(b"");
            let inside = ["checkpoint.config", "checkpoint.tokenizer"];
            digests.extend(inside.map(|key| (key.to_owned(), nothing)));
        }
        let run = with_digests(&text, &digests).and_then(|text| Run::parse(&text));
        let run = run.map_err(|error| at(error.into()))?;
        let RunTask::Dataset(task) = &run.config().task else {
            let failure = Failure::usage("expected a run file with [task.dataset]");
            return Err(at(failure.hint("--task grades by the other tasks' rules")));
        };
        let reward = run.config().reward.clone();
        let programs = Programs::new(settings.path());
        Ok(Self { task: task.clone(), reward, inputs, programs })
    }

    pub(super) fn grader(&self) -> Result<RowGrader<'_>, Failure> {
        RowGrader::open(&self.task, &self.reward, &self.inputs, &self.programs).map_err(refused)
    }
}

/// One row, which holds the columns that the task's templates want.
pub(super) fn grade(
    grader: &RowGrader<'_>,
    mut row: Row,
    completion: &str,
) -> Result<Graded, Failure> {
    row.fields.remove("completion");
    let graded = grader.grade(row, completion).map_err(refused)?;
    Ok(Graded {
        reward: graded.reward,
        parts: json!(graded.parts),
        extracted: Value::Null,
        correct: graded.correct,
        cells: None,
    })
}

/// Rows, run file and program are all the caller's, so every error is a usage error.
fn refused(error: StageError) -> Failure {
    Failure::usage(error.to_string())
}
