//! Formats, layouts, filters and what is refused; the whole public sets if they are available.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::Value;

use super::*;
use crate::{Benchmark, Problem, Protocol, tests::shared};

mod bounds;
mod columns;

fn lines(text: &str) -> Vec<Row> {
    rows(&Bytes::from(text.to_owned()), Format::JsonLines).unwrap()
}

fn one(text: &str, benchmark: Benchmark, protocol: Protocol) -> Result<Problem, DataError> {
    problem(&lines(text)[0], benchmark, protocol)
}

/// The numbers and the target of a Countdown set, packed as Hugging Face packs it.
fn packed(compression: Compression) -> Bytes {
    let schema = "message rows {
        required int64 target;
        optional group nums (LIST) { repeated group list { optional int64 element; } }
        optional binary note (UTF8);
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&[98, 64], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let numbers = [44, 19, 35, 63, 95, 96];
    let (definitions, repetitions) = ([3; 6], [0, 1, 1, 0, 1, 1]);
    column
        .typed::<Int64Type>()
        .write_batch(&numbers, Some(&definitions), Some(&repetitions))
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let notes = [ByteArray::from("first")];
    column.typed::<ByteArrayType>().write_batch(&notes, Some(&[1, 0]), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    Bytes::from(bytes)
}

#[test]
fn parquet_rows_are_those_of_json() {
    let expected = lines(
        "{\"target\": 98, \"nums\": [44, 19, 35], \"note\": \"first\"}\n{\"target\": 64, \"nums\": [63, 95, 96], \"note\": null}\n",
    );
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(parquet::basic::ZstdLevel::default()),
        Compression::GZIP(parquet::basic::GzipLevel::default()),
        Compression::BROTLI(parquet::basic::BrotliLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
    ] {
        let rows = rows(&packed(compression), Format::Parquet).unwrap();
        assert_eq!(rows, expected);
        assert_eq!(
            problem(&rows[1], Benchmark::Countdown, Protocol::Agrpo).unwrap(),
            Problem::Countdown { numbers: vec![63, 95, 96], target: 64 }
        );
    }
    let error = rows(&Bytes::from_static(b"PAR1"), Format::Parquet).unwrap_err().to_string();
    assert!(error.starts_with("Parquet cannot be read: "), "{error}");
}

#[test]
fn csv_keeps_zeros() {
    let text = "\u{feff}Puzzle,Solution\n0204032001400402,1234432121433412\n";
    let found = rows(&Bytes::from_static(text.as_bytes()), Format::Csv).unwrap();
    let expected =
        Problem::Sudoku { puzzle: "0204032001400402".into(), solution: "1234432121433412".into() };
    assert_eq!(problem(&found[0], Benchmark::Sudoku, Protocol::D1).unwrap(), expected);
    // Read as a number, the puzzle lost its first zero.
    let number = r#"{"puzzle": 204032001400402, "solution": 1234432121433412}"#;
    assert_eq!(one(number, Benchmark::Sudoku, Protocol::Agrpo).unwrap(), expected);
    let short = rows(&Bytes::from_static(b"a,b\n1\n"), Format::Csv).unwrap_err();
    assert!(short.to_string().starts_with("row 1 cannot be read: "), "{short}");
}

#[test]
fn layouts_of_the_public_sets() {
    for (text, benchmark, expected) in [
        (
            r#"{"question": "q", "answer": "a\nb\n#### 1,234"}"#,
            Benchmark::Gsm8k,
            Problem::Gsm8k { question: "q".into(), answer: Some("1,234".into()) },
        ),
        (
            r#"{"question": "q", "answer": " 72 "}"#,
            Benchmark::Gsm8k,
            Problem::Gsm8k { question: "q".into(), answer: Some("72".into()) },
        ),
        (
            r#"{"problem": "p", "solution": "\\boxed{1}", "answer": "\\frac12"}"#,
            Benchmark::Math,
            Problem::Math { question: "p".into(), answer: "\\frac12".into() },
        ),
        (
            r#"{"input": "30,100, 93", "output": "23"}"#,
            Benchmark::Countdown,
            Problem::Countdown { numbers: vec![30, 100, 93], target: 23 },
        ),
        (
            r#"{"numbers": [30, 100, 93], "target": 23}"#,
            Benchmark::Countdown,
            Problem::Countdown { numbers: vec![30, 100, 93], target: 23 },
        ),
    ] {
        for protocol in Protocol::ALL {
            assert_eq!(one(text, benchmark, protocol).as_ref(), Ok(&expected), "{text}");
        }
    }
    let boxes = r#"{"problem": "p", "solution": "\\boxed{1} so \\boxed{2}"}"#;
    for (protocol, expected) in [(Protocol::D1, "2"), (Protocol::Agrpo, "1")] {
        let problem = one(boxes, Benchmark::Math, protocol).unwrap();
        assert_eq!(problem, Problem::Math { question: "p".into(), answer: expected.into() });
    }
}

#[test]
fn errors_name_row_and_field() {
    let second = |text: &str, benchmark| {
        let rows = lines(&format!("\n{text}"));
        problem(&rows[0], benchmark, Protocol::D1).unwrap_err().to_string()
    };
    for (text, benchmark, expected) in [
        (
            r#"{"question": "q"}"#,
            Benchmark::Gsm8k,
            "row 2 has no answer: expected the solution with ####",
        ),
        (
            r#"{"question": "q", "answer": "a\nb"}"#,
            Benchmark::Gsm8k,
            "row 2, answer = \"a\\nb\": expected the",
        ),
        (r#"{"question": 3}"#, Benchmark::Gsm8k, "row 2, question = 3: expected a text"),
        (r#"{"problem": "p"}"#, Benchmark::Math, "row 2 has no answer: expected LaTeX"),
        (
            r#"{"problem": "p", "solution": "1"}"#,
            Benchmark::Math,
            "row 2, solution = \"1\": expected LaTeX",
        ),
        (r#"{"target": 3}"#, Benchmark::Countdown, "row 2 has no nums: expected a list"),
        (
            r#"{"nums": [1.5], "target": 3}"#,
            Benchmark::Countdown,
            "row 2, nums = [1.5]: expected a list",
        ),
        (
            r#"{"nums": [1], "target": -3}"#,
            Benchmark::Countdown,
            "row 2, target = -3: expected a whole",
        ),
        (r#"{"puzzle": "0"}"#, Benchmark::Sudoku, "row 2, puzzle = "),
        (
            r#"{"puzzle": "0204032001400402", "solution": "1234432121433421"}"#,
            Benchmark::Sudoku,
            "row 2, solution = ",
        ),
    ] {
        let error = if benchmark == Benchmark::Sudoku && text.len() < 20 {
            // One digit is a puzzle with 16 blanks, whose solution is missing.
            assert_eq!(
                second(text, benchmark),
                "row 2 has no solution: expected 16 digits from 1 to 4 that keep the puzzle's"
            );
            continue;
        } else {
            second(text, benchmark)
        };
        assert!(error.starts_with(expected), "{error}");
    }
    let error = rows(&Bytes::from_static(b"{}\n[1]\n"), Format::JsonLines).unwrap_err();
    assert!(error.to_string().starts_with("row 2 cannot be read: "), "{error}");
}

#[test]
fn what_protocols_train_on() {
    let math = lines(
        r#"{"problem": "a", "level": "Level 4", "solution": "\\boxed{1}"}
{"problem": "b", "level": "Level 5", "solution": "\\boxed{2}"}
{"problem": "c", "level": "Level ?", "solution": "\\boxed{3}"}
{"problem": "d", "level": "Level 1", "solution": "none"}
{"problem": "e", "level": "Level 1", "solution": "\\boxed{5}"}
{"problem": "f", "answer": null}"#,
    );
    let test = lines(r#"{"problem": "e", "answer": "5"}"#);
    let asked = |protocol, test: &[Row]| -> Vec<String> {
        let problems = training_problems(&math[..], Benchmark::Math, protocol, test).unwrap();
        let asked = problems.into_iter().map(|placed| match placed.problem {
            Problem::Math { question, .. } => question,
            other => panic!("{other:?}"),
        });
        asked.collect()
    };
    assert_eq!(asked(Protocol::Agrpo, &test), ["a"]);
    assert_eq!(asked(Protocol::Agrpo, &[]), ["a", "e"]);
    let error = training_problems(&math, Benchmark::Math, Protocol::D1, &[]).unwrap_err();
    assert!(error.to_string().starts_with("row 4, solution = \"none\""), "{error}");

    let countdown = lines(
        r#"{"nums": [1, 2, 3], "target": 6}
{"nums": [1, 2, 3, 4], "target": 10}
{"nums": [3, 2, 1], "target": 5}
{"nums": [4, 5, 6], "target": 15}"#,
    );
    let test = lines(r#"{"input": "1,2,3", "output": "5"}"#);
    let count = |protocol| {
        training_problems(&countdown, Benchmark::Countdown, protocol, &test).unwrap().len()
    };
    assert_eq!((count(Protocol::Agrpo), count(Protocol::D1)), (2, 3));
}

#[test]
fn twenty_thousand_rows_are_agrpos() {
    let row = r#"{"puzzle": "0204032001400402", "solution": "1234432121433412"}"#;
    let rows = lines(&format!("{row}\n").repeat(20_001));
    let count =
        |protocol| training_problems(&rows, Benchmark::Sudoku, protocol, &[]).unwrap().len();
    assert_eq!((count(Protocol::Agrpo), count(Protocol::D1)), (20_000, 20_001));
    let evaluated =
        |protocol| evaluation_problems(&rows[..500], Benchmark::Sudoku, protocol).unwrap().len();
    assert_eq!((evaluated(Protocol::D1), evaluated(Protocol::Agrpo)), (256, 500));
}

#[test]
fn public_sets_are_read_whole() {
    for (file, benchmark, count) in [
        ("gsm8k_train", Benchmark::Gsm8k, 7473),
        ("gsm8k_test", Benchmark::Gsm8k, 1319),
        ("math500", Benchmark::Math, 500),
        ("countdown_train", Benchmark::Countdown, 20_000),
        ("countdown_test", Benchmark::Countdown, 256),
        ("sudoku_train", Benchmark::Sudoku, 20_000),
        ("sudoku_test", Benchmark::Sudoku, 500),
        ("sudoku_spg_test", Benchmark::Sudoku, 256),
    ] {
        let Some(path) = shared(&format!("data/{file}.jsonl"), count) else { continue };
        let rows = rows(&Bytes::from(std::fs::read(path).unwrap()), Format::JsonLines).unwrap();
        for protocol in Protocol::ALL {
            let problems: Result<Vec<Problem>, DataError> =
                rows.iter().map(|row| problem(row, benchmark, protocol)).collect();
            assert_eq!(problems.unwrap().len(), count, "{file}");
        }
    }
}

#[test]
fn files_that_strangers_had_trouble_with() {
    for (name, bytes) in [
        ("brotli", &include_bytes!("tests/dataset_codec_brotli.parquet")[..]),
        ("lz4", &include_bytes!("tests/dataset_codec_lz4.parquet")[..]),
        ("binary column", &include_bytes!("tests/dataset_binary_column.parquet")[..]),
    ] {
        let rows = rows(&Bytes::from_static(bytes), Format::Parquet).unwrap();
        assert_eq!(rows.len(), 48, "{name}");
        assert!(rows.iter().all(|row| row.fields.values().all(Value::is_string)), "{name}");
    }
}
