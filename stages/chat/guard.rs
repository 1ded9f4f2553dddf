//! What a `tokenizer.json` may ask of the crate that reads it. The crate trusts its file: it panics on some,
//! takes minutes to index a long special token, and compiles as many patterns as there are, each of up to
//! ten megabytes. Refuses such files before the crate sees them, and one that cuts words by chance; says nothing
//! of whether the rest is sound.

use agrpo_spec::one_line;
use serde::Deserialize;
use serde_json::Value;

/// Bytes of the longest file: five times that of 126,000 tokens. Its reader takes up to a thousand times as
/// much memory as a hostile file has.
const LONGEST: usize = 64 << 20;
/// Bytes of the longest special token.
const LONGEST_SPECIAL: usize = 256;
/// Patterns; published tokenizers have one or two.
const MOST_PATTERNS: usize = 8;

/// As much of the file as can do harm.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    model: Model,
}

#[derive(Default, Deserialize)]
struct Model {
    /// The share of merges that BPE leaves out by chance.
    #[serde(default)]
    dropout: Option<Value>,
}

/// A token beside those of the model. The crate gives it another id where its own is too large.
#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct Added {
    #[serde(default)]
    pub(super) content: String,
    #[serde(default)]
    pub(super) id: Option<u64>,
}

/// The tokens that the file adds; or why it is not read any further, in one line.
pub(super) fn check(bytes: &[u8]) -> Result<Vec<Added>, String> {
    if bytes.len() > LONGEST {
        return Err(format!("{} bytes, expected at most {LONGEST}", bytes.len()));
    }
    let head: Head = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let dropout = head.model.dropout.filter(|dropout| dropout.as_f64() != Some(0.0));
    if let Some(dropout) = dropout {
        return Err(format!(
            "model.dropout = {}: expected null or 0: with dropout a text has other tokens each time",
            one_line(&dropout)
        ));
    }
    let longest = head.added_tokens.iter().map(|token| token.content.len()).max().unwrap_or(0);
    if longest > LONGEST_SPECIAL {
        return Err(format!(
            "a special token of {longest} bytes, expected at most {LONGEST_SPECIAL}"
        ));
    }
    let found: usize =
        [&head.normalizer, &head.pre_tokenizer, &head.decoder].map(patterns).iter().sum();
    if found > MOST_PATTERNS {
        return Err(format!("{found} patterns, expected at most {MOST_PATTERNS}"));
    }
    Ok(head.added_tokens)
}

/// How many regular expressions stand in a part.
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
        check(file.to_string().as_bytes()).unwrap_err()
    }

    #[test]
    fn what_takes_too_long_or_too_much_is_refused() {
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
    fn words_are_not_cut_by_chance() {
        for dropout in [json!(null), json!(0), json!(0.0)] {
            let file = json!({"model": {"type": "BPE", "dropout": dropout}});
            assert_eq!(check(file.to_string().as_bytes()), Ok(vec![]));
        }
        for dropout in [json!(0.5), json!(1e-9), json!("0")] {
            let told = refused(&json!({"model": {"type": "BPE", "dropout": dropout}}));
            assert!(told.starts_with(&format!("model.dropout = {dropout}: expected null or 0")));
        }
    }
}
