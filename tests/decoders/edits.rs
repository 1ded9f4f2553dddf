//! Damages bytes: takes sound bytes and a list of edits, and returns bytes that are nearly sound.
//!
//! An edit is four plain numbers, so that a property test can shrink a list of them and a seeded driver
//! can draw one; every value means something, and the same edits give the same bytes anywhere.

/// How an input is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON, TOML, CSV, words.
    Text,
    /// Anything.
    Bytes,
    /// A safetensors file: most edits go to the header, whose length is then written anew.
    Tensors,
}

/// One change: what, where, how much, which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The kind of change.
    pub kind: u8,
    /// Where, as a share of the length in 65,536ths.
    pub at: u16,
    /// How much; most changes take small parts of it.
    pub size: u16,
    /// Which of several.
    pub pick: u16,
}

/// Numbers at which types end.
const NUMBERS: [&str; 16] = [
    "0",
    "-1",
    "1",
    "255",
    "256",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "1e308",
    "1e999",
    "-9223372036854775809",
    "0.5",
];

/// What opens and closes something, in any of the formats.
const NESTS: [(&str, &str); 14] = [
    ("[", "]"),
    ("{\"a\":", "}"),
    ("(", ")"),
    ("{", "}"),
    ("[[", "]]"),
    ("\\frac{", "}{2}"),
    ("\\sqrt{", "}"),
    ("-", ""),
    ("\\boxed{", "}"),
    ("\"", "\""),
    ("a.", "b"),
    ("{a=", "}"),
    ("^{", "}"),
    ("\\left(", "\\right)"),
];

/// Words that have a meaning for some decoder.
const WORDS: [&str; 28] = [
    "null",
    "true",
    "nan",
    "inf",
    "{}",
    "[]",
    "\"\"",
    "\u{0}",
    "\u{feff}",
    "\n",
    "\r\n",
    "####",
    "\\boxed{",
    "</answer>",
    "<answer>",
    "from",
    "sha256",
    "[[",
    "'''",
    "\"\"\"",
    "\\u0000",
    "\\ud800",
    "😀",
    "é",
    "=",
    ",",
    "F64",
    "__metadata__",
];

/// How deep a nest goes at most.
const DEEPEST: usize = 20_000;
/// An input grows no larger than this.
const LONGEST: usize = 1 << 18;

/// A seeded stream of numbers (SplitMix64: Steele, Lea and Flood, 2014).
#[derive(Clone, Copy, Debug)]
pub struct Draw(u64);

impl Draw {
    /// The stream of the n-th input under a seed.
    pub fn new(seed: u64, n: u64) -> Self {
        let mut first = Self(seed ^ n.wrapping_mul(0xd6e8_feb8_6659_fd93));
        Self(first.number())
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One to six edits.
    pub fn edits(&mut self) -> Vec<Edit> {
        let count = 1 + self.number() % 6;
        (0..count).map(|_| Edit::from(self.number())).collect()
    }
}

impl From<u64> for Edit {
    fn from(number: u64) -> Self {
        let [kind, _, a, b, c, d, e, f] = number.to_le_bytes();
        let two = |low, high| u16::from_le_bytes([low, high]);
        Self { kind, at: two(a, b), size: two(c, d), pick: two(e, f) }
    }
}

/// A seed after edits. `seeds` is not empty.
pub fn edited(seeds: &[Vec<u8>], form: Form, first: usize, edits: &[Edit]) -> Vec<u8> {
    let mut bytes = seeds[first % seeds.len()].clone();
    for edit in edits {
        let refits = form == Form::Tensors && !edit.kind.is_multiple_of(8);
        match refits.then(|| header(&bytes)).flatten() {
            Some(end) => {
                let mut text = bytes[8..end].to_vec();
                edit.apply(&mut text, seeds, Form::Text);
                let length = (text.len() as u64).to_le_bytes();
                bytes = [&length[..], &text, &bytes[end..]].concat();
            }
            None => edit.apply(&mut bytes, seeds, form),
        }
        bytes.truncate(LONGEST);
    }
    bytes
}

/// Where a safetensors file's header ends, if its length is one.
fn header(bytes: &[u8]) -> Option<usize> {
    let length = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let end = usize::try_from(length).ok()?.checked_add(8)?;
    (end <= bytes.len()).then_some(end)
}

impl Edit {
    fn apply(self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], form: Form) {
        let pick = usize::from(self.pick);
        let at = bytes.len() * usize::from(self.at) / 65_536;
        // Mostly small parts, sometimes a large one.
        let size = match self.size % 4 {
            0 => 1 + usize::from(self.size >> 2) % 4,
            1 | 2 => 1 + usize::from(self.size >> 2) % 64,
            _ => 1 + usize::from(self.size >> 2) % 4096,
        };
        let end = bytes.len().min(at + size);
        let number = NUMBERS[pick % NUMBERS.len()];
        match (self.kind >> 3) % 16 {
            0 => flip(bytes, at, pick),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.truncate(at),
            3 => repeat(bytes, at..end, 1 + pick % 64),
            4 => splice(bytes, at, &seeds[pick % seeds.len()], self.size),
            5 | 6 => number_at(bytes, at, number),
            7 => nest(bytes, at..end, NESTS[pick % NESTS.len()], usize::from(self.size) * 3),
            8 => drop(bytes.splice(at..at, WORDS[pick % WORDS.len()].bytes())),
            9 => swap_words(bytes, at, pick, &seeds[pick % seeds.len()]),
            10 if form != Form::Text => length_at(bytes, at, pick),
            10 => number_at(bytes, at, "0"),
            11 => bytes[at..end].reverse(),
            12 => bytes[at..end].fill(u8::try_from(pick % 256).unwrap_or(0)),
            13 => line(bytes, at, pick),
            14 => nest(bytes, at..end, NESTS[pick % NESTS.len()], 1 + usize::from(self.size % 200)),
            _ => drop(bytes.splice(at..end, number.bytes())),
        }
    }
}

