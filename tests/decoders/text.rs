//! Data sets, truths and completions: what becomes problems and what answers them.

use std::sync::Arc;

use agrpo_grading::{
    Benchmark, Format, Problem, Protocol, Row, Template, json_columns, problem, problem_of_truth,
    program_answer, reward, rows, training_problems, verdict,
};
use bytes::Bytes;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::Value;

const ALL: [Benchmark; 4] =
    [Benchmark::Gsm8k, Benchmark::Math, Benchmark::Countdown, Benchmark::Sudoku];

/// Bytes of a completion: the longest that the papers sample, four letters a token.
const LONGEST: usize = 4 << 10;

/// Rows of every layout; the first of them as problems of every task.
fn accepted(bytes: &[u8], format: Format) -> bool {
    let Ok(rows) = rows(&Bytes::copy_from_slice(bytes), format) else { return false };
    let few: &[Row] = &rows[..rows.len().min(64)];
    for benchmark in ALL {
        for protocol in Protocol::ALL {
            for row in few {
                drop(problem(row, benchmark, protocol));
            }
            drop(training_problems(few, benchmark, protocol, few));
        }
    }
    true
}

fn bytes_of(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub(crate) fn json_row_seeds() -> Vec<Vec<u8>> {
    bytes_of(&[
        "{\"question\": \"q\", \"answer\": \"a\\nb\\n#### 1,234\"}\n\n{\"question\": \"r\", \"answer\": 7}\n",
        r#"{"problem": "p", "solution": "\\boxed{\\frac{1}{2}}", "level": "Level 3"}"#,
        "{\"nums\": [44, 19, 35], \"target\": 98}\n{\"input\": \"30,100, 93\", \"output\": \"23\"}",
        r#"{"puzzle": "0204032001400402", "solution": "1234432121433412"}"#,
    ])
}

pub(crate) fn json_rows(bytes: &[u8]) -> bool {
    accepted(bytes, Format::JsonLines)
}

pub(crate) fn csv_row_seeds() -> Vec<Vec<u8>> {
    bytes_of(&[
        "\u{feff}Puzzle,Solution\n0204032001400402,1234432121433412\n",
        "question,answer\n\"a \"\"quoted\"\" one,\nwith lines\",#### 3\r\nplain,4\r\n",
        "input,output\n\"3,7\",10\n",
    ])
}

pub(crate) fn csv_rows(bytes: &[u8]) -> bool {
    accepted(bytes, Format::Csv)
}

/// Numbers, lists and texts, packed as Hugging Face packs them.
pub(crate) fn parquet_seeds() -> Vec<Vec<u8>> {
    [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(Default::default())]
        .map(|compression| packed(compression).expect("written into memory"))
        .into()
}

fn packed(compression: Compression) -> Result<Vec<u8>, parquet::errors::ParquetError> {
    let schema = "message rows {
        required int64 target;
        optional group nums (LIST) { repeated group list { optional int64 element; } }
        optional binary question (UTF8);
    }";
    let schema = Arc::new(parse_message_type(schema)?);
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for column in 0..3 {
        let Some(mut writer) = group.next_column()? else { break };
        match column {
            0 => writer.typed::<Int64Type>().write_batch(&[98, 64], None, None)?,
            1 => writer.typed::<Int64Type>().write_batch(
                &[44, 19, 35, 63, 95, 96],
                Some(&[3; 6]),
                Some(&[0, 1, 1, 0, 1, 1]),
            )?,
            _ => {
                let text = [ByteArray::from("first")];
                writer.typed::<ByteArrayType>().write_batch(&text, Some(&[1, 0]), None)?
            }
        };
        writer.close()?;
    }
    group.close()?;
    writer.close()?;
    Ok(bytes)
}

pub(crate) fn parquet_rows(bytes: &[u8]) -> bool {
    accepted(bytes, Format::Parquet)
}

