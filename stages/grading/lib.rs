//! The tasks that papers report: their prompts, data sets, rewards and graders, under two protocols.
//!
//! [`Benchmark`] is a task, [`Protocol`] whose rules it is trained and measured by, [`Problem`] one question
//! with its truth. [`messages`] asks, [`reward`] pays a completion part by part, and [`verdict`] says what an
//! evaluation makes of it. [`rows`] reads published data sets, [`problem`] makes a problem of a row,
//! [`training_problems`] and [`evaluation_problems`] keep what a protocol uses.
//!
//! Pure text: no tensor, no tokenizer, no file, no clock. Quirks of the published graders are kept on
//! purpose, for figures are compared by them; `docs/grading.md` lists them.

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

/// What a completion earns in training under a protocol. Never fails: what cannot be read earns nothing.
pub fn reward(problem: &Problem, protocol: Protocol, completion: &str) -> Grade {
    match protocol {
        Protocol::D1 => d1::reward(problem, completion),
        Protocol::Agrpo => agrpo::reward(problem, completion),
    }
}

/// What a protocol's evaluation says of a completion.
pub fn verdict(problem: &Problem, protocol: Protocol, completion: &str) -> Verdict {
    match protocol {
        Protocol::D1 => d1::evaluation::verdict(problem, completion),
        Protocol::Agrpo => agrpo::verdict(problem, completion),
    }
}
