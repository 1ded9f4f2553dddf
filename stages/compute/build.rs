//! Compiles the half of `kernels/custom.rs` that has to be C++. Fetches nothing.

use std::{env, path::PathBuf};

#[expect(clippy::disallowed_methods, reason = "a build script is configured by its environment")]
fn main() -> Result<(), &'static str> {
    println!("cargo::rerun-if-changed=kernels/autograd.cpp");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let libtorch = env::var_os("LIBTORCH")
        .ok_or("LIBTORCH is not set: run `make build`, which fetches libtorch 2.11.0")?;
    let include = PathBuf::from(libtorch).join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .flag("-isystem")
        .flag(include.as_os_str())
        .flag("-isystem")
        .flag(include.join("torch/csrc/api/include").as_os_str())
        .file("kernels/autograd.cpp")
        .compile("agrpo_autograd");
    Ok(())
}
