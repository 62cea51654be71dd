//! `cargo xtask test`: all tests; those that take long only when they are asked for.

use anyhow::Result;

use crate::{failures, process, setup, static_binary};

/// What the names of tests begin with whose hosts take many minutes.
const LONG: &str = "long_";

/// Runs the tests of every crate, and then those that boot real hypervisors.
pub(crate) fn run(long: bool) -> Result<()> {
    setup::ensure()?;
    process::run(&mut process::cargo(&["test", "--workspace"]))?;
    model_check()?;
    let xenoscope = static_binary::build()?;
    // One at a time: each boots a machine that wants the processors for itself.
    let arguments = ["test", "--package", "xenoscope-tests", "--no-fail-fast", "--test", "*"];
    let mut end_to_end = process::cargo(&arguments);
    end_to_end.args(["--", "--ignored", "--test-threads=1", "--nocapture"]);
    if !long {
        end_to_end.args(["--skip", LONG]);
    }
    // What fails says where; the way there is the same for all.
    failures::run(end_to_end.env("XENOSCOPE_BINARY", xenoscope).env("RUST_BACKTRACE", "0"))
}

/// Runs the ring's protocol through every interleaving. All of it is built anew for that, and so apart from the rest.
fn model_check() -> Result<()> {
    let arguments = ["test", "--package", "xenoscope-abi", "--test", "loom"];
    let mut model = process::cargo(&arguments);
    process::run(
        model.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", process::target_folder().join("loom")),
    )
}
