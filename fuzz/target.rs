//! A target of libFuzzer: any bytes to the decoder whose name the target bears. Seeds come from
//! `cargo run --bin seeds`.

#![no_main]

use agrpo_decoders::Decoder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let decoder = Decoder::named(env!("CARGO_BIN_NAME")).expect("a target is a decoder's name");
    (decoder.accepts)(bytes);
});
