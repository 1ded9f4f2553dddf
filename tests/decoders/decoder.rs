//! A decoder of untrusted bytes, the list of all of them, and what each may allocate. Opens no file.

use std::sync::OnceLock;

use crate::edits::Form;
use crate::{fleet, spec, tensors, text};

/// A reader of one kind of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    /// Its name in tests and targets.
    pub name: &'static str,
    /// Whether the bytes were accepted.
    pub accepts: fn(&[u8]) -> bool,
    /// How its input is built, so that edits reach past the first check.
    pub form: Form,
    /// Bytes that may be allocated at once for each byte of input.
    pub ratio: u64,
    /// Bytes that may be allocated at once for any input.
    pub floor: u64,
    /// Runs one input in so many: the decoder takes milliseconds.
    pub slowness: u32,
    make_seeds: fn() -> Vec<Vec<u8>>,
}

/// JSON that becomes a tree: an object of one entry takes 7 bytes and a node of 11 places.
const TREE: u64 = 128;
/// TOML, whose reader keeps every space; rows of one letter. Their files are bounded before they are read.
const TABLES: u64 = 512;
/// JSON, or a header, that becomes values of known types.
const TYPED: u64 = 48;
/// Errors, tables of a reader, a first hash map.
const SMALL: u64 = 64 << 10;
/// Regular expressions, which have limits of their own; codecs of packed pages.
const PATTERNS: u64 = 16 << 20;

/// What a template may handle, twice: `WORK` of the templates' own bounds.
const RENDERING: u64 = 128 << 20;

impl Decoder {
    const fn new(
        name: &'static str,
        form: Form,
        accepts: fn(&[u8]) -> bool,
        make_seeds: fn() -> Vec<Vec<u8>>,
    ) -> Self {
        Self { name, accepts, form, ratio: TYPED, floor: SMALL, slowness: 1, make_seeds }
    }

    const fn allowed(self, ratio: u64, floor: u64) -> Self {
        Self { ratio, floor, ..self }
    }

    const fn slow(self, slowness: u32) -> Self {
        Self { slowness, ..self }
    }

    /// Sound inputs; never empty.
    pub fn seeds(&self) -> &'static [Vec<u8>] {
        static SEEDS: [OnceLock<Vec<Vec<u8>>>; DECODERS.len()] =
            [const { OnceLock::new() }; DECODERS.len()];
        let index = DECODERS.iter().position(|other| other.name == self.name);
        SEEDS[index.expect("all decoders are in the list")].get_or_init(self.make_seeds)
    }

    /// The decoder of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        DECODERS.iter().find(|decoder| decoder.name == name)
    }

    /// Bytes that may be allocated at once for an input of this length.
    pub fn most(&self, length: usize) -> u64 {
        self.floor + self.ratio * length as u64
    }
}

/// All of them.
pub static DECODERS: [Decoder; 25] = [
    Decoder::new("run-file", Form::Text, spec::run_file, spec::run_files).allowed(TABLES, SMALL),
    Decoder::new("run-record", Form::Text, spec::run_record, spec::run_records),
    Decoder::new("spec", Form::Text, spec::spec, spec::specs),
    Decoder::new("manifest", Form::Text, spec::manifest, spec::manifests),
    Decoder::new("listing", Form::Text, spec::listing, spec::listings),
    Decoder::new("name", Form::Text, spec::name, spec::names),
    Decoder::new("rewards", Form::Bytes, tensors::rewards, tensors::rewards_seeds),
    Decoder::new("trajectories", Form::Tensors, tensors::trajectories, tensors::trajectory_seeds),
    Decoder::new("tensor-windows", Form::Tensors, tensors::windows, tensors::whole_seeds),
    Decoder::new("optimizer-state", Form::Tensors, tensors::optimizer, tensors::optimizer_seeds),
    Decoder::new("checkpoint-index", Form::Text, tensors::index, tensors::index_seeds),
    Decoder::new("config", Form::Text, tensors::config, tensors::config_seeds).allowed(TREE, SMALL),
    Decoder::new("adapter-config", Form::Text, tensors::adapter_config, tensors::adapter_configs)
        .allowed(TREE, PATTERNS),
    Decoder::new("adapter-tensors", Form::Tensors, tensors::adapter, tensors::adapter_seeds),
    Decoder::new("tokenizer", Form::Text, tensors::tokenizer, tensors::tokenizers)
        .allowed(2 * TABLES, PATTERNS),
    Decoder::new("rows-json", Form::Text, text::json_rows, text::json_row_seeds)
        .allowed(TREE, SMALL),
    Decoder::new("rows-csv", Form::Text, text::csv_rows, text::csv_row_seeds)
        .allowed(TABLES, SMALL),
    Decoder::new("rows-parquet", Form::Bytes, text::parquet_rows, text::parquet_seeds)
        .allowed(TABLES, PATTERNS),
    Decoder::new("template", Form::Text, text::template, text::templates)
        .allowed(TABLES, RENDERING)
        .slow(20),
    Decoder::new("truth", Form::Text, text::truth, text::truths).allowed(TREE, SMALL),
    Decoder::new("completion", Form::Text, text::completion, text::completions)
        .allowed(TREE, PATTERNS)
        .slow(50),
    Decoder::new("program-answer", Form::Text, text::answer, text::answers).allowed(TREE, SMALL),
    Decoder::new("hint", Form::Text, fleet::hint, fleet::hints),
    Decoder::new("failure", Form::Text, fleet::failure, fleet::failures),
    Decoder::new("index-entry", Form::Text, fleet::index_entry, fleet::index_entries),
];
