//! Limits on what a `tokenizer.json` may ask of the crate that reads it. The crate trusts its file: it panics on
//! some, takes minutes to index a long special token, compiles as many patterns as there are, each of up to
//! ten megabytes, and applies as many replacements as the file lists. Refuses such files before the crate
//! reads them, and files whose BPE has dropout. Does not check that the rest is sound.

use agrpo_spec::{Message, one_line};
use serde::Deserialize;
use serde_json::Value;

/// Bytes of the longest file: five times that of 126,000 tokens. Its reader takes up to a thousand times as
/// much memory as a hostile file has.
const LONGEST: usize = 64 << 20;
const LONGEST_SPECIAL: usize = 256;
/// Patterns; published tokenizers have one or two.
const MOST_PATTERNS: usize = 8;

/// How many times as long a text may become; published tokenizers write three bytes for a space.
const MOST_GROWTH: usize = 32;
/// Bytes of the longest text that is put in front of another.
const LONGEST_PREPEND: usize = 256;
/// A text in which a pattern that may match the empty text does so.
const PROBE: &str = "a B1\t\n.,-_'\"x\u{e9}\u{4e2d} ";

/// The parts of the file that are limited.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Head {
    added_tokens: Vec<Added>,
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    model: Model,
}

#[derive(Default, Deserialize)]
struct Model {
    /// The share of merges that BPE leaves out by chance.
    dropout: Option<Value>,
}

/// A token beside those of the model. The crate gives it another id where its own is too large.
#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct Added {
    #[serde(default)]
    pub(super) content: String,
    pub(super) id: Option<u64>,
}

/// The tokens that the file adds. Error: why the file is refused, in one line.
pub(super) fn check(bytes: &[u8]) -> Result<Vec<Added>, Message> {
    let refuse = |why: String| Err(why.into());
    if bytes.len() > LONGEST {
        return refuse(format!("{} bytes, expected at most {LONGEST}", bytes.len()));
    }
    let head: Head = serde_json::from_slice(bytes).map_err(Message::of)?;
    let dropout = head.model.dropout.filter(|dropout| dropout.as_f64() != Some(0.0));
    if let Some(dropout) = dropout {
        return refuse(format!(
            "model.dropout = {}: expected null or 0: with dropout a text has other tokens each time",
            one_line(&dropout)
        ));
    }
    let longest = head.added_tokens.iter().map(|token| token.content.len()).max().unwrap_or(0);
    if longest > LONGEST_SPECIAL {
        return refuse(format!(
            "a special token of {longest} bytes, expected at most {LONGEST_SPECIAL}"
        ));
    }
    let found: usize =
        [&head.normalizer, &head.pre_tokenizer, &head.decoder].map(patterns).iter().sum();
    if found > MOST_PATTERNS {
        return refuse(format!("{found} patterns, expected at most {MOST_PATTERNS}"));
    }
    for part in [&head.normalizer, &head.decoder] {
        let growth = growth(part)?;
        if growth > MOST_GROWTH {
            return refuse(format!(
                "its replacements make a text up to {growth} times as long, expected at most {MOST_GROWTH}"
            ));
        }
    }
    Ok(head.added_tokens)
}

/// The most times that a part, whose steps follow one another, lengthens a text. The error names a step whose pattern
/// matches the empty text.
fn growth(part: &Value) -> Result<usize, String> {
    let entries = match part {
        Value::Object(entries) => entries,
        Value::Array(items) => {
            return items
                .iter()
                .try_fold(1_usize, |all, item| Ok(all.saturating_mul(growth(item)?)));
        }
        _ => return Ok(1),
    };
    // A step is recognised by its fields, since the crate also reads steps without a type.
    if let (Some(pattern), Some(content)) = (entries.get("pattern"), entries.get("content")) {
        let shortest = shortest(pattern);
        if shortest == 0 {
            return Err(format!("the pattern {} matches the empty text", one_line(pattern)));
        }
        let content = content.as_str().map_or(0, str::len);
        return Ok(content.div_ceil(shortest).max(1));
    }
    if let Some(text) = entries.get("prepend").and_then(Value::as_str) {
        return match text.len() {
            1..=LONGEST_PREPEND => Ok(1),
            length => Err(format!("it prepends {length} bytes, expected 1 to {LONGEST_PREPEND}")),
        };
    }
    let is_of_bytes = entries.get("type").is_some_and(|kind| kind == "ByteLevel");
    let one = if is_of_bytes { 2 } else { 1 };
    entries.values().try_fold(one, |all: usize, value| Ok(all.saturating_mul(growth(value)?)))
}

