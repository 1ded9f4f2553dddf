//! Every decoder of untrusted bytes, as a function that returns whether it accepted them.
//!
//! The list is what property tests, `make fuzz` and the targets of `fuzz/` share. A decoder may refuse; it
//! may not panic, hang, or allocate more than [`Decoder::most`] says. Beside it stand sound examples of its
//! input ([`Decoder::seeds`]) and the edits that damage them ([`Edit`]). Nothing here opens a file.

mod decoder;
mod edits;
mod fleet;
mod shapes;
mod spec;
mod tensors;
mod text;

pub use decoder::{DECODERS, Decoder};
pub use edits::{Draw, Edit, Form, edited};
pub use shapes::shapes;
