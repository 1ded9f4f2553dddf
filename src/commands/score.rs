//! `agrpo score`: grades given completions by the rules of this project's runs, by published rules, or by the
//! `[reward]` of a run file. Reads JSON objects, one a line, and writes them back with their grades; the mean goes to
//! stderr. Needs no store and computes no tensor.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use agrpo_compute::{RowGrader, tasks::score_row};
use agrpo_grading::{
    Cells, Grade, LONGEST_ROW, Protocol, Row, json_columns, problem_of_truth, reward, verdict,
};
use agrpo_programs::Programs;
use agrpo_spec::{
    Artifact, ArtifactDigest, Benchmark, DatasetTask, Inputs, RewardConfig, RowReward, Run, Task,
    one_line, utf_8,
};
use agrpo_store::regular;
use bytes::Bytes;
use serde_json::{Value, json};

use super::files::{name_of, open, read_text, unreadable};
use super::prelude::{Exit, Failure, Result, Session, Settings, output};
use super::run_file;
use crate::args::{RubricArg, ScoreArgs};

pub(super) fn score(args: &ScoreArgs, session: &Session) -> Result<Exit> {
    let name = name_of(&args.file);
    if let (None, Some(Benchmark::Gsm8k | Benchmark::Math)) = (args.rubric, args.task) {
        return Err(Failure::usage(
            "this project has no rule of its own for this task: name one with --rubric d1, d1-eval, agrpo or agrpo-eval",
        ));
    }
    let own = args.run.as_deref().map(|file| OwnTask::read(file, &session.settings)).transpose()?;
    let own = own.as_ref().map(OwnTask::grader).transpose()?;
    let mut rows = BufReader::new(open(&args.file)?);
    let mut sum = Sum::default();
    let mut line = vec![];
    for number in 1.. {
        line.clear();
        // Reads two bytes more than the longest row, to detect a longer one.
        let read = rows.by_ref().take(LONGEST_ROW as u64 + 2).read_until(b'\n', &mut line);
        if read.map_err(|error| unreadable(&args.file, &error))? == 0 {
            break;
        }
        let row = line.strip_suffix(b"\n").unwrap_or(&line);
        let mark = if number == 1 { "\u{feff}" } else { "" };
        let row = row.strip_prefix(mark.as_bytes()).unwrap_or(row);
        if row.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let row = graded(args, own.as_ref(), (number, row), &mut sum)
            .map_err(|failure| failure.at(format!("{name}, line {number}")))?;
        output::line(row.to_string())?;
    }
    output::talk(sum.describe());
    Ok(Exit::Done)
}

#[derive(Default)]
struct Sum {
    rows: u32,
    reward: f64,
    correct: u32,
    cells: Option<Cells>,
}

impl Sum {
    fn add(&mut self, grade: &Graded, rubric: Option<RubricArg>) {
        self.rows += 1;
        self.reward += grade.reward;
        self.correct += u32::from(grade.correct);
        // AGRPO's accuracy is the mean of the puzzles' shares.
        if let Some(cells) = grade.cells.filter(|_| rubric == Some(RubricArg::D1Eval)) {
            let sum = self.cells.get_or_insert(Cells { correct: 0, empty: 0 });
            sum.correct += cells.correct;
            sum.empty += cells.empty;
        }
    }

    fn describe(&self) -> String {
        let rows = self.rows;
        let share =
            |part: u32, of: u32| output::accuracy(f64::from(part) / f64::from(of.max(1)), of);
        let cells =
            self.cells.map(|cells| format!("  cells {}", share(cells.correct, cells.empty)));
        let cells = cells.unwrap_or_default();
        let reward = self.reward / f64::from(rows.max(1));
        let (all, correct) = (output::count(rows.into(), "row"), share(self.correct, rows));
        format!("{all}  reward {reward:.4}  correct {correct}{cells}")
    }
}

