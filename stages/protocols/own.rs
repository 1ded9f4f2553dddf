//! Tasks of one's own: templates that ask, rules that pay, and the answers of programs that grade.
//!
//! Pure text, like the papers' tasks beside it. What a program is asked and how it is run is not known here.

mod answer;
mod number;
mod rules;
mod template;

pub use answer::{AnswerError, program_answer};
pub use rules::Rules;
pub use template::{Template, TemplateError};
