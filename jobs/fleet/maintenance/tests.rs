//! What a gc, a verify and a run make of stores that are odd or damaged.

mod listing;
mod odd_files;
mod records;
