//! A run's metrics for TensorBoard: one file of events, scalars by iteration.
//!
//! ```text
//! u64 LE: bytes of the event | u32 LE: masked CRC of those 8 bytes | event | u32 LE: masked CRC of the event
//! ```
//! (TFRecord's framing; the CRC is CRC-32C, rotated and moved so that a CRC of a CRC stays a good one.) The events are
//! protobuf, with the fields that scalars need; numbers are f32 there. A field begins with 8 times its number plus its
//! type: 0 for a number of any length, 1 for eight bytes, 5 for four, 2 for bytes behind their length. Fine-tuning has
//! its own axis, optimizer steps.

use crc_fast::{CrcAlgorithm, checksum};

use crate::history::{History, Metrics};
use crate::rows::seconds;

/// What TensorBoard expects in the first event.
const VERSION: &str = "brain.Event:2";

/// The file's name, by which TensorBoard finds it: the time of the run's beginning, and its id.
pub fn file_name(history: &History, run: &str) -> String {
    format!("events.out.tfevents.{:010}.{run}", history.began_unix_ms / 1000)
}

/// The file.
pub fn events(history: &History) -> Vec<u8> {
    let mut file = vec![];
    record(&mut file, &event(history.began_unix_ms, 0, 3, VERSION.as_bytes()));
    for chunk in &history.sft {
        record(&mut file, &scalars(chunk.unix_ms, chunk.steps, &chunk.metrics));
    }
    for row in &history.rows {
        record(&mut file, &scalars(row.unix_ms, row.iteration.into(), &row.metrics));
    }
    file
}

/// A `tensorboard.Event` with a `tensorboard.Summary`, whose values have a tag (1) and a number (2).
fn scalars(unix_ms: u64, step: u64, metrics: &Metrics) -> Vec<u8> {
    let mut summary = vec![];
    for (tag, &value) in metrics {
        #[expect(clippy::cast_possible_truncation, reason = "the format's numbers are f32")]
        let value = value as f32;
        let mut scalar = vec![];
        field(&mut scalar, 1, tag.as_bytes());
        scalar.push(8 * 2 + 5);
        scalar.extend(value.to_le_bytes());
        field(&mut summary, 1, &scalar);
    }
    event(unix_ms, step, 5, &summary)
}

/// A `tensorboard.Event`: its time in seconds since 1970 (1), its step (2), and the version of the file (3) or a
/// summary (5). Protobuf leaves out a step of 0.
fn event(unix_ms: u64, step: u64, number: u8, content: &[u8]) -> Vec<u8> {
    let mut event = vec![8 + 1];
    event.extend(seconds(unix_ms).to_le_bytes());
    if step > 0 {
        event.push(8 * 2);
        varint(&mut event, step);
    }
    field(&mut event, number, content);
    event
}

/// A field of text, or of a message.
fn field(message: &mut Vec<u8>, number: u8, content: &[u8]) {
    message.push(8 * number + 2);
    varint(message, content.len() as u64);
    message.extend(content);
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn varint(message: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        message.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    message.push(number.to_le_bytes()[0]);
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
            found.push(event);
            rest = &tail[8 + bytes..];
        }
        assert_eq!(rest, b"");
        // As protobuf's own encoder writes them.
        let expected: [&[u8]; 3] = [
            b"\x09\x00\x00 @\xfcT\xd9A\x1a\x0dbrain.Event:2",
            b"\x09\x00\x00@@\xfcT\xd9A\x102*\x11\x0a\x0f\x0a\x08sft/loss\x15\x00\x00\x00@",
            b"\x09\x00\x00\xd0@\xfcT\xd9A\x10\x07*\x15\x0a\x13\x0a\x0ctrain/reward\x15\x00\x00\x80>",
        ];
        assert_eq!(found, expected);
        let mut long = vec![];
        varint(&mut long, 300);
        assert_eq!(long, [0xac, 0x02]);
    }
}
