//! A row of a dataset to the text that is asked, by a Jinja template. The only place that names the crate.
//!
//! A column that a row lacks is an error, never an empty text. Loops end: a rendering has a bounded number
//! of steps. Nothing is escaped: this is no HTML.

use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value};

/// The template's name in the crate's messages.
const NAME: &str = "template";

/// Steps of one rendering; a plain prompt takes a few for each column.
const STEPS: u64 = 100_000;

/// Why a template gives no text. `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It cannot be read.
    #[error("line {line}: {reason}")]
    Syntax {
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
    /// A value does not suit what is done with it.
    #[error("line {line}: {reason}")]
    Render {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
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
    /// Reads a template.
    ///
    /// # Errors
    /// Where it is none, with the line.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(STEPS));
        let syntax = |error: &minijinja::Error| TemplateError::Syntax {
            line: error.line().unwrap_or(1),
            reason: reason(error),
        };
        environment.add_template_owned(NAME, source.to_owned()).map_err(|error| syntax(&error))?;
        let template = environment.get_template(NAME).map_err(|error| syntax(&error))?;
        let mut columns: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        columns.sort();
        // What the crate itself knows, such as `range`, is no column.
        let known: Vec<String> = environment.globals().map(|(name, _)| name.to_owned()).collect();
        columns.retain(|name| !known.contains(name));
        Ok(Self { environment, columns })
    }

    /// The text for a row.
    ///
    /// # Errors
    /// Where the row lacks a column that the text needs, or holds something that does not suit it.
    pub fn render(&self, row: &Map<String, Value>) -> Result<String, TemplateError> {
        let rendered = self.environment.get_template(NAME).and_then(|t| t.render(row));
        rendered.map_err(|error| {
            let lacking = self.columns.iter().find(|name| !row.contains_key(name.as_str()));
            if error.kind() == minijinja::ErrorKind::UndefinedError
                && let Some(name) = lacking
            {
                let columns: Vec<_> = row.keys().take(16).map(|name| format!("{name:?}")).collect();
                return TemplateError::Column { name: name.clone(), columns: columns.join(", ") };
            }
            TemplateError::Render { line: error.line().unwrap_or(1), reason: reason(&error) }
        })
    }
}

/// The crate's message as one line, without the place that stands beside it.
fn reason(error: &minijinja::Error) -> String {
    let kind = error.kind().to_string();
    let text = error.detail().map_or_else(|| kind.clone(), |detail| format!("{kind}: {detail}"));
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(source: &str, row: &Value) -> Result<String, String> {
        let template = Template::new(source).map_err(|error| error.to_string())?;
        template.render(row.as_object().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn columns_become_text() {
        let row = json!({"word": "cab", "n": 3, "all": ["a", "b"], "deep": {"x": "<b>"}});
        for (source, expected) in [
            ("sort {{ word }}", "sort cab"),
            ("{{ n }}{{ n + 1 }}", "34"),
            ("{{ all | join(',') }} {{ all[1] }}", "a,b b"),
            ("{{ deep.x }}", "<b>"),
            ("{% for x in all %}{{ x }}{{ loop.index }} {% endfor %}", "a1 b2 "),
            ("{% if n > 2 %}many{% else %}{{ nothing }}{% endif %}", "many"),
            ("{{ missing | default('none') }}", "none"),
            ("{{ range(3) | join }}", "012"),
        ] {
            assert_eq!(rendered(source, &row).as_deref(), Ok(expected), "{source}");
        }
    }

    #[test]
    fn what_a_row_lacks_is_an_error_and_never_empty() {
        let row = json!({"word": "cab", "answer": "abc"});
        insta::assert_snapshot!(
            [
                "{{ wrod }}",
                "{{ word.deep.er }}",
                "{{ word",
                "{% nonsense %}",
                "{{ word | frob }}",
                "{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}",
            ]
            .map(|source| rendered(source, &row).unwrap_err())
            .join("\n"),
            @r#"
            no column "wrod": the row has "answer", "word"
            line 1: undefined value
            line 1: syntax error: unexpected end of input, expected end of variable block
            line 1: syntax error: unknown statement nonsense
            line 1: unknown filter: filter frob is unknown
            line 1: engine ran out of fuel
            "#
        );
    }
}
