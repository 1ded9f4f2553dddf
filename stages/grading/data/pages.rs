//! Checks the sizes and counts that a Parquet file claims before the crate trusts them: the crate allocates a
//! page's claimed unpacked size, up to two gigabytes, reads as many values as a page claims, unpacks gzip and
//! brotli to their ends whatever the claim, and follows a schema as deep as it nests.
//!
//! Walks the schema and the header of every page (Thrift's compact protocol; `FileMetaData` and `PageHeader` of
//! the format's own definition) and refuses sizes and counts that are too large for the file's length. Unpacks
//! columns whose size is known in no other way, and drops what comes out.

use std::{io::Read, ops::Range};

/// The deepest nesting of headers that is read; theirs is three.
const DEEPEST: u32 = 8;
/// The deepest nesting of groups; a list takes two.
const DEEPEST_COLUMN: usize = 64;
/// The most unpacked bytes for each byte of the file, and the most that any page may have.
const UNPACKED: u64 = 256;
const ANY_PAGE: u64 = 1 << 20;
/// The most values for each byte of the file: a run of equal ones takes few bytes, but rows of a data set differ.
const VALUES: u64 = 8;

#[derive(Clone, Copy)]
pub(super) enum Packing {
    /// Unpacks to the claimed size, or to a few hundred times the length of its pages.
    Bounded,
    /// Unpacks to any length.
    Gzip,
    /// Unpacks to any length too.
    Brotli,
}

/// The claims of one page header.
#[derive(Default)]
struct Header {
    unpacked: Option<u64>,
    packed: Option<u64>,
    values: u64,
    /// Bytes before the packed ones.
    levels: u64,
}

/// Refuses a schema that is damaged, or nests too deep, with a reason of one line.
pub(super) fn check_schema(file: &[u8], most: usize) -> Result<(), String> {
    let damaged = || "its schema is damaged".to_owned();
    // Length and magic number stand at the end of the file; the crate reports other damage.
    let Some((length, _)) = file.len().checked_sub(8).map(|at| file[at..].split_at(4)) else {
        return Ok(());
    };
    let length = length.iter().rev().fold(0, |length, &byte| (length << 8) | usize::from(byte));
    let Some(start) = (file.len() - 8).checked_sub(length) else { return Ok(()) };
    let mut rest = &file[start..file.len() - 8];
    let mut number = 0;
    loop {
        match field(&mut rest, &mut number).ok_or_else(damaged)? {
            0 => return Err(damaged()),
            9 if number == 2 => {
                return elements(&mut rest, most).unwrap_or_else(|| Err(damaged()));
            }
            kind => value(&mut rest, kind, 2, &mut Header::default()).ok_or_else(damaged)?,
        }
    }
}

/// Walks the list of a schema's elements, each group before its parts.
fn elements(rest: &mut &[u8], most: usize) -> Option<Result<(), String>> {
    let head = byte(rest)?;
    let mut left = if head >> 4 == 15 { varint(rest)? } else { u64::from(head >> 4) };
    // Parts that are still to come, group by group; the columns are the parts of the first.
    let mut open: Vec<u64> = vec![];
    while left > 0 {
        left -= 1;
        let parts = element(rest)?;
        if open.is_empty() && parts > most as u64 {
            return Some(Err(format!("{parts} columns, expected at most {most}")));
        }
        while open.last() == Some(&0) {
            open.pop();
        }
        if let Some(parts) = open.last_mut() {
            *parts -= 1;
        }
        if parts > 0 {
            open.push(parts);
        }
        if open.len() > DEEPEST_COLUMN {
            return Some(Err(format!("its columns nest deeper than {DEEPEST_COLUMN}")));
        }
    }
    Some(Ok(()))
}

/// How many parts an element of a schema has.
fn element(rest: &mut &[u8]) -> Option<u64> {
    let (mut number, mut parts) = (0, 0);
    loop {
        match field(rest, &mut number)? {
            0 => return Some(parts),
            5 if number == 5 => parts = count(rest)?,
            kind => value(rest, kind, 2, &mut Header::default())?,
        }
    }
}

/// Whether packed bytes unpack to no more than claimed.
fn holds(packed: &[u8], packing: Packing, said: u64) -> bool {
    let unpacked: Box<dyn Read + '_> = match packing {
        Packing::Bounded => return true,
        Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(packed)),
        Packing::Brotli => Box::new(brotli::Decompressor::new(packed, 4096)),
    };
    // The crate reports what cannot be unpacked; it stops at the same place.
    let taken = std::io::copy(&mut unpacked.take(said + 1), &mut std::io::sink());
    taken.map_or(true, |taken| taken <= said)
}

/// Refuses columns whose pages claim too much, with a reason of one line.
pub(super) fn check(
    file: &[u8],
    columns: impl Iterator<Item = (Range<u64>, Packing)>,
) -> Result<(), &'static str> {
    let length = file.len() as u64;
    let mut values: u64 = 0;
    for (column, packing) in columns {
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
            let (page, behind) = rest.split_at_checked(packed).ok_or("a page beyond its column")?;
            let levels = usize::try_from(header.levels).unwrap_or(usize::MAX).min(packed);
            if !holds(&page[levels..], packing, unpacked) {
                return Err("a page unpacks to more than it says");
            }
            rest = behind;
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

/// The kind of a structure's next field, 0 at the end. A field's number is stored as the difference to the last one's.
fn field(rest: &mut &[u8], number: &mut u64) -> Option<u8> {
    let next = byte(rest)?;
    *number = match next >> 4 {
        0 if next == 0 => return Some(0),
        0 => count(rest)?,
        delta => number.checked_add(delta.into())?,
    };
    // A kind of 0 with a number is invalid.
    Some(next & 15).filter(|&kind| kind != 0)
}

/// Reads a structure; at the top notes the sizes, one below it the number of values.
fn structure(rest: &mut &[u8], depth: u32, header: &mut Header) -> Option<()> {
    let mut number = 0;
    loop {
        let kind = field(rest, &mut number)?;
        match (depth, number, kind) {
            (_, _, 0) => return Some(()),
            // uncompressed_page_size and compressed_page_size; a second one is refused.
            (0, 2, 5) if header.unpacked.is_none() => header.unpacked = Some(count(rest)?),
            (0, 3, 5) if header.packed.is_none() => header.packed = Some(count(rest)?),
            (0, 2 | 3, _) => return None,
            // num_values comes first in the headers of all kinds of pages.
            (1, 1, 5) => header.values = header.values.checked_add(count(rest)?)?,
            // The levels of data pages of version 2, which are not packed.
            (1, 5 | 6, 5) => header.levels = header.levels.checked_add(count(rest)?)?,
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
        // Page headers have no lists and maps.
        _ => None,
    }
}
