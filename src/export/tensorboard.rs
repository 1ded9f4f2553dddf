//! A run's metrics for TensorBoard: one file of events, scalars by iteration.
//!
//! ```text
//! u64 LE: bytes of the event | u32 LE: masked CRC of those 8 bytes | event | u32 LE: masked CRC of the event
//! ```
//! (TFRecord's framing; the CRC is CRC-32C, rotated and moved so that a CRC of a CRC stays a good one.) The messages
//! have the fields that scalars need; numbers are f32 there. Fine-tuning has its own axis, optimizer steps.

use crc_fast::{CrcAlgorithm, checksum};
use prost::Message;

use crate::history::{History, Metrics};
use crate::rows::seconds;

/// What TensorBoard expects in the first event.
const VERSION: &str = "brain.Event:2";

/// `tensorboard.Event`.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

/// `tensorboard.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

/// `tensorboard.Summary.Value`.
#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// The file's name, by which TensorBoard finds it: the time of the run's beginning, and its id.
pub fn file_name(history: &History, run: &str) -> String {
    format!("events.out.tfevents.{:010}.{run}", history.began_unix_ms / 1000)
}

/// The file.
pub fn events(history: &History) -> Vec<u8> {
    let wall_time = seconds(history.began_unix_ms);
    let first = Event { wall_time, step: 0, file_version: Some(VERSION.into()), summary: None };
    let mut file = vec![];
    record(&mut file, &first.encode_to_vec());
    for chunk in &history.sft {
        let step = i64::try_from(chunk.steps).unwrap_or(i64::MAX);
        record(&mut file, &scalars(chunk.unix_ms, step, &chunk.metrics));
    }
    for row in &history.rows {
        record(&mut file, &scalars(row.unix_ms, row.iteration.into(), &row.metrics));
    }
    file
}

fn scalars(unix_ms: u64, step: i64, metrics: &Metrics) -> Vec<u8> {
    let scalar = |(tag, &value): (&String, &f64)| {
        #[expect(clippy::cast_possible_truncation, reason = "the format's numbers are f32")]
        let value = value as f32;
        Scalar { tag: tag.clone(), simple_value: Some(value) }
    };
    let summary = Some(Summary { value: metrics.iter().map(scalar).collect() });
    let event = Event { wall_time: seconds(unix_ms), step, file_version: None, summary };
    event.encode_to_vec()
}

fn record(file: &mut Vec<u8>, event: &[u8]) {
    let length = (event.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked(&length).to_le_bytes());
    file.extend(event);
    file.extend(masked(event).to_le_bytes());
}

fn masked(bytes: &[u8]) -> u32 {
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, bytes);
    let crc = u32::try_from(crc).expect("a CRC of 32 bits");
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use agrpo_spec::ArtifactDigest;

    use super::*;
    use crate::history::{Chunk, Row};

    /// RFC 3720, B.4: 32 bytes of zeros. Rotated and moved by hand.
    #[test]
    fn the_crc_is_castagnoli_s_and_masked() {
        assert_eq!(checksum(CrcAlgorithm::Crc32Iscsi, &[0; 32]), 0x8a91_36aa);
        assert_eq!(masked(&[0; 32]), 0x6d55_1522u32.wrapping_add(0xa282_ead8));
    }

    #[test]
    fn records_follow_each_other_and_hold_what_was_measured() {
        let metrics = Metrics::from([("train/reward".to_owned(), 0.25)]);
        let sft = Metrics::from([("sft/loss".to_owned(), 2.0)]);
        let policy = ArtifactDigest::of(b"abc");
        let history = History {
            began_unix_ms: 1_700_000_000_500,
            rows: vec![Row { iteration: 7, unix_ms: 1_700_000_003_250, policy, metrics }],
            sft: vec![Chunk { steps: 50, unix_ms: 1_700_000_001_000, metrics: sft }],
        };
        assert_eq!(file_name(&history, "abc"), "events.out.tfevents.1700000000.abc");
        let file = events(&history);
        assert_eq!(file, events(&history));
        let mut rest = &file[..];
        let mut found = vec![];
        while let Some((length, tail)) = rest.split_first_chunk::<8>() {
            let bytes = usize::try_from(u64::from_le_bytes(*length)).unwrap();
            assert_eq!(tail[..4], masked(length).to_le_bytes());
            let event = &tail[4..4 + bytes];
            assert_eq!(tail[4 + bytes..8 + bytes], masked(event).to_le_bytes());
            found.push(Event::decode(event).unwrap());
            rest = &tail[8 + bytes..];
        }
        assert_eq!(rest, b"");
        assert_eq!(found[0].file_version.as_deref(), Some(VERSION));
        let value = |event: &Event| {
            let scalar = &event.summary.as_ref().unwrap().value[0];
            (event.wall_time, event.step, scalar.tag.clone(), scalar.simple_value.unwrap())
        };
        assert_eq!(value(&found[1]), (1_700_000_001.0, 50, "sft/loss".into(), 2.0));
        assert_eq!(value(&found[2]), (1_700_000_003.25, 7, "train/reward".into(), 0.25));
    }
}
