//! Reads the wording of serde_json's errors; no other file does. The wording is not part of serde_json's interface, so
//! the tests fail if another version changes it.

/// Why a text is refused, without the line and column. For texts that are one line, or not what a file shows.
pub fn json_reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

/// Whether a number is too large for a float.
pub fn is_out_of_range(error: &serde_json::Error) -> bool {
    json_reason(error) == "number out of range"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_left_out() {
        let error = |text: &str| serde_json::from_str::<Vec<f64>>(text).unwrap_err();
        assert_eq!(json_reason(&error("[1,")), "EOF while parsing a value");
        assert!(is_out_of_range(&error("[1e999]")) && !is_out_of_range(&error("[x]")));
    }
}
