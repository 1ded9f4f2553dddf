//! Published data sets: rows of JSON lines, Parquet or CSV, and the problems that they hold.
//!
//! Bytes come in, so nothing here opens a file. Every layout that the public sets use is read; a row that
//! fits none is an error that names row and field, and is never skipped. Not done: the shuffle of HF
//! datasets (NumPy's PCG64), by which d1 orders its training rows and sets the last 500 aside.

mod bounds;
mod columns;
mod csv;
mod json;
mod layouts;
mod pages;
mod read;
mod row;
mod selection;

pub use bounds::LONGEST_ROW;
pub use json::{Columns, json_columns, json_object};
pub(crate) use layouts::is_number;
pub use layouts::problem;
pub use read::{Format, rows};
pub use row::{DataError, Row};
pub use selection::{Placed, evaluation_problems, training_problems};

#[cfg(test)]
mod tests;
