//! gc, verify and runs on odd or damaged stores.

mod listing;
mod odd_files;
mod records;
