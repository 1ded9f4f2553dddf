//! Boxes of LaTeX: the first that counts for AGRPO, and the last, by the rules of Hendrycks' MATH.
//!
//! A box whose braces do not close is an error (`None`), never a guess.

use agrpo_mathematics::braces::closing;

/// The inside of the first box; `None` if it does not close or is empty.
pub(crate) fn first_boxed(text: &str) -> Option<&str> {
    let (_, inside) = text.split_once("\\boxed{")?;
    let inside = &inside[..closing(inside, 1)?];
    (!inside.is_empty()).then_some(inside)
}

const SPACED: &str = "\\boxed ";

/// The last box of a text, its command included; a text without any box as it is. `None` where it does not close.
fn last_boxed(text: &str) -> Option<&str> {
    if let Some(start) = text.rfind(SPACED) {
        let end = text[start..].find('$').map_or(text.len(), |end| start + end);
        return Some(&text[start..end]);
    }
    let Some(start) = text.rfind("\\boxed").or_else(|| text.rfind("\\fbox")) else {
        return Some(text);
    };
    closing(&text[start..], 0).map(|end| &text[start..=start + end])
}

/// The inside of the last box; a text that is no box as it is. `None` is an error of either step.
pub(crate) fn last_answer(text: &str) -> Option<&str> {
    let boxed = last_boxed(text)?;
    if boxed.contains(SPACED) {
        return boxed.strip_prefix(SPACED);
    }
    let inside = boxed.strip_prefix("\\boxed{").and_then(|rest| rest.strip_suffix('}'));
    Some(inside.unwrap_or(boxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_box_counts() {
        for (text, expected) in [
            ("a \\boxed{1} b \\boxed{\\frac{2}{3}} c", Some("\\frac{2}{3}")),
            ("no box", Some("no box")),
            ("\\boxed{1} \\boxed{2", None),
            ("\\fbox{3}", Some("\\fbox{3}")),
            ("so $\\boxed 5$.", Some("5")),
            ("\\boxed{\\fbox{1}}", Some("\\fbox{1}")),
            ("\\boxed{x \\boxed 7$", Some("7")),
        ] {
            assert_eq!(last_answer(text), expected, "{text}");
        }
    }
}
