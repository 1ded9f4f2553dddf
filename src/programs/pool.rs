//! Scores rows with programs: each stage that asks at the same time has a process of its own, and processes
//! wait for the next stage. Limits no process: `process.rs` does.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use agrpo_spec::{Program, Sample, Score, Scorer, StageError, excerpt};
use bytes::Bytes;

use crate::fault::{Fault, quoted};
use crate::{folder, process::Process};

/// Most idle programs; when there are more, the program of the last stage ends.
const MOST_IDLE: usize = 64;

/// Attempts at a row. The second one, after the process ended or hung, uses a new process.
const TRIES: u32 = 2;

/// Runs programs, and holds idle ones for the next stage.
#[derive(Debug)]
pub struct Programs {
    path: String,
    idle: Mutex<Vec<(Program, Process)>>,
}

impl Programs {
    /// With the `PATH` that programs see. The first pool of a process removes orphaned folders.
    pub fn new(path: impl Into<String>) -> Self {
        static FIRST: Once = Once::new();
        FIRST.call_once(|| folder::remove_orphans(&std::env::temp_dir()));
        Self { path: path.into(), idle: Mutex::default() }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Program, Process)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scorer for Programs {
    fn score(
        &self,
        program: &Program,
        files: &BTreeMap<String, Bytes>,
        samples: &[Sample],
    ) -> Result<Vec<Score>, StageError> {
        let start = || {
            Process::start(program, files, &self.path).map_err(|why| {
                StageError::Internal(format!("the reward program {} {why}", shown(program)).into())
            })
        };
        let mut scores = Vec::with_capacity(samples.len());
        let mut process = {
            let mut idle = self.idle();
            let index = idle.iter().position(|(found, _)| found == program);
            index.map(|index| idle.swap_remove(index).1)
        };
        for sample in samples {
            let line = row(sample);
            let mut tries = 0;
            let score = loop {
                let mut asked = match process.take() {
                    // A process that ended while it was idle is replaced without a message.
                    Some(waiting) if !waiting.has_ended() => waiting,
                    _ => start()?,
                };
                tries += 1;
                match asked.ask(&line, &sample.id) {
                    Ok(score) => {
                        process = Some(asked);
                        break score;
                    }
                    Err(fault) => {
                        let error = failure(program, sample, &fault, &asked.end());
                        if !fault.may_pass() || tries == TRIES {
                            return Err(error);
                        }
                        tracing::warn!("{error}; asking a new process once more");
                    }
                }
            };
            scores.push(score);
        }
        if let (Some(mut process), Some(last)) = (process, samples.last()) {
            if let Some(fault) = process.surplus() {
                return Err(failure(program, last, &fault, &process.end()));
            }
            let mut idle = self.idle();
            if idle.len() < MOST_IDLE {
                idle.push((program.clone(), process));
            }
        }
        Ok(scores)
    }
}

/// A row as programs read it, with the end of its line.
fn row(sample: &Sample) -> Vec<u8> {
    let Sample { id, place: _, prompt, completion, answer, row } = sample;
    let mut object = serde_json::json!({
        "id": id, "prompt": prompt, "completion": completion, "row": row,
    });
    if let Some(answer) = answer {
        object["answer"] = answer.as_str().into();
    }
    format!("{object}\n").into_bytes()
}

/// The error in one line: what the program did, on which row, and the last lines that it wrote.
fn failure(program: &Program, sample: &Sample, fault: &Fault, stderr: &[String]) -> StageError {
    let Sample { id, place, prompt, completion, .. } = sample;
    let last_lines = match stderr {
        [] => "it wrote nothing to stderr".to_owned(),
        lines => format!("its last lines on stderr: {}", lines.join(" | ")),
    };
    let message = format!(
        "the reward program {} {}; asked about {place}, id {id:?}, prompt {}, completion {}; {last_lines}",
        shown(program),
        fault.describe(program),
        quoted(prompt),
        quoted(completion),
    );
    if fault.may_pass() {
        StageError::Internal(message.into())
    } else {
        StageError::Invalid(message.into())
    }
}

fn shown(program: &Program) -> String {
    format!("`{}`", excerpt(&program.command.join(" ")).escape_debug())
}

#[cfg(test)]
mod tests;
