//! The tasks that papers report: their prompts, data sets, rewards and graders, under two protocols.
//!
//! A [`Benchmark`] has [`Problem`]s; a [`Protocol`] has the rules of training and evaluation. [`messages`] renders a
//! prompt, [`reward`] grades a completion in training, [`verdict`] in an evaluation. [`rows`] reads published data
//! sets; [`training_problems`] and [`evaluation_problems`] select what a protocol uses.
//!
//! Pure text: no tensor, no tokenizer, no file, no clock. Keeps the quirks of the published graders, by which figures
//! are compared; `docs/grading.md` lists them.

mod agrpo;
mod boxes;
mod custom;
mod d1;
mod data;
mod grade;
mod hendrycks;
mod problem;
mod prompts;
mod subset;
#[cfg(test)]
mod tests;
mod truth;

pub use agrpo_spec::{Benchmark, Protocol};
pub use custom::{AnswerError, Rules, Template, TemplateError, program_answer};
pub use data::{
    Columns, DataError, Format, LONGEST_ROW, Placed, Row, evaluation_problems, json_columns,
    json_object, problem, rows, training_problems,
};
pub use grade::{Extracted, Grade, Verdict, reward_parts};
pub use problem::{Cells, Problem, cells};
pub use prompts::{Message, Role, evaluation_messages, evaluation_prefill, messages};
pub use subset::d1_evaluation_order;
pub use truth::{TruthError, countdown_of_truth, problem_of_truth};

/// The reward of a completion in training under a protocol. Never fails: what cannot be read earns nothing.
pub fn reward(problem: &Problem, protocol: Protocol, completion: &str) -> Grade {
    match protocol {
        Protocol::D1 => d1::reward(problem, completion),
        Protocol::Agrpo => agrpo::reward(problem, completion),
    }
}

/// The verdict of a protocol's evaluation on a completion.
pub fn verdict(problem: &Problem, protocol: Protocol, completion: &str) -> Verdict {
    match protocol {
        Protocol::D1 => d1::evaluation::verdict(problem, completion),
        Protocol::Agrpo => agrpo::verdict(problem, completion),
    }
}
