//! The `xenoscope` program linked statically, so that it runs in any dom0.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::process;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds it, with the programs that tests of the lab use beside it, and tells where it is.
pub(crate) fn build() -> Result<PathBuf> {
    // A folder of its own: other flags would have cargo build everything anew each time.
    let folder = process::target_folder().join("static");
    for what in
        [&["--package", "xenoscope"][..], &["--package", "xenoscope-hv-shim", "--example", "stretches"]]
    {
        build_one(what, &folder)?;
    }
    Ok(folder.join(TARGET).join("release/xenoscope"))
}

fn build_one(what: &[&str], folder: &Path) -> Result<()> {
    let mut cargo = process::cargo(&["build", "--release", "--target", TARGET]);
    cargo.args(what).arg("--target-dir").arg(folder);
    // For this target only: the flag must not reach the payload, which a build script has cargo build for another one.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static");
    process::run(&mut cargo)
}
