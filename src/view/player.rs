//! A trajectory in a terminal: one frame a step, each token at its final position, masks at unwritten positions.
//!
//! Returns lines; the caller prints them. Control characters become Unicode's pictures: none moves a cursor.

use crate::text::percent;
use crate::trajectory::{Token, Trajectory};

/// How a token looks in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Not written yet.
    Masked,
    /// Written in this step.
    Fresh,
    /// Written before.
    Written,
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What is written; no control characters, no end of line.
    pub text: String,
    /// How.
    pub look: Look,
}

/// A mask is as wide as a short token.
const MASK: &str = "░░";

/// The lines of the state after so many steps, each at most `width` characters wide.
pub fn frame(trajectory: &Trajectory, step: u32, width: usize) -> Vec<Vec<Piece>> {
    let (mut lines, mut used, width) = (vec![vec![]], 0, width.max(1));
    for token in &trajectory.tokens {
        let look = look(token, step, trajectory.steps);
        let text = if look == Look::Masked { MASK } else { &token.text };
        for (index, part) in text.split('\n').enumerate() {
            if index > 0 {
                lines.push(vec![]);
                used = 0;
            }
            let mut rest: Vec<char> = part.chars().map(shown).collect();
            while !rest.is_empty() {
                if used >= width {
                    lines.push(vec![]);
                    used = 0;
                }
                let taken: String = rest.drain(..rest.len().min(width - used)).collect();
                used += taken.chars().count();
                if let Some(line) = lines.last_mut() {
                    line.push(Piece { text: taken, look });
                }
            }
        }
    }
    lines
}

fn look(token: &Token, step: u32, steps: u32) -> Look {
    match token.step {
        Some(written) if written + 1 == step => Look::Fresh,
        Some(written) if written < step => Look::Written,
        // Tokens after the end token appear with it.
        None if step >= steps => Look::Written,
        _ => Look::Masked,
    }
}

/// A printable form of a character: Unicode has pictures of control characters.
pub fn shown(c: char) -> char {
    match u32::from(c) {
        code @ 0..0x20 => char::from_u32(0x2400 + code).unwrap_or('�'),
        0x7f => '␡',
        0x80..0xa0 | 0x202a..=0x202e | 0x2066..=0x2069 => '�',
        _ => c,
    }
}

/// The tokens of a step: `"4" 97.1%` for each token that it wrote.
pub fn written(trajectory: &Trajectory, step: u32) -> String {
    let tokens = trajectory.tokens.iter();
    let fresh = tokens.filter(|token| look(token, step, trajectory.steps) == Look::Fresh);
    let parts = fresh.map(|token| {
        let text: String = token.text.chars().map(shown).collect();
        // The end token has no text.
        let named = if text.is_empty() { "the end".to_owned() } else { format!("\"{text}\"") };
        format!("{named} {}", percent(token.probability))
    });
    parts.collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trajectory() -> Trajectory {
        let token = |text: &str, step, probability| Token {
            text: text.to_owned(),
            step,
            probability,
            entropy: 0.1,
        };
        let tokens = vec![
            token("4", Some(1), 0.971),
            token("\x1b[2J", Some(0), 0.5),
            token("a\nbc", Some(1), 0.25),
            token("", Some(0), 0.4),
            token("", None, 1.0),
        ];
        Trajectory { row: 0, prompt: "2 2".into(), tokens, steps: 2 }
    }

    fn text(step: u32, width: usize) -> Vec<String> {
        let lines = frame(&trajectory(), step, width);
        lines.iter().map(|line| line.iter().map(|piece| piece.text.as_str()).collect()).collect()
    }

    #[test]
    fn tokens_come_in_their_order_and_where_they_will_stand() {
        assert_eq!(text(0, 80), ["░░░░░░░░░░"]);
        assert_eq!(text(1, 80), ["░░␛[2J░░░░"]);
        assert_eq!(text(2, 80), ["4␛[2Ja", "bc"]);
        assert_eq!(written(&trajectory(), 2), "\"4\" 97.1%  \"a␊bc\" 25.0%");
        assert_eq!(written(&trajectory(), 1), "\"␛[2J\" 50.0%  the end 40.0%");
        assert_eq!(written(&trajectory(), 0), "");
    }

    #[test]
    fn lines_are_never_wider_than_asked_for() {
        for width in [1, 2, 3, 7] {
            assert!(text(2, width).iter().all(|line| line.chars().count() <= width));
            assert_eq!(text(2, width).concat(), "4␛[2Jabc");
        }
    }
}
