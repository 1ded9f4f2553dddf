//! No decoder panics or hangs on sound bytes after random edits. What fails is shrunk to few edits.
//! `make fuzz` hands each of them a million inputs, and counts what it allocates.

use agrpo_decoders::{DECODERS, Decoder, Edit, edited};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Inputs to each decoder.
const INPUTS: u32 = 2000;

fn edits() -> impl Strategy<Value = (usize, Vec<Edit>)> {
    let edit = any::<(u8, u16, u16, u16)>();
    let edit = edit.prop_map(|(kind, at, size, pick)| Edit { kind, at, size, pick });
    (0..1000_usize, vec(edit, 0..6))
}

#[test]
fn examples_are_accepted() {
    for decoder in &DECODERS {
        for (n, seed) in decoder.seeds().iter().enumerate() {
            assert!((decoder.accepts)(seed), "{}: example {n}", decoder.name);
        }
    }
}

fn holds(decoder: &'static Decoder) {
    let config = Config {
        cases: INPUTS.div_ceil(decoder.slowness),
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let tried = runner.run(&edits(), |(first, edits)| {
        let bytes = edited(decoder.seeds(), decoder.form, first, &edits);
        (decoder.accepts)(&bytes);
        Ok(())
    });
    if let Err(error) = tried {
        panic!("{}: {error}", decoder.name);
    }
}

macro_rules! properties {
    ($($test:ident = $name:literal)*) => {
        $(#[test]
        fn $test() {
            holds(Decoder::named($name).unwrap());
        })*

        #[test]
        fn every_decoder_is_tested() {
            assert_eq!([$($name),*], DECODERS.map(|decoder| decoder.name));
        }
    };
}

properties! {
    run_files = "run-file"
    run_records = "run-record"
    specs = "spec"
    manifests = "manifest"
    listings = "listing"
    names = "name"
    rewards = "rewards"
    trajectories = "trajectories"
    tensor_windows = "tensor-windows"
    optimizer_states = "optimizer-state"
    checkpoint_indices = "checkpoint-index"
    configs = "config"
    adapter_configs = "adapter-config"
    adapter_tensors = "adapter-tensors"
    tokenizers = "tokenizer"
    json_rows = "rows-json"
    csv_rows = "rows-csv"
    parquet_rows = "rows-parquet"
    templates = "template"
    truths = "truth"
    completions = "completion"
    program_answers = "program-answer"
    hints = "hint"
    failures = "failure"
    index_entries = "index-entry"
}
