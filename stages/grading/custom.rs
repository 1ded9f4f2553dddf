//! Custom tasks: templates for prompts, rules for rewards, and the answers of reward programs.
//!
//! Pure text. Neither starts a program nor writes to one.

mod answer;
mod number;
mod rules;
mod template;

pub use answer::{AnswerError, program_answer};
pub use rules::Rules;
pub use template::{Template, TemplateError};
