//! Programs that grade completions: started in a folder of exactly their files, asked row by row, bounded in time and
//! memory, and ended with everything they started.
//!
//! Each answer is checked against the row that was asked; a row without a valid answer is an error, never a guessed
//! score. This is no sandbox: a program may read what this process may.

mod family;
mod fault;
mod folder;
mod group;
mod launch;
mod pipes;
mod pool;
mod process;
mod running;

pub use pool::Programs;
pub use running::end_all;
