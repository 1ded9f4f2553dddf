//! Text from outside the program: checks its encoding, shortens it for messages, and suggests the known word for a
//! misspelt one.
//!
//! One line has no control characters and is cut in the middle, since parsers of JSON and TOML say at the end what
//! they expected; an excerpt is cut at its end. Other encodings are recognised by their first bytes, and never read.

use std::fmt::Display;

/// Characters of a value worth showing.
const SHOWN: usize = 200;

/// A value for use within one line.
pub fn one_line(text: &(impl Display + ?Sized)) -> String {
    shown(text, SHOWN)
}

/// The same with at most `most` characters.
pub fn shown(text: &(impl Display + ?Sized), most: usize) -> String {
    let text = text.to_string();
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let length = text.chars().count();
    if length <= most {
        return text.chars().map(plain).collect();
    }
    let end = most / 3;
    let (begin, end) = (text.chars().take(most - end), text.chars().skip(length - end));
    begin.chain(" ... ".chars()).chain(end).map(plain).collect()
}

/// The first 80 characters of a value.
pub fn excerpt(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The text of a file. Error: which encoding it seems to be in, and what converts it.
pub fn utf_8(bytes: &[u8]) -> Result<&str, String> {
    let is_utf_16 = match *bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        // Without a mark of byte order, every second byte of ASCII is zero.
        [a, b, c, d, ..] => [a == 0, b == 0] == [c == 0, d == 0] && (a == 0) != (b == 0),
        _ => false,
    };
    if is_utf_16 {
        let reason = "it is UTF-16, expected UTF-8: `iconv -f UTF-16 -t UTF-8` converts it";
        return Err(reason.to_owned());
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let (before, rest) = bytes.split_at(error.valid_up_to());
        let place = match before.iter().filter(|byte| **byte == b'\n').count() {
            0 => String::new(),
            lines => format!(" in line {}", lines + 1),
        };
        format!(
            "the byte 0x{:02X}{place} is not UTF-8: save the file as UTF-8; `iconv -f WINDOWS-1252 -t UTF-8` converts \
             Latin-1 and Windows-1252",
            rest.first().copied().unwrap_or_default()
        )
    })
}

/// Longer words are not compared: they are no typing errors, and comparing them is slow.
const LONGEST: usize = 64;

/// The first candidate at the smallest edit distance from `word`, of at most one edit for every three letters;
/// else the first that begins with `word`, if that has at least three letters.
pub fn suggestion<'a, I>(word: &str, candidates: I) -> Option<&'a str>
where
    I: IntoIterator<Item = &'a str>,
    I::IntoIter: Clone,
{
    let (small, letters) = (word.to_lowercase(), word.chars().count());
    if letters > LONGEST {
        return None;
    }
    let (all, most_edits) = (candidates.into_iter(), (letters / 3).max(1));
    let distance = |candidate: &str| strsim::damerau_levenshtein(&small, &candidate.to_lowercase());
    all.clone()
        .map(|candidate| (distance(candidate), candidate))
        .filter(|&(distance, candidate)| {
            distance <= most_edits && distance < letters.max(candidate.chars().count())
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
        .or_else(|| {
            let begins = |candidate: &&str| candidate.to_lowercase().starts_with(&small);
            all.clone().find(begins).filter(|_| letters >= 3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_ends() {
        assert_eq!(one_line("a\nb"), "a b");
        assert_eq!(one_line(&"x".repeat(200)), "x".repeat(200));
        assert_eq!(shown(&format!("begin{}end", "é".repeat(1_000)), 9), "begin\u{e9} ... end");
    }

    #[test]
    fn another_encoding_is_named() {
        let utf_16 = |text: &str, order: fn(u16) -> [u8; 2]| -> Vec<u8> {
            text.encode_utf16().flat_map(order).collect()
        };
        for text in ["\u{feff}name = 1\n", "{\"q\": 1}\n", "ab"] {
            for bytes in [utf_16(text, u16::to_le_bytes), utf_16(text, u16::to_be_bytes)] {
                assert!(utf_8(&bytes).unwrap_err().starts_with("it is UTF-16"), "{text}");
            }
        }
        let messages =
            [utf_8(b"name = \"caf\xe9\"\n").unwrap_err(), utf_8(b"a\nb\n\xa3").unwrap_err()];
        insta::assert_snapshot!(messages.join("\n"), @"
        the byte 0xE9 is not UTF-8: save the file as UTF-8; `iconv -f WINDOWS-1252 -t UTF-8` converts Latin-1 and Windows-1252
        the byte 0xA3 in line 3 is not UTF-8: save the file as UTF-8; `iconv -f WINDOWS-1252 -t UTF-8` converts Latin-1 and Windows-1252
        ");
        assert_eq!(utf_8("{\"q\": \"é\"}\n".as_bytes()), Ok("{\"q\": \"é\"}\n"));
        assert_eq!(utf_8(b""), Ok(""));
    }

    #[test]
    fn a_typing_error_is_forgiven_and_another_word_is_not() {
        let words = ["seed", "steps", "prompts", "learning_rate"];
        let of = |word| suggestion(word, words);
        assert_eq!(of("sed"), Some("seed"));
        assert_eq!(of("setps"), Some("steps"));
        assert_eq!(of("Learning-Rate"), Some("learning_rate"));
        assert_eq!(of("prompt"), Some("prompts"));
        assert_eq!(of("learn"), Some("learning_rate"), "a beginning");
        assert_eq!(of("le"), None, "too short a beginning");
        assert_eq!(of("rate"), None);
        assert_eq!(of(""), None);
        assert_eq!(of(&"seed".repeat(100_000)), None, "not compared at all");
        assert_eq!(suggestion("x", ["y"]), None, "not every letter may differ");
    }
}
