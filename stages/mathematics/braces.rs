//! Braces of LaTeX: finds where they close, and adds those that a sloppy text omits behind `\sqrt` and `\frac`.
//!
//! `trim` removes what may stand between a command and its argument. The caller decides what to do with a command
//! without an argument.

/// Where the last of `open` braces closes that are open at the beginning, or the first that the text opens.
pub fn closing(text: &str, mut open: i64) -> Option<usize> {
    text.char_indices().find_map(|(offset, character)| {
        match character {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        (character == '}' && open == 0).then_some(offset)
    })
}

/// `\sqrt3` as `\sqrt{3}`, unless what follows begins with one of `open`.
pub fn braced_roots(text: &str, trim: fn(&str) -> &str, open: &[char]) -> String {
    let mut pieces = text.split("\\sqrt");
    let mut result = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces.map(trim) {
        result.push_str("\\sqrt");
        match piece.chars().next() {
            Some(first) if !open.contains(&first) => {
                result.extend(['{', first, '}']);
                result.push_str(&piece[first.len_utf8()..]);
            }
            _ => result.push_str(piece),
        }
    }
    result
}

/// `\frac12` and `\frac1{2}` as `\frac{1}{2}`. Error: the first piece that is too short for two arguments.
pub fn braced_fractions(text: &str, trim: fn(&str) -> &str) -> Result<String, &str> {
    let mut pieces = text.split("\\frac");
    let mut result = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces.map(trim) {
        result.push_str("\\frac");
        if piece.starts_with('{') {
            result.push_str(piece);
            continue;
        }
        let mut characters = piece.chars();
        let (above, below) = characters.next().zip(characters.next()).ok_or(piece)?;
        result.extend(['{', above, '}']);
        if below == '{' {
            result.push_str(&piece[above.len_utf8()..]);
        } else {
            result.extend(['{', below, '}']);
            result.push_str(characters.as_str());
        }
    }
    Ok(result)
}

/// `3/4` as `\frac{3}{4}`, where both are whole numbers as Python writes them.
pub fn fraction(text: &str) -> Option<String> {
    let is_canonical = |number: &str| {
        let digits = number.strip_prefix('-').unwrap_or(number);
        let is_plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        is_plain && number != "-0" && (digits == "0" || !digits.starts_with('0'))
    };
    let (above, below) = text.split_once('/')?;
    (is_canonical(above) && is_canonical(below)).then(|| format!("\\frac{{{above}}}{{{below}}}"))
}
