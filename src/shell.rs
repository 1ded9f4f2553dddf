//! Quotes words of suggested commands for a POSIX shell. Starts no process.

use std::path::Path;

/// Characters that need no quotes anywhere in a word.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c)
}

/// A text as one word.
pub(crate) fn word(text: &str) -> String {
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    // A suggested command stays on one line and sends no control characters to a terminal.
    if text.chars().any(char::is_control) {
        let shown = |c: char| match c {
            '\'' | '\\' => format!("\\{c}"),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                c.encode_utf8(&mut bytes).bytes().map(|byte| format!("\\x{byte:02x}")).collect()
            }
            c => c.to_string(),
        };
        return format!("$'{}'", text.chars().map(shown).collect::<String>());
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A path as one word that is no option.
pub(crate) fn path(path: &Path) -> String {
    let text = path.to_string_lossy();
    // `-` alone is standard input.
    match text.starts_with('-') && text != "-" {
        true => word(&format!("./{text}")),
        false => word(&text),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_a_quoted_word_as_the_text() {
        for text in [
            "",
            "runs/a.toml",
            "my run.toml",
            "it's",
            "$(touch x)",
            "`touch x`",
            "a;b",
            "a&&b",
            "*",
            "~",
            "a\"b",
            "a\\b",
            "a\nb",
            "a\tb'c\\",
            "\u{1b}[31m",
            "é",
            "s3://bucket/a b?c=d&e",
            "#x",
            "!x",
            "{a,b}",
            "\u{85}",
        ] {
            let command = format!("printf %s {}", word(text));
            let said = Command::new("bash").args(["-c", &command]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), text, "{command}");
            assert!(!word(text).contains('\n'));
        }
        assert_eq!(word("jobs/runs/smoke.toml"), "jobs/runs/smoke.toml");
        assert_eq!(path(Path::new("-rf.toml")), "./-rf.toml");
        assert_eq!(path(Path::new("-")), "-");
    }
}
