//! Lines, columns and files that are too much: refused by row and bound.

use super::*;

/// The error for bytes that are refused before they cost anything.
fn refused(bytes: impl Into<Bytes>, format: Format) -> String {
    let message = rows(&bytes.into(), format).unwrap_err().to_string();
    assert!(message.len() < 400 && !message.contains('\n'), "{message}");
    message
}

/// A row, and text of so many bytes around a filling.
fn long(before: &str, filling: &str, after: &str, bytes: usize) -> String {
    format!("{before}{}{after}\n", filling.repeat(bytes / filling.len()))
}

#[test]
fn a_row_has_bounds() {
    use Format::{Csv, JsonLines};
    let keys: String = (0..500_000).map(|n| format!("\"k{n}\":1,")).collect();
    let names: String = (0..500_000).map(|n| format!("c{n},")).collect();
    let more = LONGEST_ROW + (1 << 20);
    insta::assert_snapshot!(
        [
            refused(format!("{{\"a\": 1}}\n{}", long("{\"a\": \"", "x", "\"}", more)), JsonLines),
            refused(long("{\"a\": [", "0,", "0]}", 1 << 20), JsonLines),
            refused(long("{\"a\": [", "[],", "0]}", 1 << 20), JsonLines),
            refused(format!("{{{keys}\"k\":1}}\n"), JsonLines),
            refused(format!("{{\"a\":{{{keys}\"k\":1}}}}\n"), JsonLines),
            refused(long("{\"a\": ", "[", "1", 100_000), JsonLines),
            refused(long("", "{\"a\":", "1", 500_000), JsonLines),
            refused(long("", "[", "", 100_000), JsonLines),
            refused(format!("a,b\n1,2\n{}", long("1,\"", "x", "\"", more)), Csv),
            refused(format!("a,b\n1,2\n{}", long("1,", "x", "", more)), Csv),
            refused(long("a,\"", "x", "\"", more), Csv),
            refused(format!("{names}c\n"), Csv),
        ]
        .join("\n"),
        @r#"
        row 2 cannot be read: 17825801 bytes, expected at most 16777216
        row 1 cannot be read: more than 262144 values in one row at line 1 column 524293; expected one JSON object a line
        row 1 cannot be read: more than 262144 values in one row at line 1 column 786436; expected one JSON object a line
        row 1 cannot be read: more than 4096 keys in one object at line 1 column 39858; expected one JSON object a line
        row 1 cannot be read: more than 4096 keys in one object at line 1 column 39863; expected one JSON object a line
        row 1 cannot be read: lists and objects nest deeper than 64 at line 1 column 70; expected one JSON object a line
        row 1 cannot be read: lists and objects nest deeper than 64 at line 1 column 321; expected one JSON object a line
        row 1 cannot be read: invalid type: sequence, expected a map at line 1 column 0; expected one JSON object a line
        row 2 cannot be read: more than 16777216 bytes up to the end of the row
        row 2 cannot be read: more than 16777216 bytes up to the end of the row
        CSV cannot be read: more than 16777216 bytes up to the end of the row
        CSV cannot be read: 500001 columns, expected at most 4096
        "#
    );
}

#[test]
fn a_key_stands_once() {
    insta::assert_snapshot!(
        [
            refused("{\"a\": 1, \"b\": 2, \"a\": 3}\n", Format::JsonLines),
            refused("{\"a\": 1}\n{\"b\": [{\"c\": 1, \"c\": 1}]}\n", Format::JsonLines),
            refused("q,a,a\n1,2,3\n", Format::Csv),
        ]
        .join("\n"),
        @r#"
        row 1 cannot be read: the key "a" stands twice at line 1 column 20; expected one JSON object a line
        row 2 cannot be read: the key "c" stands twice at line 1 column 19; expected one JSON object a line
        CSV cannot be read: "a" names two columns: expected every name once in the first line
        "#
    );
}

