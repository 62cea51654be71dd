//! Hosts that were booted for tests: a scenario is run once, and its results are looked at by several tests. The program
//! under test is put into each.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use anyhow::Context;

use super::{complaints, observed::Observed, report::Report};
use crate::{Options, Outcome, Scenario, StepOutcome};

/// How often a run is repeated in which the emulator brings a guest or a KVM host down.
const REPETITIONS: usize = 3;

/// A host whose scenario has been run.
pub struct Host {
    out: PathBuf,
    steps: Vec<StepOutcome>,
    /// Non-maskable interrupts that were injected.
    pub injected: u64,
}

/// The place of a host that is booted by whoever needs it first. A run that failed is not repeated.
pub type Booted = OnceLock<Result<Host, String>>;

/// Runs the scenario of a name, unless that has been done, and gives its results.
pub fn host(booted: &'static Booted, scenario: &str) -> &'static Host {
    self::booted(booted, || Host::run(scenario, &self::scenario(scenario)?))
}

/// Reads the scenario of a name.
pub fn scenario(name: &str) -> anyhow::Result<Scenario> {
    Scenario::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scenarios/{name}.toml")))
}

/// Runs what boots a host, unless that has been done, and gives the results.
pub fn booted(booted: &'static Booted, run: impl FnOnce() -> anyhow::Result<Host>) -> &'static Host {
    let result = booted.get_or_init(|| run().map_err(|error| format!("{error:#}")));
    result.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

/// Where runs leave what they find: cargo's folder for that, beside the one of the profile that a test was built in.
fn results() -> PathBuf {
    let program = env::current_exe().expect("a test has a program");
    program.ancestors().nth(3).expect("target/PROFILE/deps/PROGRAM").join("tmp")
}

/// Runs a scenario, and again, three times at most, as long as something is `seen` of the emulator's doing.
pub fn run_again(
    name: &str,
    scenario: &Scenario,
    options: &Options,
    seen: impl Fn(&anyhow::Result<Outcome>) -> Option<String>,
) -> anyhow::Result<Outcome> {
    let mut outcome = crate::run(scenario, options);
    for _ in 0..REPETITIONS {
        let Some(mark) = seen(&outcome) else { break };
        println!("{name}: once more, for the emulator brought a kernel down: {mark}");
        outcome = crate::run(scenario, options);
    }
    outcome
}

impl Host {
    /// Runs a scenario with the program under test. However the steps ended: a kernel that complains, dom0's or a
    /// guest's, fails the run.
    pub fn run(name: &str, scenario: &Scenario) -> anyhow::Result<Self> {
        Self::run_with(name, scenario, vec![crate::xenoscope()?])
    }

    /// The same with other programs.
    pub fn run_with(name: &str, scenario: &Scenario, programs: Vec<PathBuf>) -> anyhow::Result<Self> {
        let out = results().join(name);
        let console = out.join("console");
        let options = Options { out: out.clone(), programs, ..Options::default() };
        let outcome = run_again(name, scenario, &options, |outcome| {
            let ended = || complaints::of_a_host(outcome.as_ref().err()?, &console);
            complaints::of_the_emulator(&console, scenario).or_else(ended)
        });
        // First: a guest that has crashed is often why a run ends early.
        if console.exists() {
            complaints::check_kernels(&console)?;
        }
        let outcome = outcome?;
        Ok(Self { out, steps: outcome.steps, injected: outcome.injected })
    }

    /// What came of a step.
    pub fn step(&self, name: &str) -> Step {
        let step = self.outcome(name);
        Step {
            name: name.to_owned(),
            exit: step.exit,
            stdout: self.text(&step.stdout),
            stderr: self.text(&step.stderr),
        }
    }

    /// What the lab says of a step.
    pub fn outcome(&self, name: &str) -> &StepOutcome {
        let step = self.steps.iter().find(|step| step.name == name);
        step.unwrap_or_else(|| panic!("step {name} was not begun"))
    }

    /// How many instructions Xen executed in a step, which must have ended well.
    pub fn executed_in_xen(&self, step: &str) -> u64 {
        self.step(step).ended(0);
        self.outcome(step).executed.iter().map(|cpu| cpu.hypervisor).sum()
    }

    /// A file or folder that was brought back, or is of the lab's own.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.out.join(path)
    }

    /// The same, read.
    pub fn text(&self, path: impl AsRef<Path>) -> String {
        let path = self.path(path);
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What a guest's console says behind some words.
    pub fn told(&self, guest: &str, words: &str) -> String {
        let console = self.text(format!("console/{guest}.log"));
        let line = console.lines().find_map(|line| line.trim().strip_prefix(words)).map(str::trim);
        line.unwrap_or_else(|| panic!("{guest} does not tell of {words}")).to_owned()
    }

    /// A recording that was brought back, every sample of it.
    pub fn observed(&self, file: &str) -> Observed {
        Observed::read(&self.path(file))
    }

    /// What the program itself says of a recording. It runs here: reports need nothing of the host.
    pub fn report(&self, file: &str) -> Report {
        let path = self.path(file);
        let output = xenoscope(&["report", "--json", "-i", path.to_str().expect("paths here are text")]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Report::parse(&output.stdout)
    }
}

/// Runs the program under test on this machine.
pub fn xenoscope(arguments: &[&str]) -> Output {
    let output = Command::new(crate::xenoscope().unwrap()).args(arguments).output();
    output.context("the program under test can't be run").unwrap()
}

/// What came of a step.
#[derive(Debug)]
pub struct Step {
    name: String,
    /// Its exit status; none when it was stopped.
    pub exit: Option<i32>,
    /// What it said.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Step {
    /// Fails unless it ended with this status; gives itself back.
    pub fn ended(self, status: i32) -> Self {
        let Self { name, exit, stdout, stderr } = &self;
        assert_eq!(*exit, Some(status), "step {name} said\n{stdout}\nand, as errors,\n{stderr}");
        self
    }

    /// Fails unless Xen had no livepatch any more at the end of the step, which lists them.
    pub fn left_nothing_loaded(self) -> Self {
        let Self { name, stdout, .. } = &self;
        assert!(stdout.contains("Nothing to list"), "step {name} leaves something loaded: {stdout}");
        self
    }
}