fn flip(bytes: &mut [u8], at: usize, pick: usize) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = match pick % 12 {
            0 => 0,
            1 => 0xff,
            2 => byte.wrapping_add(1),
            3 => byte.wrapping_sub(1),
            bit => *byte ^ (1 << (bit - 4)),
        };
    }
}

fn repeat(bytes: &mut Vec<u8>, part: std::ops::Range<usize>, times: usize) {
    let copy = bytes[part.clone()].repeat(times.min(1 + LONGEST / part.len().max(1)));
    drop(bytes.splice(part.end..part.end, copy));
}

fn splice(bytes: &mut Vec<u8>, at: usize, other: &[u8], size: u16) {
    let from = other.len() * usize::from(size) / 65_536;
    drop(bytes.splice(at.., other[from..].iter().copied()));
}

/// Replaces the next decimal number by another.
fn number_at(bytes: &mut Vec<u8>, at: usize, number: &str) {
    let Some(skip) = bytes[at..].iter().position(u8::is_ascii_digit) else { return };
    let start = at + skip;
    let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    drop(bytes.splice(start..start + length, number.bytes()));
}

/// Nests a part in many brackets, some of them unclosed.
fn nest(
    bytes: &mut Vec<u8>,
    part: std::ops::Range<usize>,
    (open, close): (&str, &str),
    depth: usize,
) {
    let depth = depth.min(DEEPEST);
    let closes = if depth.is_multiple_of(3) { 0 } else { depth };
    drop(bytes.splice(part.end..part.end, close.repeat(closes).into_bytes()));
    drop(bytes.splice(part.start..part.start, open.repeat(depth).into_bytes()));
}

/// Replaces a quoted word by a quoted word of a seed.
fn swap_words(bytes: &mut Vec<u8>, at: usize, pick: usize, other: &[u8]) {
    let quoted = |bytes: &[u8], from: usize| {
        let start = from + bytes.get(from..)?.iter().position(|&byte| byte == b'"')?;
        let length = bytes.get(start + 1..)?.iter().position(|&byte| byte == b'"')?;
        Some(start..start + length + 2)
    };
    let from = pick.wrapping_mul(31) % other.len().max(1);
    if let (Some(old), Some(new)) = (quoted(bytes, at), quoted(other, from)) {
        drop(bytes.splice(old, other[new].iter().copied()));
    }
}

/// Writes a length, little-endian, of four or eight bytes.
fn length_at(bytes: &mut [u8], at: usize, pick: usize) {
    let lengths = [
        0,
        1,
        u64::MAX,
        1 << 63,
        1 << 32,
        (1 << 31) - 1,
        1 << 40,
        u64::MAX - 7,
        100_000_000,
        1 << 20,
    ];
    let length = lengths[pick % lengths.len()].to_le_bytes();
    let width = if pick.is_multiple_of(2) { 8 } else { 4 };
    // A format's lengths mostly stand at its start.
    let at = if pick.is_multiple_of(3) { at & !7 } else { at };
    let end = bytes.len().min(at + width);
    bytes[at..end].copy_from_slice(&length[..end - at]);
}

/// Repeats a line, or leaves it out.
fn line(bytes: &mut Vec<u8>, at: usize, pick: usize) {
    let start = bytes[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |index| index + 1);
    let end =
        bytes[at..].iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |n| at + n + 1);
    if pick.is_multiple_of(2) {
        drop(bytes.drain(start..end));
    } else {
        let copy = bytes[start..end].to_vec();
        drop(bytes.splice(end..end, copy));
    }
}
