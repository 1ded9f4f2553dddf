//! Whether two mathematical answers are the same: a stand-in for math_verify 0.8, in whose words AGRPO's
//! rewards are stated.
//!
//! A text goes through [`extract`] (which part of it is the answer), [`normalise`] (LaTeX made plain),
//! [`lexer`] and [`grammar`] (a [`value::Value`]), and [`compare`]. Where math_verify asks a computer algebra
//! system to prove an identity, numbers are put in for the symbols here: at a handful of fixed points both
//! sides agree to nine digits, or they differ. Not here: sums, integrals and limits, derivatives, solving
//! equations, and time limits, for nothing here takes long.

mod calculus;
mod compare;
mod evaluate;
mod extract;
mod grammar;
mod lexer;
mod nodes;
mod normalise;
mod real_sets;
mod value;

use value::Value;

/// What a text was read as.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parsed {
    /// The answer's value, if it can be read.
    value: Option<Value>,
    /// The answer's text: equal texts are equal answers even where no value is read.
    text: Option<String>,
}

impl Parsed {
    pub(crate) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }
}

/// Reads the answer out of a text, in which LaTeX stands between dollars.
pub(crate) fn parse(text: &str) -> Parsed {
    extract::extract(text)
}

/// Reads a text that is LaTeX as a whole.
pub(crate) fn parse_latex(text: &str) -> Parsed {
    parse(&format!("${text}$"))
}

/// Whether an answer is the gold one. Not symmetric: an equation may be answered by its right side.
pub(crate) fn same(gold: &Parsed, found: &Parsed) -> bool {
    let values = gold.value.as_ref().zip(found.value.as_ref());
    let texts = gold.text().zip(found.text());
    values.is_some_and(|(gold, found)| compare::equal(gold, found))
        || texts.is_some_and(|(gold, found)| {
            let (gold, found) = (crate::python::strip(gold), crate::python::strip(found));
            !gold.is_empty() && gold == found
        })
}

#[cfg(test)]
mod tests;
