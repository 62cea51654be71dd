//! `cargo xtask demo`: a host with three guests under known loads, profiled.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{lab_run, process};

/// How much of the report is shown at once.
const REPORT_LINES: usize = 30;

/// Runs the demonstration's scenario and shows what came of it.
pub(crate) fn run(out: Option<PathBuf>) -> Result<()> {
    let out = out.unwrap_or_else(|| process::target_folder().join("demo"));
    lab_run::run(&process::workspace().join("tests/scenarios/demo.toml"), out.clone(), None, false)?;
    let out = out.canonicalize()?;
    let report = out.join("report.txt");
    let text = fs::read_to_string(&report).with_context(|| format!("cannot read {}", report.display()))?;
    text.lines().take(REPORT_LINES).for_each(|line| println!("{line}"));
    println!();
    println!("the whole report  {}", report.display());
    println!("for programs      {}", out.join("report.json").display());
    println!("the recording     {}", out.join("demo.xsr").display());
    println!("all domains       {}", out.join("machine.svg").display());
    for picture in pictures(&out)? {
        println!("one domain        {}", picture.display());
    }
    Ok(())
}

/// The pictures of one domain each.
fn pictures(out: &Path) -> Result<Vec<PathBuf>> {
    let mut pictures = Vec::new();
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "svg") && !path.ends_with("machine.svg") {
            pictures.push(path);
        }
    }
    pictures.sort();
    Ok(pictures)
}
