//! What the pages of a Parquet file say of themselves, before the crate believes them: it sets aside what a
//! page calls its unpacked size, up to two gigabytes, and counts out as many values as a page calls its own.
//!
//! Walks the header of every page (Thrift's compact protocol; `PageHeader` of the format's own definition)
//! and refuses sizes and counts that a file of this length does not excuse. Unpacks nothing.

use std::ops::Range;

/// Headers nest three deep.
const DEEPEST: u32 = 8;
/// Unpacked bytes for each byte of the file, and those that any page may have.
const UNPACKED: u64 = 256;
const ANY_PAGE: u64 = 1 << 20;
/// Values for each byte of the file: a run of equal ones takes few bytes, but rows of a data set differ.
const VALUES: u64 = 8;

/// What one header says.
#[derive(Default)]
struct Header {
    unpacked: Option<u64>,
    packed: Option<u64>,
    values: u64,
}

/// Whether the pages of these columns are worth a try; otherwise why not, in one line.
pub(super) fn check(
    file: &[u8],
    columns: impl Iterator<Item = Range<u64>>,
) -> Result<(), &'static str> {
    let length = file.len() as u64;
    let mut values: u64 = 0;
    for column in columns {
        let inside = |n: u64| usize::try_from(n).ok().filter(|&n| n <= file.len());
        let (start, end) =
            inside(column.start).zip(inside(column.end)).ok_or("a column beyond its end")?;
        let mut rest = file.get(start..end).ok_or("a column that ends before it begins")?;
        while !rest.is_empty() {
            let mut header = Header::default();
            structure(&mut rest, 0, &mut header).ok_or("the header of a page is damaged")?;
            let (Some(unpacked), Some(packed)) = (header.unpacked, header.packed) else {
                return Err("a page does not say its sizes");
            };
            if unpacked > ANY_PAGE + UNPACKED * length {
                return Err("a page says that it unpacks to far more than the file can hold");
            }
            values = values.saturating_add(header.values);
            if values > VALUES * length {
                return Err("its pages say that they have more values than the file can hold");
            }
            let packed = usize::try_from(packed).map_err(|_| "a page beyond its column")?;
            rest = rest.get(packed..).ok_or("a page beyond its column")?;
        }
    }
    Ok(())
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (&first, behind) = rest.split_first()?;
    *rest = behind;
    Some(first)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(rest)?;
        number |= u64::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Some(number);
        }
    }
    None
}

/// A signed number that is not negative.
fn count(rest: &mut &[u8]) -> Option<u64> {
    let number = varint(rest)?;
    number.is_multiple_of(2).then_some(number / 2)
}

fn skip(rest: &mut &[u8], bytes: u64) -> Option<()> {
    *rest = rest.get(usize::try_from(bytes).ok()?..)?;
    Some(())
}

/// Reads a structure; at the top notes the sizes, one below it the number of values.
fn structure(rest: &mut &[u8], depth: u32, header: &mut Header) -> Option<()> {
    let mut field = 0;
    loop {
        let next = byte(rest)?;
        if next == 0 {
            return Some(());
        }
        field = match next >> 4 {
            0 => count(rest)?,
            delta => field + u64::from(delta),
        };
        match (depth, field, next & 15) {
            // uncompressed_page_size and compressed_page_size; said twice they are one lie.
            (0, 2, 5) if header.unpacked.is_none() => header.unpacked = Some(count(rest)?),
            (0, 3, 5) if header.packed.is_none() => header.packed = Some(count(rest)?),
            (0, 2 | 3, _) => return None,
            // num_values comes first in the headers of all kinds of pages.
            (1, 1, 5) => header.values = header.values.checked_add(count(rest)?)?,
            (_, _, kind) => value(rest, kind, depth, header)?,
        }
    }
}

fn value(rest: &mut &[u8], kind: u8, depth: u32, header: &mut Header) -> Option<()> {
    match kind {
        1 | 2 => Some(()),
        3 => skip(rest, 1),
        4..=6 => varint(rest).map(drop),
        7 => skip(rest, 8),
        8 => {
            let length = varint(rest)?;
            skip(rest, length)
        }
        12 if depth < DEEPEST => structure(rest, depth + 1, header),
        // Lists and maps: no page header has one.
        _ => None,
    }
}
