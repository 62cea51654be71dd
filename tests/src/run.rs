//! One run of a scenario, from packages to results.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::consoles;
use crate::images;
use crate::machine::Machine;
use crate::progress::say;
use crate::scenario::Scenario;
use crate::steps::{self, Outcome};

/// What a run is told besides its scenario.
#[derive(Debug, Default)]
pub struct Options {
    /// The run's folder; what an earlier run left there is replaced.
    pub out: PathBuf,
    /// Programs put into the control domain's `/usr/bin`, linked statically.
    pub programs: Vec<PathBuf>,
    /// Keep the images that the machine booted from.
    pub keep: bool,
}

/// The program under test, linked statically, as `cargo xtask test` hands it to the end-to-end tests.
pub fn xenoscope() -> Result<PathBuf> {
    let path =
        env::var_os("XENOSCOPE_BINARY").context("XENOSCOPE_BINARY is not set: run `cargo xtask test`")?;
    Ok(PathBuf::from(path))
}

/// The program that shows what is captured with samples (`hv-shim/examples/stretches.rs`), built beside that one.
pub fn stretches() -> Result<PathBuf> {
    Ok(xenoscope()?.with_file_name("examples").join("stretches"))
}

/// What the lab itself writes into a run's folder.
const OWN: [&str; 6] = ["packages.json", "steps.json", "steps", "console", steps::CPUS, COLLECTED];

/// Where the control domain copies the files to be brought back.
const COLLECTED: &str = "collected";

/// Runs a scenario. An error means that it could not be run to its end; what came of its steps is in the [`Outcome`].
pub fn run(scenario: &Scenario, options: &Options) -> Result<Outcome> {
    let out = prepare(&options.out)?;
    // Sockets have short names only, so that their folder cannot be in the run's.
    let folder = tempfile::Builder::new().prefix("xenoscope-lab-").tempdir()?;
    let images = {
        let cache = Cache::open()?;
        images::build(scenario, &options.programs, &cache, folder.path())?
    };
    let packages = [images.packages.as_slice(), &images.emulator.packages].concat();
    fs::write(out.join("packages.json"), serde_json::to_vec_pretty(&packages)?)?;

    say(format_args!(
        "booting {} of {} with {} guests",
        scenario.hypervisor.kind.name(),
        scenario.hypervisor.release.name(),
        scenario.guests.len()
    ));
    let mut machine = Machine::boot(scenario, &images, folder.path(), &out)?;
    let mut outcome = Outcome::default();
    let result = drive(&mut machine, scenario, &mut outcome, &out);
    machine.end();
    // Whatever went wrong, what was gathered is put in its place.
    let gathered = consoles::separate(&out.join("console"), scenario.hypervisor.kind)
        .and_then(|()| unpack_collected(&out));
    if options.keep {
        say(format_args!("the machine's images are kept in {}", folder.keep().display()));
    }
    result.with_context(|| format!("the run has ended early; what it left is in {}", out.display()))?;
    gathered?;
    Ok(outcome)
}

fn drive(machine: &mut Machine, scenario: &Scenario, outcome: &mut Outcome, out: &Path) -> Result<()> {
    let start = Instant::now();
    steps::await_boot(machine, scenario.hypervisor.kind)?;
    outcome.boot_s = start.elapsed().as_secs_f64();
    say(format_args!("the host is ready for its first step after {:.1} s", outcome.boot_s));
    let result = steps::run(machine, scenario, outcome, out);
    // A step that was stopped is no reason to lose files; after a crash there is nobody to copy them.
    if machine.is_lost() {
        return result;
    }
    result.and(steps::collect(machine, out))
}

/// Empties the run's folder of what an earlier run has left.
fn prepare(out: &Path) -> Result<PathBuf> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let out = out.canonicalize()?;
    for name in OWN {
        let path = out.join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if path.exists() {
            removed.with_context(|| format!("cannot replace {}", path.display()))?;
        }
    }
    for name in ["steps", "console", COLLECTED] {
        fs::create_dir(out.join(name))?;
    }
    Ok(out)
}

/// Moves the files brought back up into the run's folder.
fn unpack_collected(out: &Path) -> Result<()> {
    let collected = out.join(COLLECTED);
    for entry in fs::read_dir(&collected)? {
        let entry = entry?;
        let place = out.join(entry.file_name());
        if OWN.iter().any(|own| entry.file_name() == *own) {
            bail!(
                "{} is a name that the lab needs itself: the file is left in {}",
                place.display(),
                collected.display()
            );
        }
        if place.is_dir() {
            fs::remove_dir_all(&place)?;
        }
        fs::rename(entry.path(), &place)?;
    }
    fs::remove_dir(&collected)?;
    Ok(())
}
