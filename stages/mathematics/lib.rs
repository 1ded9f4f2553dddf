//! Whether two mathematical answers are the same: a replacement for math_verify 0.8, by which AGRPO defines its
//! rewards.
//!
//! A text goes through `extract` (which part of it is the answer), `normalise` (LaTeX made plain), `lexer` and
//! `grammar` (a `value::Value`), and `compare`. Where math_verify asks a computer algebra system to prove an identity,
//! this crate evaluates both sides at a few fixed points, where they agree to nine digits, or differ. It solves no
//! equations, and has no time limits: every step is bounded by a count.

pub mod braces;
mod calculus;
mod compare;
mod evaluate;
pub mod expression;
mod extract;
mod grammar;
mod lexer;
mod nodes;
mod normalise;
mod numerical;
pub mod patterns;
pub mod python;
mod real_sets;
mod value;

pub use compare::same;
pub use extract::{Parsed, parse, parse_latex};

#[cfg(test)]
mod tests;
