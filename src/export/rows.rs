//! Rows as text: CSV for spreadsheets, JSONL for programs, and JSONL with the keys of W&B's history.
//!
//! Numbers are read again as written. A value that an iteration lacks is an empty cell in CSV and left out in JSONL.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::history::{History, Row};

const FIRST: [&str; 3] = ["iteration", "unix_time", "policy"];

pub(crate) fn seconds(unix_ms: u64) -> f64 {
    unix_ms as f64 / 1e3
}

/// A header, and a line for each iteration.
pub fn csv(history: &History) -> Result<Vec<u8>, csv::Error> {
    let columns = history.rows.iter().flat_map(|row| row.metrics.keys().map(String::as_str));
    let columns: BTreeSet<&str> = columns.collect();
    let mut writer = csv::Writer::from_writer(vec![]);
    writer.write_record(FIRST.iter().chain(&columns))?;
    for row in &history.rows {
        let number = |value: f64| json!(value).to_string();
        let time = number(seconds(row.unix_ms));
        let first = [row.iteration.to_string(), time, row.policy.to_string()];
        let cell = |name: &&str| row.metrics.get(*name).copied().map_or_else(String::new, number);
        writer.write_record(first.into_iter().chain(columns.iter().map(cell)))?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

/// A JSON object for each iteration.
pub fn jsonl(history: &History) -> Vec<u8> {
    lines(history, FIRST, |row| {
        [json!(row.iteration), json!(seconds(row.unix_ms)), json!(row.policy)]
    })
}

/// The same with W&B's own keys: the step, seconds since the run began, seconds since 1970.
pub fn wandb(history: &History) -> Vec<u8> {
    let began = seconds(history.began_unix_ms);
    lines(history, ["_step", "_runtime", "_timestamp"], |row| {
        let time = seconds(row.unix_ms);
        // To the millisecond that was recorded, and not to the last bit of a difference.
        let runtime = ((time - began) * 1e3).round() / 1e3;
        [json!(row.iteration), json!(runtime), json!(time)]
    })
}

fn lines(history: &History, keys: [&str; 3], first: impl Fn(&Row) -> [Value; 3]) -> Vec<u8> {
    let line = |row: &Row| {
        let first = keys.map(str::to_owned).into_iter().zip(first(row));
        let metrics = row.metrics.iter().map(|(name, value)| (name.clone(), json!(value)));
        let object: Map<String, Value> = first.chain(metrics).collect();
        format!("{}\n", Value::Object(object))
    };
    history.rows.iter().map(line).collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use agrpo_spec::ArtifactDigest;

    use super::*;

    fn history() -> History {
        let row = |iteration, metrics: &[(&str, f64)]| Row {
            iteration,
            unix_ms: 1_700_000_000_123 + u64::from(iteration) * 1000,
            policy: ArtifactDigest::of(b"abc"),
            metrics: metrics.iter().map(|&(name, value)| (name.to_owned(), value)).collect(),
        };
        History {
            began_unix_ms: 1_700_000_000_000,
            rows: vec![row(0, &[("eval/accuracy@8", 0.1)]), row(1, &[("train/kl", 1e-8)])],
            sft: vec![],
        }
    }

    #[test]
    fn what_is_missing_is_empty_or_left_out() {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let digest = ArtifactDigest::of(b"abc").to_string();
        let shown =
            [text(csv(&history()).unwrap()), text(jsonl(&history())), text(wandb(&history()))];
        insta::assert_snapshot!(shown.join("\n").replace(&digest, "[digest]"), @r#"
        iteration,unix_time,policy,eval/accuracy@8,train/kl
        0,1700000000.123,[digest],0.1,
        1,1700000001.123,[digest],,1e-8

        {"eval/accuracy@8":0.1,"iteration":0,"policy":"[digest]","unix_time":1700000000.123}
        {"iteration":1,"policy":"[digest]","train/kl":1e-8,"unix_time":1700000001.123}

        {"_runtime":0.123,"_step":0,"_timestamp":1700000000.123,"eval/accuracy@8":0.1}
        {"_runtime":1.123,"_step":1,"_timestamp":1700000001.123,"train/kl":1e-8}
        "#);
    }

    #[test]
    fn the_same_numbers_are_read_again() {
        let rows = jsonl(&history());
        let line = rows.split(|&byte| byte == b'\n').nth(1).unwrap();
        let row: BTreeMap<String, Value> = serde_json::from_slice(line).unwrap();
        assert_eq!(row["train/kl"].as_f64(), Some(1e-8));
        assert_eq!(row["unix_time"].as_f64(), Some(1_700_000_001.123));
    }
}
