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
mod excerpt;
mod grade;
mod hendrycks;
mod message;
mod problem;
mod prompts;
mod protocols;
mod subset;
mod sudoku;
#[cfg(test)]
mod tests;
mod truth;
mod verdict;

pub use agrpo_spec::{Benchmark, Protocol};
pub use custom::{AnswerError, Rules, Template, TemplateError, program_answer};
pub use data::{
    Columns, DataError, Format, LONGEST_ROW, Placed, Row, evaluation_problems, json_columns,
    json_object, problem, rows, training_problems,
};
pub use grade::{Grade, reward_parts};
pub use message::{Message, Role};
pub use problem::Problem;
pub use prompts::{evaluation_messages, evaluation_prefill, messages};
pub use protocols::{reward, verdict};
pub use subset::d1_evaluation_order;
pub use sudoku::Cells;
pub use truth::{TruthError, problem_of_truth};
pub use verdict::{Extracted, Verdict};
