//! Text that is UTF-8, or how it can become so. Other encodings are recognised by their first bytes, and never read.

/// The text of a file.
///
/// # Errors
/// Which encoding it seems to be in, and what converts it.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