/// A lower bound of the bytes that a pattern matches.
fn shortest(pattern: &Value) -> usize {
    if let Some(text) = pattern.get("String").and_then(Value::as_str) {
        return text.len();
    }
    let regex = pattern.get("Regex").and_then(Value::as_str);
    // The crate reports what is not a pattern.
    let Some(Ok(regex)) = regex.map(fancy_regex::Regex::new) else { return 1 };
    let is_empty = |text| regex.find_iter(text).flatten().any(|found| found.start() == found.end());
    usize::from(!["", PROBE].into_iter().any(is_empty))
}

fn patterns(part: &Value) -> usize {
    match part {
        Value::Array(items) => items.iter().map(patterns).sum(),
        Value::Object(entries) => {
            let of =
                |(key, value): (&String, &Value)| usize::from(key == "Regex") + patterns(value);
            entries.iter().map(of).sum()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(file: &Value) -> String {
        check(file.to_string().as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn costly_files_are_refused() {
        let split = json!({"type": "Split", "pattern": {"Regex": r"\p{L}{900}"}});
        let file = |specials: &[String], splits: usize| {
            let specials: Vec<_> = specials.iter().map(|text| json!({"content": text})).collect();
            let splits = vec![split.clone(); splits];
            json!({"added_tokens": specials, "pre_tokenizer": {"pretokenizers": splits}})
        };
        assert!(check(file(&["<|eot_id|>".into()], 2).to_string().as_bytes()).is_ok());
        let long = file(&["ab".repeat(30_000)], 0);
        assert_eq!(refused(&long), "a special token of 60000 bytes, expected at most 256");
        assert_eq!(refused(&file(&[], 9)), "9 patterns, expected at most 8");
        assert!(check(b"{\"added_tokens\": 3}").is_err());
    }

    #[test]
    fn a_text_does_not_grow_without_bounds() {
        let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let tenfold = replace(json!({"String": "a"}), "aaaaaaaaaa");
        let sequence = |all: &[Value]| json!({"type": "Sequence", "normalizers": all});
        for sound in [
            json!(null),
            tenfold.clone(),
            sequence(&[
                json!({"type": "Prepend", "prepend": "▁"}),
                replace(json!({"String": " "}), "▁"),
            ]),
            sequence(&[json!({"type": "NFC"}), replace(json!({"Regex": " {2,}"}), " ")]),
        ] {
            let file = json!({"normalizer": sound, "decoder": sound});
            assert_eq!(check(file.to_string().as_bytes()).unwrap(), vec![]);
        }
        let refusals = [
            replace(json!({"String": ""}), "x"),
            replace(json!({"Regex": "x*"}), "y"),
            replace(json!({"Regex": "(?=a)"}), "y"),
            replace(json!({"Regex": r"\b"}), "y"),
            json!({"pattern": {"String": ""}, "content": "x"}),
            json!({"type": "Prepend", "prepend": ""}),
            sequence(&[tenfold.clone(), sequence(std::slice::from_ref(&tenfold))]),
            sequence(&vec![tenfold; 60]),
            sequence(&vec![json!({"type": "ByteLevel"}); 6]),
            replace(json!({"Regex": "a+"}), &"x".repeat(33)),
        ]
        .map(|part| {
            let refusal = refused(&json!({"normalizer": part}));
            assert_eq!(refused(&json!({"decoder": part})), refusal);
            refusal
        });
        insta::assert_snapshot!(refusals.join("\n"), @r#"
        the pattern {"String":""} matches the empty text
        the pattern {"Regex":"x*"} matches the empty text
        the pattern {"Regex":"(?=a)"} matches the empty text
        the pattern {"Regex":"\\b"} matches the empty text
        the pattern {"String":""} matches the empty text
        it prepends 0 bytes, expected 1 to 256
        its replacements make a text up to 100 times as long, expected at most 32
        its replacements make a text up to 18446744073709551615 times as long, expected at most 32
        its replacements make a text up to 64 times as long, expected at most 32
        its replacements make a text up to 33 times as long, expected at most 32
        "#);
    }

    #[test]
    fn words_are_not_cut_by_chance() {
        for dropout in [json!(null), json!(0), json!(0.0)] {
            let file = json!({"model": {"type": "BPE", "dropout": dropout}});
            assert_eq!(check(file.to_string().as_bytes()).unwrap(), vec![]);
        }
        for dropout in [json!(0.5), json!(1e-9), json!("0")] {
            let refusal = refused(&json!({"model": {"type": "BPE", "dropout": dropout}}));
            assert!(refusal.starts_with(&format!("model.dropout = {dropout}: expected null or 0")));
        }
    }
}
