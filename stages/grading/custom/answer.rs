//! Reads one line of a reward program: `{"id": ..., "reward": 0.5}`, or `"parts"` in place of `"reward"`.
//!
//! A line answers the current sample with finite numbers, or is an error. Guesses nothing: reads no number out of a
//! text, and uses no answer for another sample.

use std::collections::BTreeMap;

use agrpo_spec::{PROGRAM_PART, Score, excerpt, is_part_name, json_reason};
use serde::Deserialize;
use serde_json::Value;

/// Parts of one answer.
const MOST_PARTS: usize = 64;

/// Why a line is no answer. `Display` says what was found and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// No object of JSON with the keys of an answer.
    #[error(
        "answered {found}, which is no answer ({reason}): expected one line of JSON such as \
         {{\"id\": {asked}, \"reward\": 0.5}}"
    )]
    Form {
        /// The line, quoted and cut to a readable length.
        found: String,
        /// What is wrong.
        reason: String,
        /// The id that was asked, quoted.
        asked: String,
    },
    /// The answer to something else.
    #[error(
        "answered for id {found} where {asked} was asked: expected one answer for each row, in the order of \
         the rows"
    )]
    Order {
        /// The id of the answer, quoted.
        found: String,
        /// The id that was asked, quoted.
        asked: String,
    },
    /// A value that is not what its key says.
    #[error("answered {key} = {found}: expected {expected}")]
    Value {
        /// `reward`, `correct`, `parts` or `parts.NAME`.
        key: String,
        /// The value, quoted and cut to a readable length.
        found: String,
        /// What would be accepted.
        expected: &'static str,
    },
}

#[derive(Deserialize)]
struct Written {
    id: Value,
    #[serde(default, deserialize_with = "there")]
    reward: Option<Value>,
    #[serde(default, deserialize_with = "there")]
    parts: Option<Value>,
    correct: Option<Value>,
}

/// Distinguishes a written null from a missing key.
fn there<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Reads the answer to the sample of this id; ignores other keys. Error where the line is no answer, or another
/// sample's.
pub fn program_answer(line: &[u8], id: &str) -> Result<Score, AnswerError> {
    let asked = || quoted(id);
    let form = |reason: String| AnswerError::Form {
        found: quoted(&String::from_utf8_lossy(line)),
        reason,
        asked: asked(),
    };
    if !line.trim_ascii_start().starts_with(b"{") {
        return Err(form("it is no object".to_owned()));
    }
    let written: Written =
        serde_json::from_slice(line).map_err(|error| form(reason(line, &error)))?;
    if written.id.as_str() != Some(id) {
        let found = match &written.id {
            Value::String(text) => quoted(text),
            other => excerpt(&other.to_string()),
        };
        return Err(AnswerError::Order { found, asked: asked() });
    }
    let parts = match (&written.reward, &written.parts) {
        (Some(reward), None) => {
            BTreeMap::from([(PROGRAM_PART.to_owned(), number("reward".to_owned(), reward)?)])
        }
        (None, Some(Value::Object(parts))) if (1..=MOST_PARTS).contains(&parts.len()) => {
            let read = |(name, value): (&String, &Value)| {
                let key = format!("parts.{}", excerpt(&name.escape_debug().to_string()));
                if !is_part_name(name) {
                    return Err(refuse(key, value, "a name of 1 to 32 letters, digits or '_'"));
                }
                Ok((name.clone(), number(key, value)?))
            };
            parts.iter().map(read).collect::<Result<_, _>>()?
        }
        (None, Some(parts)) => {
            let expected = "an object of 1 to 64 numbers, by the names of their parts";
            return Err(refuse("parts".to_owned(), parts, expected));
        }
        (Some(_), Some(_)) => return Err(form("it has both reward and parts".to_owned())),
        (None, None) => return Err(form("it has neither reward nor parts".to_owned())),
    };
    let correct = match &written.correct {
        None | Some(Value::Null) => None,
        Some(Value::Bool(correct)) => Some(*correct),
        Some(other) => return Err(refuse("correct".to_owned(), other, "true or false")),
    };
    Ok(Score { parts, correct })
}

fn number(key: String, value: &Value) -> Result<f64, AnswerError> {
    let found = value.as_f64().filter(|value| value.is_finite());
    found.ok_or_else(|| refuse(key, value, "a finite number"))
}

fn refuse(key: String, value: &Value, expected: &'static str) -> AnswerError {
    AnswerError::Value { key, found: excerpt(&value.to_string()), expected }
}

/// Why the line is refused. Names NaN and Infinity, which Python writes although JSON does not have them.
fn reason(line: &[u8], error: &serde_json::Error) -> String {
    let text = String::from_utf8_lossy(line);
    if text.contains("NaN") || text.contains("Infinity") {
        return "NaN and Infinity are no numbers of JSON".to_owned();
    }
    json_reason(error)
}

