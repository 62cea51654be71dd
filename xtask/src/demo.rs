//! `cargo xtask demo`: a host with guests under known loads, profiled.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{lab_run, process};

/// How much of the report is shown at once.
const REPORT_LINES: usize = 30;

/// The hypervisors that there is a demonstration of.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Hypervisor {
    Xen,
    Kvm,
}

impl Hypervisor {
    fn scenario(self) -> &'static str {
        match self {
            Hypervisor::Xen => "tests/scenarios/demo.toml",
            Hypervisor::Kvm => "tests/scenarios/kvm_demo.toml",
        }
    }
}

/// Runs the demonstration's scenario and shows what came of it.
pub(crate) fn run(hypervisor: Hypervisor, out: Option<PathBuf>) -> Result<()> {
    let out = out.unwrap_or_else(|| process::target_folder().join("demo"));
    let begun = SystemTime::now();
    lab_run::run(&process::workspace().join(hypervisor.scenario()), out.clone(), None, false)?;
    let out = out.canonicalize()?;
    let report = out.join("report.txt");
    let text = fs::read_to_string(&report).with_context(|| format!("cannot read {}", report.display()))?;
    text.lines().take(REPORT_LINES).for_each(|line| println!("{line}"));
    println!();
    println!("the whole report  {}", report.display());
    println!("for programs      {}", out.join("report.json").display());
    println!("the recording     {}", out.join("demo.xsr").display());
    println!("all domains       {}", out.join("machine.svg").display());
    for picture in pictures(&out, begun)? {
        println!("one domain        {}", picture.display());
    }
    Ok(())
}

/// The pictures of one domain each; what an earlier run has left in the folder is not among them.
fn pictures(out: &Path, begun: SystemTime) -> Result<Vec<PathBuf>> {
    let mut pictures = Vec::new();
    for entry in fs::read_dir(out)? {
        let (path, new) =
            entry.and_then(|entry| Ok((entry.path(), entry.metadata()?.modified()? >= begun)))?;
        let picture = path.extension().is_some_and(|extension| extension == "svg");
        if new && picture && !path.ends_with("machine.svg") {
            pictures.push(path);
        }
    }
    pictures.sort();
    Ok(pictures)
}
