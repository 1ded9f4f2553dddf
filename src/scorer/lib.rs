//! Programs that grade completions: started in a folder of exactly their files, asked row by row, bounded in
//! time and memory, and ended with everything they started.
//!
//! A program lives for many stages, one for each stage that is computed at the same time. What it answers is
//! an answer to what was asked or an error: never is a number guessed, nor one row's taken for another's. It
//! is no sandbox: a program may read what this process may.

mod family;
mod folder;
mod group;
mod launch;
mod pipes;
mod process;
mod running;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use agrpo_spec::{Program, Sample, Score, Scorer, StageError};
use bytes::Bytes;

use process::{Fault, Process};

pub use running::end_all;

/// Programs that wait for the next stage; those beyond it end.
const MOST_IDLE: usize = 64;

/// How often a row is asked, each time of a new process, where the one before ended or hung.
const TRIES: u32 = 2;

/// Characters of a text that an error shows.
const SHOWN: usize = 120;

/// What runs programs.
#[derive(Debug)]
pub struct Programs {
    /// Where commands are looked for.
    path: String,
    idle: Mutex<Vec<(Program, Process)>>,
}

impl Programs {
    /// With the `PATH` of this process, which is all that programs see of its environment. The first one
    /// removes what programs of processes left that are gone.
    pub fn new(path: impl Into<String>) -> Self {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| folder::sweep(&std::env::temp_dir()));
        Self { path: path.into(), idle: Mutex::default() }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Program, Process)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that waits, and is well so far as anybody can tell.
    fn waiting(&self, program: &Program) -> Option<Process> {
        let mut idle = self.idle();
        let place = idle.iter().position(|(found, _)| found == program)?;
        Some(idle.swap_remove(place).1)
    }

    fn start(
        &self,
        program: &Program,
        files: &BTreeMap<String, Bytes>,
    ) -> Result<Process, StageError> {
        Process::start(program, files, &self.path).map_err(|why| {
            StageError::Internal(format!("the reward program {} {why}", shown(program)))
        })
    }
}

impl Scorer for Programs {
    fn score(
        &self,
        program: &Program,
        files: &BTreeMap<String, Bytes>,
        samples: &[Sample],
    ) -> Result<Vec<Score>, StageError> {
        let mut scores = Vec::with_capacity(samples.len());
        let mut process = self.waiting(program);
        for sample in samples {
            let line = row(sample);
            let mut tries = 0;
            let score = loop {
                let mut asked = match process.take() {
                    // What died while nobody asked it anything is no news.
                    Some(waiting) if waiting.is_alive() => waiting,
                    _ => self.start(program, files)?,
                };
                tries += 1;
                match asked.ask(&line, &sample.id) {
                    Ok(score) => {
                        process = Some(asked);
                        break score;
                    }
                    Err(fault) => {
                        let error = told(program, sample, &fault, &asked.end());
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
                return Err(told(program, last, &fault, &process.end()));
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
    let mut line = object.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// One line: what the program did, on which row, and the last that it said.
fn told(program: &Program, sample: &Sample, fault: &Fault, stderr: &[String]) -> StageError {
    let Sample { id, place, prompt, completion, .. } = sample;
    let said = match stderr {
        [] => "it wrote nothing to stderr".to_owned(),
        lines => format!("its last lines on stderr: {}", lines.join(" | ")),
    };
    let message = format!(
        "the reward program {} {}; asked about {place}, id {id:?}, prompt {}, completion {}; {said}",
        shown(program),
        fault.told(program),
        quoted(prompt),
        quoted(completion),
    );
    if fault.may_pass() { StageError::Internal(message) } else { StageError::Invalid(message) }
}

fn shown(program: &Program) -> String {
    format!("`{}`", shortened(&program.command.join(" ")).escape_debug())
}

/// Between quotes, on one line: what could steer a terminal is spelled out.
fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
