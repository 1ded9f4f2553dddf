//! What `agrpo bench-gpu` writes: one JSON document, in which every assumption stands beside the figures that rest on it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::load::Load;
use super::rows::Row;
use super::utilisation::FORMULA;

/// The layout of the document; a change of a name or a unit raises it.
const SCHEMA: u32 = 2;

/// All that was measured of a device.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// Version and commit of the program.
    pub agrpo: String,
    /// Version of the libtorch that computed.
    pub libtorch: String,
    /// The layout of this document.
    pub schema: u32,
    /// `cuda:0` or `cpu`.
    pub device: String,
    /// The GPU's name, as its driver gives it.
    pub gpu: Option<String>,
    /// The driver's version, or why it does not answer.
    pub driver: Option<String>,
    /// The GPU's memory in bytes.
    pub memory: Option<u64>,
    /// The numerics class that was computed in.
    pub numerics: String,
    /// The processor's name, and how many of its cores may be used.
    pub processor: String,
    /// Cores.
    pub cores: usize,
    /// Products of the device in bfloat16, FLOP/s, by its maker or as given.
    pub peak_flop_per_second: Option<f64>,
    /// What the figures rest on.
    pub assumptions: BTreeMap<&'static str, &'static str>,
    /// The model of the sections `model`, `reference` and `update`.
    pub load: Load,
    /// The model of the sections `ratio`.
    pub ratio_load: Load,
    /// Seconds that all sections together may take.
    pub budget_seconds: f64,
    /// Seconds that they took.
    pub seconds: f64,
    /// In the order in which they were measured.
    pub sections: Vec<Section>,
}

/// How a section ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Every row has its result.
    Done,
    /// A row, or the whole, failed; the other rows hold.
    Failed,
    /// It was not begun.
    Skipped,
}

/// What one process measured.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    /// Its name, unique together with its settings.
    pub name: String,
    /// How libtorch multiplied matrices, by its name and by its settings.
    pub products: String,
    /// The settings of the products.
    pub settings: String,
    /// How it ended.
    pub state: State,
    /// Seconds that it may take, and that it took.
    pub limit_seconds: f64,
    /// Seconds that it took, starting its process included.
    pub seconds: f64,
    /// Why it failed or was skipped as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What was measured.
    pub rows: Vec<Row>,
}

impl Document {
    /// The layout that this program writes.
    pub const SCHEMA: u32 = SCHEMA;

    /// What the figures rest on.
    pub fn assumptions() -> BTreeMap<&'static str, &'static str> {
        BTreeMap::from([
            ("flop", FORMULA),
            (
                "seconds",
                "of one time, the device waited for; the median of three after one to warm up, except of a rollout \
                 (one after one) and of what is done once (make, update)",
            ),
            (
                "memory",
                "bytes in use on the device by all processes, as its driver says; libtorch gives nothing back, so it \
                 is the most so far",
            ),
            (
                "weights",
                "arbitrary numbers of the model's sizes, made on the device; adapters of rank 64 on every module and \
                 the head, as published",
            ),
            (
                "parity",
                "relative = |found - expected| / |expected|, Euclidean norms, where expected is the processor's f32; \
                 in bf16 twice the processor's own distance is allowed",
            ),
            (
                "ratio",
                "largest |ratio - 1| of completions that the same process sampled from the same policy; 0 is the goal",
            ),
            (
                "reference",
                "the same shape in PyTorch, by infra/gpu_reference.py: bfloat16 weights and adapters, \
                 scaled_dot_product_attention, torch's default settings (not deterministic), the same lengths and \
                 numbers of queried positions; memory is that of torch's allocator at its peak",
            ),
        ])
    }

    /// What failed, as lines of section, row and reason.
    pub fn failures(&self) -> Vec<String> {
        let of_section = |section: &Section| {
            let name = section.title();
            let whole = section.error.iter().filter(|_| section.state == State::Failed);
            let whole = whole.map(|error| format!("{name}: {error}"));
            let rows = section.rows.iter().filter_map(|row| {
                let error = row.error.as_ref()?;
                Some(format!("{name}, {}: {error}", row.name))
            });
            whole.chain(rows).collect::<Vec<_>>()
        };
        self.sections.iter().flat_map(of_section).collect()
    }
}

impl Section {
    /// The name, with that of the products where several are measured.
    pub fn title(&self) -> String {
        match self.name.as_str() {
            "ratio" => format!("ratio ({})", self.products),
            name => name.to_owned(),
        }
    }
}
