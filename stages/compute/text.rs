//! Text to token ids and back: characters for tasks from scratch, conversations for checkpoints.

pub mod chat;
pub(crate) mod tokenizer;
