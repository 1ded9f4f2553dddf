//! Where the program finds libtorch when it starts, and which commit it was built from.
//!
//! The run path is the real folder of `libtorch_cpu.so`, links resolved: the library finds its own
//! neighbours relative to where it lies. Fetches nothing; `make build` does that beforehand.

use std::path::{Path, PathBuf};
use std::process::{Command, exit};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rerun-if-env-changed=AGRPO_COMMIT");
    println!("cargo::rustc-env=AGRPO_COMMIT={}", commit());
    match libtorch() {
        Ok(folder) => println!("cargo::rustc-link-arg=-Wl,-rpath,{}", folder.display()),
        Err(message) => {
            println!("cargo::error={message}");
            exit(1);
        }
    }
}

/// The real folder of libtorch_cpu.so.
fn libtorch() -> Result<PathBuf, String> {
    const FETCH: &str = "run `make build`, which fetches libtorch 2.11.0, or set LIBTORCH to one";
    let root = variable("LIBTORCH").ok_or_else(|| format!("LIBTORCH is not set: {FETCH}"))?;
    let library = Path::new(&root).join("lib/libtorch_cpu.so");
    let real = library
        .canonicalize()
        .map_err(|error| format!("LIBTORCH={root}: no {}: {error}; {FETCH}", library.display()))?;
    Ok(real.parent().map(Path::to_path_buf).unwrap_or_default())
}

/// The commit, or "unknown" outside a checkout. A commit made later leads to one new build.
fn commit() -> String {
    if let Some(given) = variable("AGRPO_COMMIT") {
        return given;
    }
    // A path that is not there would make cargo run this script every time.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned())
}

/// One line of git's answer; `None` without git or outside a checkout.
fn git(arguments: &[&str]) -> Option<String> {
    let done = Command::new("git").args(arguments).output().ok()?;
    let line = String::from_utf8(done.stdout).ok()?.trim().to_owned();
    (done.status.success() && !line.is_empty()).then_some(line)
}

#[expect(clippy::disallowed_methods, reason = "a build script is configured by its environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