/// A template, and behind a line of its own the row.
pub(crate) fn templates() -> Vec<Vec<u8>> {
    bytes_of(&[
        "sort {{ word }}\n---\n{\"word\": \"cab\"}",
        "{% for x in all %}{% set t = t ~ x %}{{ loop.index }}{% endfor %}{{ t | indent(4) }}\n---\n{\"all\": [\"a\", 2], \"t\": \"\"}",
        "{% macro m(a) %}{{ a * 3 }}{% endmacro %}{{ m(x) | join(', ') }}{{ x[1:] + x }}{{ y[0] is none }}\n---\n{\"x\": [1, 2.5], \"y\": [null]}",
        "{% if n > 2 %}{{ '%5d' | format(n) }}{% elif n is none %}-{% else %}{{ n | default(0) }}{% endif %}\n---\n{\"n\": 3}",
    ])
}

pub(crate) fn template(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let (source, row) = text.split_once("\n---\n").unwrap_or((&text, "{\"x\": \"abc\"}"));
    let Ok((row, _)) = json_columns(row.as_bytes()) else { return false };
    Template::new(source).is_ok_and(|template| template.render(&row).is_ok())
}

pub(crate) fn truths() -> Vec<Vec<u8>> {
    bytes_of(&[
        r#"["so 0204032001400402 it is", "1234432121433412"]"#,
        r#"["q", {"numbers": [3, 7, 8], "target": 29}]"#,
        r#"["q", [[3, 7, 8], 29]]"#,
        r##"["q", "so #### 1,234"]"##,
        r#"["q", 18.0]"#,
        r#"["q", "thus $\\boxed{\\frac12}$"]"#,
    ])
}

/// Question and ground truth of a graded completion.
pub(crate) fn truth(bytes: &[u8]) -> bool {
    let Ok((question, truth)) = serde_json::from_slice::<(String, Value)>(bytes) else {
        return false;
    };
    let read = |benchmark| problem_of_truth(benchmark, &question, &truth).is_ok();
    ALL.into_iter().filter(|&benchmark| read(benchmark)).count() > 0
}

pub(crate) fn completions() -> Vec<Vec<u8>> {
    bytes_of(&[
        "<reasoning>\n2+2\n</reasoning>\n<answer>\n\\boxed{\\frac{14}{3} + \\sqrt{2}}\n</answer>",
        "thus \\boxed{x \\in [-2, 7) \\cup \\{1, 2\\}} and $\\left( 3, \\frac{\\pi}{2} \\right)$",
        "<answer>(44 + 19) * 35 - 7</answer>",
        "<think>let me see</think><answer>\\boxed{1234432121433412}</answer>",
        "#### 1,234.50\n\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix} \\$12\\% 3^{2^{3}} 10!",
    ])
}

/// A completion of a policy, for every grader. Graders refuse nothing.
pub(crate) fn completion(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST)]);
    let problems = [
        Problem::Gsm8k { question: "q".into(), answer: Some("1,234".into()) },
        Problem::Math { question: "q".into(), answer: "\\frac{14}{3} + \\sqrt{2}".into() },
        Problem::Countdown { numbers: vec![44, 19, 35, 7], target: 98 },
        Problem::Sudoku { puzzle: "0204032001400402".into(), solution: "1234432121433412".into() },
    ];
    for problem in &problems {
        for protocol in Protocol::ALL {
            assert!(reward(problem, protocol, &text).reward.is_finite());
            assert!((0.0..=1.0).contains(&verdict(problem, protocol, &text).score()));
        }
    }
    true
}

pub(crate) fn answers() -> Vec<Vec<u8>> {
    bytes_of(&[
        r#"{"id": "17/3", "reward": 0.5}"#,
        r#"{"parts": {"in_place": 0.25, "solved": -1e3}, "id": "17/3", "correct": true}"#,
        r#"{"id": "17/3", "reward": 1, "note": ["kept", {"by": null}]}"#,
    ])
}

/// A line of a grading program. An accepted answer is finite, and has the id of the row.
pub(crate) fn answer(bytes: &[u8]) -> bool {
    match program_answer(bytes, "17/3") {
        Ok(score) => {
            assert!(!score.parts.is_empty());
            assert!(score.parts.values().all(|value| value.is_finite()));
            assert!(program_answer(bytes, "17/4").is_err());
            true
        }
        Err(error) => {
            assert!(!error.to_string().contains(['\n', '\u{1b}']), "{error}");
            false
        }
    }
}
