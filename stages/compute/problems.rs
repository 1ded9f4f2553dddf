//! The problems of a task in token ids: prompts for a policy, and grades of its completions.
//!
//! Rollout and reward ask for a training problem by its number, evaluation for all held-out problems at once. The
//! number follows from the task alone, never from a run's seed.

mod benchmark;
mod cache;
mod check;
mod dataset;
mod grading;
mod question;
mod row_grader;
mod rows;
mod source;
mod templates;

pub(crate) use cache::ProblemCache;
pub use check::{check_run, prompt_tokens, vocabulary};
pub(crate) use grading::{Graded, Grader, NoPrograms};
pub(crate) use question::{Answered, Asked, Example};
pub use row_grader::RowGrader;
pub(crate) use source::Problems;
