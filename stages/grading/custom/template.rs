//! Renders a dataset's row as a prompt, by a Jinja template. Only this file and its folder name minijinja.
//!
//! A column that a row lacks is an error, never an empty text, and so is a null where text is wanted. Every rendering
//! ends: its steps, the bytes that it handles and the length of its text are bounded for any template and row. Nothing
//! is escaped: the text is no HTML. A template cannot include another.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use minijinja::machinery::{
    Token, Vm, WhitespaceConfig, get_compiled_template, make_string_output, tokenize,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};

use agrpo_spec::{excerpt, one_line};

mod guards;
mod limits;
mod machine;

use limits::LONGEST;

/// The template's name in the crate's messages.
const NAME: &str = "template";

/// Steps of one rendering, those that bound it included; a plain prompt takes a few for each column.
const STEPS: u64 = 400_000;

/// The most words of a tag, and branches of the template: the crate recurses into them before it counts steps.
const MOST_WORDS: usize = 1000;

/// The deepest nesting of loops, macros and blocks.
const DEEPEST: usize = 200;

/// Why a template gives no text. `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It cannot be read, or an operation does not apply to a value.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// It names a column that the row lacks.
    #[error("no column {name:?}: the row has {columns}")]
    Column {
        /// As the template has it.
        name: String,
        /// The row's columns, by name.
        columns: String,
    },
    /// It writes a column that is null.
    #[error(
        "column {name:?} is null, which is no text: leave the row out, or say what stands for it, as in \
         {{{{ {name} | default(\"none\", true) }}}}"
    )]
    Null {
        /// As the template has it.
        name: String,
    },
    /// The text is too long for a prompt.
    #[error("the text has {found} bytes: expected at most {LONGEST}")]
    Long {
        /// Its bytes.
        found: usize,
    },
}

/// A template that was read once.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    /// The columns it may ask for, in order.
    columns: Vec<String>,
}

impl Template {
    /// Reads a template. Error where it is none, with the line.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(STEPS));
        environment.set_recursion_limit(DEEPEST);
        limits::set(&mut environment);
        guards::set(&mut environment);
        check_words(source)?;
        environment.add_template_owned(NAME, source.to_owned()).map_err(|error| of_line(&error))?;
        let template = environment.get_template(NAME).map_err(|error| of_line(&error))?;
        let compiled = get_compiled_template(&template);
        let mut parts = std::iter::once(&compiled.instructions).chain(compiled.blocks.values());
        if let Some((line, why)) = parts.find_map(machine::refused) {
            return Err(TemplateError::Line { line, reason: why.to_owned() });
        }
        let mut columns: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        columns.sort();
        // The crate's own names, such as `range`, are no columns.
        let known: Vec<String> = environment.globals().map(|(name, _)| name.to_owned()).collect();
        columns.retain(|name| !known.contains(name));
        Ok(Self { environment, columns })
    }

    /// The columns that it may ask for, in the order of their names.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The text for a row. Error where the row lacks a column that the text needs, or a value does not suit it.
    pub fn render(&self, row: &Map<String, Value>) -> Result<String, TemplateError> {
        // The crate panics where it sorts values that have no order.
        let text = catch_unwind(AssertUnwindSafe(|| self.rendered(row)));
        let broke = || Err(Error::new(ErrorKind::InvalidOperation, "values that cannot be sorted"));
        let text = text.unwrap_or_else(|_| broke()).map_err(|error| self.explained(&error, row))?;
        match text.len() as u64 {
            length if length > LONGEST => Err(TemplateError::Long { found: text.len() }),
            _ => Ok(text),
        }
    }

    fn rendered(&self, row: &Map<String, Value>) -> Result<String, Error> {
        let template = self.environment.get_template(NAME)?;
        let compiled = get_compiled_template(&template);
        let instructions = machine::bounded(&compiled.instructions);
        let blocks = compiled.blocks.iter().map(|(&name, block)| (name, machine::bounded(block)));
        let blocks: BTreeMap<_, _> = blocks.collect();
        let row = minijinja::Value::from_serialize(row);
        let mut text = String::new();
        let mut out = make_string_output(&mut text);
        Vm::new(&self.environment).eval(&instructions, row, &blocks, &mut out, AutoEscape::None)?;
        Ok(text)
    }

    fn explained(&self, error: &Error, row: &Map<String, Value>) -> TemplateError {
        let named = |is_it: &dyn Fn(Option<&Value>) -> bool| {
            self.columns.iter().find(|name| is_it(row.get(name.as_str()))).cloned()
        };
        if error.kind() == ErrorKind::UndefinedError
            && let Some(name) = named(&|value| value.is_none())
        {
            let shown = |name: &String| format!("{:?}", excerpt(name));
            let columns: Vec<_> = row.keys().take(16).map(shown).collect();
            return TemplateError::Column { name: excerpt(&name), columns: columns.join(", ") };
        }
        if error.detail() == Some(limits::NULL)
            && let Some(name) = named(&|value| value.is_some_and(Value::is_null))
        {
            return TemplateError::Null { name: excerpt(&name) };
        }
        of_line(error)
    }
}

/// Refuses templates that would overflow the stack of the crate's parser, which does not count signs, dots, filters and
/// branches.
fn check_words(source: &str) -> Result<(), TemplateError> {
    let (mut words, mut branches) = (0, 0);
    let all = tokenize(source, false, SyntaxConfig, WhitespaceConfig::default());
    // The crate's parser reports an invalid word, and stops there too.
    for (token, span) in all.map_while(Result::ok) {
        match token {
            Token::VariableStart | Token::BlockStart | Token::TemplateData(_) => words = 0,
            Token::Ident("elif") => branches += 1,
            _ => words += 1,
        }
        if words > MOST_WORDS || branches > MOST_WORDS {
            let what = if words > MOST_WORDS { "words in one tag" } else { "branches" };
            let reason = format!("more than {MOST_WORDS} {what}");
            return Err(TemplateError::Line { line: span.start_line.into(), reason });
        }
    }
    Ok(())
}

/// The crate's message as one line, with the place in front.
fn of_line(error: &Error) -> TemplateError {
    let kind = error.kind().to_string();
    let text = error.detail().map_or_else(|| kind.clone(), |detail| format!("{kind}: {detail}"));
    let reason = one_line(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    TemplateError::Line { line: error.line().unwrap_or(1), reason }
}

#[cfg(test)]
mod tests;
