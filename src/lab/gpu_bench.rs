//! `agrpo bench-gpu`: what is measured of a device, one section a process. Every section reports rows as it goes
//! (`rows.rs`), so that what fails takes nothing else with it; `document.rs` collects them, and `summary.rs` puts them on
//! one page. Starts no process, and writes no file.

mod document;
mod load;
mod model;
mod operations;
mod parity;
mod ratio;
mod rows;
mod summary;
mod update;
mod utilisation;

pub use document::{Document, Section, State};
pub use load::Load;
pub use model::model;
pub use operations::operations;
pub use parity::parity;
pub use ratio::ratio;
pub use rows::{Row, Rows};
pub use summary::summary;
pub use update::{AdapterUpdate, update};
pub use utilisation::{FORMULA, peak};
