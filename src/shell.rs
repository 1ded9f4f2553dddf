//! Words of the commands that people are told to paste, quoted as a POSIX shell wants them. Starts nothing.

use std::path::Path;

/// What needs no quotes anywhere in a word.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c)
}

/// A text as one word.
pub(crate) fn word(text: &str) -> String {
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    // A command stays on its line, and shows nothing to a terminal but itself.
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
    fn a_shell_takes_a_word_for_what_it_was() {
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
