//! Drives a machine through a scenario's steps and writes down what came of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::control::{Order, Report};
use crate::executed::Executed;
use crate::machine::{Machine, Silence};
use crate::nmi::Injector;
use crate::progress::say;
use crate::scenario::{HypervisorKind, OnFailure, Scenario, Step};

/// How long a host with its guests may take to come up.
const BOOT_LIMIT: Duration = Duration::from_secs(480);

/// How long a step that was stopped may take to end, and files to be copied.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the CPUs were at when a step took longer than its limit.
pub(crate) const CPUS: &str = "cpus.txt";

/// What a run's `steps.json` says.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// From the start of QEMU until the first step could begin.
    pub boot_s: f64,
    /// The steps that were begun.
    pub steps: Vec<StepOutcome>,
    /// How many non-maskable interrupts were injected.
    pub injected: u64,
}

/// What came of a step.
#[derive(Debug, Serialize)]
pub struct StepOutcome {
    /// The step's name.
    pub name: String,
    /// Its exit status; none when it was stopped.
    pub exit: Option<i32>,
    /// Whether that is the one expected.
    pub ok: bool,
    /// How long it took.
    pub duration_s: f64,
    /// What each physical CPU executed meanwhile, where that is counted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub executed: Vec<Executed>,
    /// Its standard output, relative to the run's folder.
    pub stdout: PathBuf,
    /// Its standard error, relative to the run's folder.
    pub stderr: PathBuf,
}

impl Outcome {
    /// Fails with the first step that did not end as expected.
    pub fn check(&self) -> Result<()> {
        match self.steps.iter().find(|step| !step.ok) {
            Some(StepOutcome { name, exit, stderr, .. }) => {
                let exit = exit.map_or("no status".to_owned(), |status| format!("status {status}"));
                bail!("step {name:?} ended with {exit}; what it said is in {}", stderr.display())
            }
            None => Ok(()),
        }
    }
}

/// The name of the files of a step, which keeps them in order.
pub(crate) fn step_file(index: usize, step: &Step) -> String {
    format!("{index:02}-{}", step.name.get_ref())
}

/// Waits until the control domain and the guests are up.
pub(crate) fn await_boot(machine: &mut Machine, hypervisor: HypervisorKind) -> Result<()> {
    let control_domain = hypervisor.control_domain();
    let deadline = Instant::now() + BOOT_LIMIT;
    loop {
        match machine.report(deadline) {
            Ok(Report::Up) => say(format_args!("{control_domain} is up")),
            Ok(Report::Guest { name }) => say(format_args!("guest {name} is up")),
            Ok(Report::Ready) => return Ok(()),
            Ok(Report::Failed { what }) => {
                bail!("cannot start {what}: console/{control_domain}.log tells why")
            }
            Ok(_) => {}
            Err(Silence::Late) => bail!("not all guests are up after {} s", BOOT_LIMIT.as_secs()),
            Err(Silence::Over(error)) => return Err(error),
        }
    }
}

/// Runs the steps, writing down after each one what is known; `out` is the run's folder.
pub(crate) fn run(
    machine: &mut Machine,
    scenario: &Scenario,
    outcome: &mut Outcome,
    out: &Path,
) -> Result<()> {
    for (index, step) in scenario.steps.iter().enumerate() {
        let result = run_step(machine, index, step, scenario.nmi_hz(step), outcome, out);
        write_down(outcome, out)?;
        if !result? && step.on_failure == OnFailure::Stop {
            say(format_args!("the steps that follow are left out"));
            break;
        }
    }
    Ok(())
}

/// Has the control domain copy the files to be brought back into the run's folder.
pub(crate) fn collect(machine: &mut Machine, out: &Path) -> Result<()> {
    machine.order(Order::Collect)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match machine.report(deadline) {
            Ok(Report::Collected) => return Ok(()),
            Ok(Report::Uncollected { path }) => say(format_args!("not there to be brought back: {path}")),
            Ok(_) => {}
            Err(Silence::Late) => {
                bail!("the machine does not finish copying files; {} has what it copied", out.display())
            }
            Err(Silence::Over(error)) => return Err(error),
        }
    }
}

/// Whether the step ended as expected; fails when the run must end.
fn run_step(
    machine: &mut Machine,
    index: usize,
    step: &Step,
    nmi_hz: Option<f64>,
    outcome: &mut Outcome,
    out: &Path,
) -> Result<bool> {
    let (name, file) = (step.name.get_ref(), step_file(index, step));
    say(format_args!("step {name}"));
    let injector = match nmi_hz {
        Some(hz) => Some(Injector::start(machine.qmp()?, hz)),
        None => None,
    };
    let start = Instant::now();
    let before = machine.executed()?;
    machine.order(Order::Run { step: &file })?;
    let ended = await_end(machine, &file, start + step.timeout());
    // QEMU listens to one at a time, and may be asked what its CPUs are at.
    let injected = injector.map(Injector::stop);
    let executed = machine.executed()?.into_iter().zip(before).map(|(now, before)| now.since(before));
    let seconds = start.elapsed().as_secs_f64();
    let exit = ended.as_ref().ok().copied();
    let ok = exit == Some(step.expect_exit);
    outcome.steps.push(StepOutcome {
        name: name.clone(),
        exit,
        ok,
        duration_s: seconds,
        executed: executed.collect(),
        stdout: PathBuf::from(format!("steps/{file}.out")),
        stderr: PathBuf::from(format!("steps/{file}.err")),
    });
    match ended {
        Ok(status) if ok => say(format_args!("step {name}: done in {seconds:.1} s (status {status})")),
        Ok(status) => {
            say(format_args!("step {name}: failed with status {status} after {seconds:.1} s"));
            let words = fs::read_to_string(out.join(format!("steps/{file}.err"))).unwrap_or_default();
            let lines: Vec<&str> = words.lines().collect();
            lines.iter().skip(lines.len().saturating_sub(5)).for_each(|line| say(format_args!("  | {line}")));
            if let Some(stuck) = machine.stuck_cpu()? {
                bail!("in step {name:?}, {stuck}");
            }
        }
        Err(Silence::Late) => {
            fs::write(out.join(CPUS), machine.cpus()?)?;
            let stuck = machine.stuck_cpu()?.map_or(String::new(), |stuck| format!(", for {stuck}"));
            // So that what it has written so far can still be copied.
            machine.order(Order::Stop)?;
            let _ = await_end(machine, &file, Instant::now() + PATIENCE);
            bail!("step {name:?} was stopped: it takes longer than its limit of {} s{stuck}", step.timeout_s);
        }
        Err(Silence::Over(error)) => return Err(error.context(format!("in step {name:?}"))),
    }
    if let Some(injected) = injected.transpose()? {
        outcome.injected += injected.count;
        let seconds = injected.duration.as_secs_f64();
        say(format_args!("{} interrupts injected in {seconds:.1} s", injected.count));
    }
    Ok(ok)
}

fn await_end(machine: &mut Machine, file: &str, deadline: Instant) -> Result<i32, Silence> {
    loop {
        if let Report::Done { step, status } = machine.report(deadline)?
            && step == file
        {
            return Ok(status);
        }
    }
}

fn write_down(outcome: &Outcome, out: &Path) -> Result<()> {
    let path = out.join("steps.json");
    fs::write(&path, serde_json::to_vec_pretty(outcome)?)
        .with_context(|| format!("cannot write {}", path.display()))
}