fn graded(
    args: &ScoreArgs,
    own: Option<&RowGrader<'_>>,
    (number, row): (usize, &[u8]),
    sum: &mut Sum,
) -> Result<Value> {
    let expected = r#"expected a JSON object such as {"question": "...", "ground_truth": ..., "completion": "..."}"#;
    let (mut row, noted) = utf_8(row).map_err(Failure::usage).and_then(|row| {
        json_columns(row.as_bytes()).map_err(|error| Failure::usage(format!("{error}; {expected}")))
    })?;
    let text = |name: &str| match row.get(name) {
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(other) => {
            Err(Failure::usage(format!("{name} = {}: expected a string", one_line(other))))
        }
        None => Ok(None),
    };
    let missing = |name: &str| Failure::usage(format!("no {name}: {expected}"));
    let completion = text("completion")?.ok_or_else(|| missing("completion"))?;
    let question = || Ok::<_, Failure>(text("question")?.unwrap_or_default());
    let truth = || row.get("ground_truth").ok_or_else(|| missing("ground_truth"));
    let grade = match (own, args.task, args.rubric) {
        (Some(own), ..) => {
            let mut fields = row.clone();
            fields.remove("completion");
            let graded = own.grade(Row { number, fields, noted }, completion);
            graded.map_err(Failure::refused)?.into()
        }
        (None, None, _) => return Err(missing("--task")),
        (None, Some(task), Some(rubric)) => {
            by_rubric(task, rubric, question()?, truth()?, completion)?
        }
        (None, Some(task), None) => {
            let graded = score_row(task.name(), question()?, truth()?, completion);
            graded.map_err(Failure::refused)?.into()
        }
    };
    sum.add(&grade, args.rubric);
    row.insert("reward".to_owned(), json!(grade.reward));
    row.insert("parts".to_owned(), grade.parts);
    row.insert("extracted".to_owned(), grade.extracted);
    row.insert("correct".to_owned(), json!(grade.correct));
    if let Some(cells) = grade.cells {
        row.insert("correct_cells".to_owned(), json!(cells.correct));
        row.insert("empty_cells".to_owned(), json!(cells.empty));
    }
    Ok(Value::Object(row))
}

fn by_rubric(
    task: Benchmark,
    rubric: RubricArg,
    question: &str,
    truth: &Value,
    completion: &str,
) -> Result<Graded> {
    let problem = problem_of_truth(task, question, truth).map_err(Failure::refused)?;
    let verdict = match rubric {
        RubricArg::D1 => return Ok(reward(&problem, Protocol::D1, completion).into()),
        RubricArg::Agrpo => return Ok(reward(&problem, Protocol::Agrpo, completion).into()),
        RubricArg::D1Eval => verdict(&problem, Protocol::D1, completion),
        RubricArg::AgrpoEval => verdict(&problem, Protocol::Agrpo, completion),
    };
    let part = if verdict.cells.is_some() { "cells" } else { "correct" };
    Ok(Graded {
        reward: verdict.score(),
        parts: json!({ part: verdict.score() }),
        extracted: json!(verdict.extracted),
        correct: verdict.correct,
        cells: verdict.cells,
    })
}

struct Graded {
    reward: f64,
    parts: Value,
    extracted: Value,
    correct: bool,
    cells: Option<Cells>,
}

impl From<Grade> for Graded {
    fn from(Grade { reward, parts, extracted, correct }: Grade) -> Self {
        Self { reward, parts: json!(parts), extracted: json!(extracted), correct, cells: None }
    }
}

impl From<RowReward> for Graded {
    fn from(RowReward { reward, parts, correct, .. }: RowReward) -> Self {
        Self { reward, parts: json!(parts), extracted: Value::Null, correct, cells: None }
    }
}

/// A run file's task, with what grades it.
struct OwnTask {
    task: DatasetTask,
    reward: RewardConfig,
    inputs: Inputs,
    programs: Programs,
}

impl OwnTask {
    fn read(file: &Path, settings: &Settings) -> Result<Self> {
        let text = read_text(file)?;
        let at = |failure: Failure| failure.at(name_of(file));
        let mut inputs = Inputs::default();
        let mut named = run_file::named(&text, file, &[]).map_err(at)?;
        // The problems are in the rows that are graded, so only the program's files are read.
        for source in named.iter_mut().filter(|source| source.key.starts_with(run_file::PROGRAM)) {
            let Some(from) = source.from.as_deref().map(Path::new) else { continue };
            let bytes = regular::read(from).map(Bytes::from);
            let bytes = bytes.map_err(|error| at(unreadable(from, &error).at(&source.key)))?;
            let digest = ArtifactDigest::of(&bytes);
            inputs.insert(digest, Artifact::Blob(bytes.into()));
            source.sha256 = Some(digest);
        }
        let text = run_file::unfetched(&text, &named).map_err(at)?;
        let run = Run::parse(&text).map_err(|error| at(error.into()))?;
        let Task::Dataset(task) = &run.config().task else {
            let failure = Failure::usage("expected a run file with [task.dataset]");
            return Err(at(failure.hint("--task grades by the other tasks' rules")));
        };
        let reward = run.config().reward.clone();
        let programs = Programs::new(settings.path());
        Ok(Self { task: task.clone(), reward, inputs, programs })
    }

    fn grader(&self) -> Result<RowGrader<'_>> {
        RowGrader::open(&self.task, &self.reward, &self.inputs, &self.programs)
            .map_err(Failure::refused)
    }
}