/// Quotes a text on one line, with control characters escaped.
fn quoted(text: &str) -> String {
    format!("{:?}", excerpt(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_number_or_parts() {
        let read = |line: &str| program_answer(line.as_bytes(), "7/1").unwrap();
        assert_eq!(read(r#"{"id": "7/1", "reward": 0.5}"#).parts["program"], 0.5);
        assert_eq!(read(r#"{"id": "7/1", "reward": 1, "correct": true}"#).correct, Some(true));
        let parts =
            read(r#"{"parts": {"form": -1, "right": 2e0}, "id": "7/1", "seen": [1]}"#).parts;
        assert_eq!(parts, BTreeMap::from([("form".to_owned(), -1.0), ("right".to_owned(), 2.0)]));
    }

    #[test]
    fn an_invalid_answer_is_refused() {
        let lines = [
            "rubbish \u{1b}[31mred<script>",
            "",
            "[1]",
            "\"7/1\"",
            "0.5",
            r#"{"id": "7/1"}"#,
            r#"{"reward": 1}"#,
            r#"{"id": "7/2", "reward": 1}"#,
            r#"{"id": 7, "reward": 1}"#,
            r#"{"id": "7/1", "reward": NaN}"#,
            r#"{"id": "7/1", "reward": -Infinity}"#,
            r#"{"id": "7/1", "reward": 1e999}"#,
            r#"{"id": "7/1", "reward": "0.5"}"#,
            r#"{"id": "7/1", "reward": true}"#,
            r#"{"id": "7/1", "reward": null}"#,
            r#"{"id": "7/1", "reward": 1, "reward": 2}"#,
            r#"{"id": "7/1", "reward": 1, "parts": {"a": 1}}"#,
            r#"{"id": "7/1", "parts": {}}"#,
            r#"{"id": "7/1", "parts": [1]}"#,
            r#"{"id": "7/1", "parts": {"a": "1"}}"#,
            r#"{"id": "7/1", "parts": {"a b": 1}}"#,
            r#"{"id": "7/1", "reward": 1, "correct": 1}"#,
            r#"{"id": "7/1", "reward": 1} {"id": "7/1", "reward": 1}"#,
        ];
        let message =
            lines.map(|line| program_answer(line.as_bytes(), "7/1").unwrap_err().to_string());
        assert!(message.iter().all(|line| !line.contains(['\n', '\u{1b}'])), "{message:?}");
        insta::assert_snapshot!(message.join("\n"), @r#"
        answered "rubbish \u{1b}[31mred<script>", which is no answer (it is no object): expected one line of JSON such as {"id": "7/1", "reward": 0.5}
        answered "", which is no answer (it is no object): expected one line of JSON such as {"id": "7/1", "reward": 0.5}
        answered "[1]", which is no answer (it is no object): expected one line of JSON such as {"id": "7/1", "reward": 0.5}
        answered "\"7/1\"", which is no answer (it is no object): expected one line of JSON such as {"id": "7/1", "reward": 0.5}
        answered "0.5", which is no answer (it is no object): expected one line of JSON such as {"id": "7/1", "reward": 0.5}
        answered "{\"id\": \"7/1\"}", which is no answer (it has neither reward nor parts): expected one line of JSON such as {"id": "7/1", "reward": 0.5}
        answered "{\"reward\": 1}", which is no answer (missing field `id`): expected one line of JSON such as {"id": "7/1", "reward": 0.5}
        answered for id "7/2" where "7/1" was asked: expected one answer for each row, in the order of the rows
        answered for id 7 where "7/1" was asked: expected one answer for each row, in the order of the rows
        answered "{\"id\": \"7/1\", \"reward\": NaN}", which is no answer (NaN and Infinity are no numbers of JSON): expected one line of JSON such as {"id": "7/1", "reward": 0.5}
        answered "{\"id\": \"7/1\", \"reward\": -Infinity}", which is no answer (NaN and Infinity are no numbers of JSON): expected one line of JSON such as {"id": "7/1", "reward": 0.5}
        answered "{\"id\": \"7/1\", \"reward\": 1e999}", which is no answer (number out of range): expected one line of JSON such as {"id": "7/1", "reward": 0.5}
        answered reward = "0.5": expected a finite number
        answered reward = true: expected a finite number
        answered reward = null: expected a finite number
        answered "{\"id\": \"7/1\", \"reward\": 1, \"reward\": 2}", which is no answer (duplicate field `reward`): expected one line of JSON such as {"id": "7/1", "reward": 0.5}
        answered "{\"id\": \"7/1\", \"reward\": 1, \"parts\": {\"a\": 1}}", which is no answer (it has both reward and parts): expected one line of JSON such as {"id": "7/1", "reward": 0.5}
        answered parts = {}: expected an object of 1 to 64 numbers, by the names of their parts
        answered parts = [1]: expected an object of 1 to 64 numbers, by the names of their parts
        answered parts.a = "1": expected a finite number
        answered parts.a b = 1: expected a name of 1 to 32 letters, digits or '_'
        answered correct = 1: expected true or false
        answered "{\"id\": \"7/1\", \"reward\": 1} {\"id\": \"7/1\", \"reward\": 1}", which is no answer (trailing characters): expected one line of JSON such as {"id": "7/1", "reward": 0.5}
        "#);
    }
}
