//! Writes the sound examples of every decoder to `corpus/NAME/`, where cargo-fuzz looks for them.

use std::fs;

use agrpo_decoders::DECODERS;

fn main() -> std::io::Result<()> {
    for decoder in &DECODERS {
        let folder = format!("{}/corpus/{}", env!("CARGO_MANIFEST_DIR"), decoder.name);
        fs::create_dir_all(&folder)?;
        for (n, seed) in decoder.seeds().iter().enumerate() {
            fs::write(format!("{folder}/example-{n}"), seed)?;
        }
    }
    Ok(())
}