#[test]
fn numbers_are_taken_as_they_stand() {
    let text = "{\"i\": 18446744073709551615, \"j\": -9223372036854775808, \"f\": 0.1, \"g\": 1.0, \"s\": \"1e5, 1.10\"}\n";
    assert!(lines(text)[0].noted.is_empty());
    assert_eq!(lines(text)[0].fields["i"], Value::from(u64::MAX));
    let noted =
        &lines("{\"a\\n\": 1e5, \"b\": [1.10, {\"c\": 2}], \"d\": -0, \"e\": 5e-05, \"f\": 2.5}")
            [0]
        .noted;
    let noted: Vec<_> = noted.iter().map(|(name, number)| format!("{name:?} {number}")).collect();
    assert_eq!(noted, ["\"a\\n\" 1e5", "\"b\" 1.10", "\"d\" -0", "\"e\" 5e-05"]);
    insta::assert_snapshot!(
        [
            refused("{\"a\": 1}\n{\"b\": \"x\", \"n\": 18446744073709551616}\n", Format::JsonLines),
            refused("{\"n\": [1, -9223372036854775809]}\n", Format::JsonLines),
            refused(format!("{{\"n\": {}}}\n", "9".repeat(5000)), Format::JsonLines),
            refused("{\"n\": 1e400}\n", Format::JsonLines),
            refused("{\"n\": NaN}\n", Format::JsonLines),
        ]
        .join("\n"),
        @r#"
        row 2 cannot be read: column "n": the integer 18446744073709551616 has more than 64 bits: write it as text; expected one JSON object a line
        row 1 cannot be read: column "n": the integer -9223372036854775809 has more than 64 bits: write it as text; expected one JSON object a line
        row 1 cannot be read: column "n": the integer 9999999999999999999999999999999999999999 has more than 64 bits: write it as text; expected one JSON object a line
        row 1 cannot be read: column "n": the number 1e400 is too large for a float: write it as text; expected one JSON object a line
        row 1 cannot be read: expected value at line 1 column 7; expected one JSON object a line
        "#
    );
}

#[test]
fn a_mark_of_byte_order_is_no_part_of_the_first_row() {
    assert_eq!(lines("\u{feff}{\"a\": 1}\n"), lines("{\"a\": 1}\n"));
}

#[test]
fn a_file_without_rows_is_refused_as_one() {
    let message = [
        refused("", Format::JsonLines),
        refused("", Format::Csv),
        refused("", Format::Parquet),
        refused("\n \n", Format::JsonLines),
        refused("q,a\n", Format::Csv),
        refused("\u{feff}", Format::Csv),
    ];
    insta::assert_snapshot!(message.join("\n"), @"
    the data set cannot be read: the file is empty (0 bytes)
    the data set cannot be read: the file is empty (0 bytes)
    the data set cannot be read: the file is empty (0 bytes)
    the data set cannot be read: it has no rows: expected at least one
    the data set cannot be read: it has no rows: expected at least one
    the data set cannot be read: it has no rows: expected at least one
    ");
}

#[test]
fn another_encoding_is_refused_by_its_name() {
    let message = [
        refused(&b"q,a\n1,2\n\xa33,4\n"[..], Format::Csv),
        refused(&b"{\0\"\0q\0"[..], Format::JsonLines),
    ];
    insta::assert_snapshot!(message.join("\n"), @"
    the data set cannot be read: the byte 0xA3 in line 3 is not UTF-8: save the file as UTF-8; `iconv -f WINDOWS-1252 -t UTF-8` converts Latin-1 and Windows-1252
    the data set cannot be read: it is UTF-16, expected UTF-8: `iconv -f UTF-16 -t UTF-8` converts it
    ");
}

/// Python's strict reader takes and refuses the same.
#[test]
fn a_quote_swallows_no_rows() {
    let message = [
        refused("q,a\n1,2\n3,\"4\n5,6\n7,8\n", Format::Csv),
        refused("q,a\n1,\"2\n3,\"4\"\n", Format::Csv),
        refused("q,a\n\"1\"st,2\n", Format::Csv),
        refused("q,\"a\n1,2\n", Format::Csv),
        refused("q,a\n\"x\ny\",2\n\n\"3,4\n", Format::Csv),
    ];
    insta::assert_snapshot!(message.join("\n"), @r#"
    row 2 cannot be read: the quote that opens a field in line 3 is never closed
    row 1 cannot be read: the quote that opens a field in line 2 closes in line 3 before the field ends: expected a comma or the end of the line; a quote within quotes is doubled
    row 1 cannot be read: the quote that opens a field in line 2 closes in line 2 before the field ends: expected a comma or the end of the line; a quote within quotes is doubled
    CSV cannot be read: the quote that opens a field in line 1 is never closed
    row 2 cannot be read: the quote that opens a field in line 5 is never closed
    "#);
    let text = "q,a\n\"a \"\"b\"\"\nc\",5'6\"\r\n\"\",\"x\"";
    let all = rows(&Bytes::from(text), Format::Csv).unwrap();
    let all: Vec<_> = all.iter().map(|row| (&row.fields["q"], &row.fields["a"])).collect();
    let text = |text: &str| Value::from(text);
    assert_eq!(all, [(&text("a \"b\"\nc"), &text("5'6\"")), (&text(""), &text("x"))]);
}
