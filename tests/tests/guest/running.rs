//! Does looking into a guest work while it runs, and its processes come and go?

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use guest::{GuestError, Kernel, Limits, Look};
use lab::Registers;

use crate::machines;

/// The guest's processes come and go a little longer.
const LASTS: Duration = Duration::from_secs(3);
/// What runs all the time.
const STEADY: [&str; 3] = ["hot", "crowd", "openssl"];

/// What came of many looks.
#[derive(Debug, Default)]
pub(crate) struct Running {
    looks: u32,
    /// Looks that found all of those that run all the time, with what they have mapped.
    complete: u32,
    /// Tasks that were there in one look and not in another.
    passing: usize,
    failures: BTreeMap<String, u32>,
}

/// Looks for the kernel once, and then for tasks and mappings as often as there is time for.
pub(crate) fn look_again_and_again(memory: &Path, registers: &[Registers]) -> Running {
    let memory = machines::open(memory);
    let mut running = Running::default();
    let find = |sample: &Registers| Kernel::find(&Look::new(&memory, Limits::default()), sample.cr3).ok();
    let Some(kernel) = registers.iter().find_map(find) else { return running };
    let mut pids: BTreeMap<u32, u32> = BTreeMap::new();
    let start = Instant::now();
    while start.elapsed() < LASTS {
        running.looks += 1;
        match steady(&Look::new(&memory, Limits::default()), &kernel, &mut pids) {
            Ok(found) => running.complete += u32::from(found),
            Err(error) => *running.failures.entry(error.to_string()).or_default() += 1,
        }
    }
    running.passing = pids.values().filter(|&&looks| looks < running.looks / 2).count();
    running
}

fn steady(look: &Look<'_>, kernel: &Kernel, pids: &mut BTreeMap<u32, u32>) -> Result<bool, GuestError> {
    let tasks = kernel.tasks(look)?;
    tasks.iter().for_each(|task| *pids.entry(task.pid).or_default() += 1);
    let mut found = Vec::new();
    for task in tasks.iter().filter(|task| task.pid == task.tgid && STEADY.contains(&&*task.comm)) {
        if !kernel.mappings(look, task)?.is_empty() && kernel.cgroup(look, task).is_ok() {
            found.push(&*task.comm);
        }
    }
    Ok(STEADY.iter().all(|name| found.contains(name)))
}

#[test]
#[ignore = "boots a machine: cargo xtask test"]
fn guests_that_run_are_understood_nearly_always() {
    for machine in machines::all() {
        let Some(running) = &machine.running else { continue };
        machine.figure("looks while it ran", format_args!("{running:?}"));
        assert!(running.looks > 0, "{}: the kernel was not found", machine.name);
        assert!(running.passing > 0, "{}: nothing came and went", machine.name);
        assert!(running.complete * 10 > running.looks * 9, "{}: {running:?}", machine.name);
    }
}
