//! Untrusted text as part of a message: without control characters, and cut in the middle where it is long. The
//! end stays, since parsers of JSON and TOML say there what they expected.

use std::fmt::Display;

/// Characters of a value worth showing.
const SHOWN: usize = 200;

/// A value as part of one line.
pub fn one_line(text: &(impl Display + ?Sized)) -> String {
    shown(text, SHOWN)
}

/// The same with another bound.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_ends() {
        assert_eq!(one_line("a\nb"), "a b");
        assert_eq!(one_line(&"x".repeat(200)), "x".repeat(200));
        assert_eq!(shown(&format!("begin{}end", "é".repeat(1_000)), 9), "begin\u{e9} ... end");
    }
}
