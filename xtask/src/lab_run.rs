//! `cargo xtask lab run`: one scenario.

use std::path::{Path, PathBuf};

use anyhow::Result;
use lab::{Options, Scenario};

use crate::{setup, static_binary};

/// Runs a scenario with the given program, or with xenoscope as it is now.
pub(crate) fn run(scenario: &Path, out: PathBuf, program: Option<PathBuf>, keep: bool) -> Result<()> {
    // Before minutes are spent on building.
    let scenario = Scenario::load(scenario)?;
    setup::ensure()?;
    let program = program.map_or_else(static_binary::build, Ok)?;
    let options = Options { out, programs: vec![program], keep };
    let outcome = lab::run(&scenario, &options)?;
    eprintln!("all that came of it is in {}", options.out.display());
    outcome.check()
}
