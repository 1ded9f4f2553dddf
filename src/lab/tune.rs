//! `agrpo tune`: which estimator, and how many samples. Measured in `measure.rs`, judged in `choice.rs`, shown by
//! `report.rs` and `chart.rs`.

mod chart;
mod choice;
mod fresh;
mod grid;
mod measure;
mod report;
mod row;
mod spread;

pub use chart::chart;
pub use choice::ClosedForm;
pub use fresh::{Fresh, batch};
pub use grid::{Grid, Setting, refusal};
pub use measure::{Positions, Question, Tuning, measure};
pub use report::{Report, Subject};
pub use row::{Rollout, Row};
