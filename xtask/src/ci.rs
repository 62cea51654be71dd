//! `cargo xtask ci`: everything that must hold before a change goes in.

use anyhow::Result;

use crate::{process, setup, test};

/// Excluded from the workspace, since it is built for a machine without an operating system.
const PAYLOAD: &str = "hv-shim/xen-payload/Cargo.toml";
/// Excluded, too, since fuzzing itself needs a nightly compiler; what it does need not.
const FUZZ: &str = "tests/fuzz/Cargo.toml";

/// Checks form, lints, dependencies and tests.
pub(crate) fn run() -> Result<()> {
    setup::ensure()?;
    let cargo = |arguments: &[&str]| process::run(&mut process::cargo(arguments));
    cargo(&["fmt", "--all", "--check"])?;
    for apart in [PAYLOAD, FUZZ] {
        cargo(&["fmt", "--manifest-path", apart, "--check"])?;
    }
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    let target = ["--target", "x86_64-unknown-none"];
    cargo(&[&["clippy", "--manifest-path", PAYLOAD], &target[..], &["--", "-D", "warnings"]].concat())?;
    let without_fuzzer = ["--no-default-features", "--lib", "--examples"];
    cargo(&[&["clippy", "--manifest-path", FUZZ], &without_fuzzer[..], &["--", "-D", "warnings"]].concat())?;
    if process::cargo(&["deny", "--version"]).output().is_ok_and(|output| !output.status.success()) {
        cargo(&["install", "--locked", "cargo-deny"])?;
    }
    cargo(&["deny", "check", "bans", "licenses", "sources"])?;
    // The database of advisories is a download, which some machines can't make.
    match cargo(&["deny", "fetch", "db"]) {
        Ok(()) => cargo(&["deny", "check", "advisories"])?,
        Err(error) => eprintln!("advisories are not checked: {error:#}"),
    }
    test::run(false)
}
