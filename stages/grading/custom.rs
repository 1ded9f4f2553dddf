//! Custom tasks: templates that ask, rules that pay, and the answers of programs that grade.
//!
//! Pure text, like the papers' tasks beside it. Neither starts a program nor writes to one.

mod answer;
mod number;
mod rules;
mod template;

pub use answer::{AnswerError, program_answer};
pub use rules::Rules;
pub use template::{Template, TemplateError};
