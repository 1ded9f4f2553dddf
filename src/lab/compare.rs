//! `agrpo compare`: variants of one run over several seeds. `file.rs` reads what is compared, `results.rs` what the
//! runs recorded, `page.rs` writes the table, the page and the curves. Judges nothing: every variant is reported.

mod file;
mod page;
mod results;

pub use file::{Base, Comparison, ComparisonFile, Invalid, Member};
pub use page::{chart, page, table};
pub use results::{Point, Results, Trace, Variant};
