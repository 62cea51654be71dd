//! `cargo xtask test`: all tests.

use anyhow::Result;

use crate::{process, setup, static_binary};

/// Runs the tests of every crate, and then those that boot real hypervisors.
pub(crate) fn run() -> Result<()> {
    setup::ensure()?;
    process::run(&mut process::cargo(&["test", "--workspace"]))?;
    let xenoscope = static_binary::build()?;
    // One at a time: each boots a machine that wants the processors for itself.
    let arguments = ["test", "--package", "xenoscope-tests", "--no-fail-fast", "--test", "*"];
    let mut end_to_end = process::cargo(&arguments);
    end_to_end.args(["--", "--ignored", "--test-threads=1", "--nocapture"]);
    process::run(end_to_end.env("XENOSCOPE_BINARY", xenoscope))
}
