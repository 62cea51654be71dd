//! Are the kernels well, dom0's, a host's and every guest's?

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::{Scenario, cpus::STUCK, guests, machine::ENDED};

/// What Linux prints when something is wrong.
const KERNELS: [&str; 13] = [
    "Kernel panic",
    "Oops",
    "BUG:",
    "WARNING:",
    "Call Trace:",
    "general protection fault",
    "unable to handle",
    "soft lockup",
    "hard LOCKUP",
    "detected stalls",
    "self-detected stall",
    "blocked for more than",
    "segfault at",
];

/// Not a kernel's log. Whether it is clean is a question of its own, since some runs provoke it.
const HYPERVISOR: &str = "xen.log";

/// Fails on any complaint of a kernel, dom0's or a guest's, in a run's folder of consoles.
pub fn check_kernels(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("{} can't be read", folder.display()))? {
        let path = entry?.path();
        if path.ends_with(HYPERVISOR) {
            continue;
        }
        let log = fs::read(&path).with_context(|| format!("{} can't be read", path.display()))?;
        if let Some(line) = complaint(&String::from_utf8_lossy(&log)) {
            bail!("a kernel is not well: {} has the line {line:?}", path.display());
        }
    }
    Ok(())
}

/// What tells that the emulator brought a guest down (docs/lab.md), if anything does: a kernel that panics since its last
/// interrupt came a second time, at the first instruction of its own handler; a triple fault; a second start of a guest
/// that nobody restarts. Triple faults of guests that came later don't count where steps restart some.
pub fn of_the_emulator(folder: &Path, scenario: &Scenario) -> Option<String> {
    let log = |name: &str| fs::read(folder.join(name)).map(|log| String::from_utf8_lossy(&log).into_owned());
    if let Ok(log) = log(HYPERVISOR)
        && let Some(line) = log.lines().find(|line| is_fault(line, scenario))
    {
        return Some(line.to_owned());
    }
    scenario.guests.iter().find_map(|guest| {
        let name = guest.name.get_ref();
        let log = log(&format!("{name}.log")).ok()?;
        let first = |line: &&str| line.contains("RIP: 0010:asm_sysvec_") && line.contains("+0x0/");
        let panic = log.lines().find(first);
        let stays = guest.start && !guest.restarts;
        let again = stays && log.matches(guests::UP).count() > 1;
        panic.map(|line| format!("{name}: {line}")).or(again.then(|| format!("{name} started twice")))
    })
}

/// What tells that the emulator brought a host down (docs/lab.md), if anything does: a CPU took no interrupt any more; or a
/// KVM host ended without a word of its kernel's, or that found the end of a thread's stack overwritten, or that a CPU stood
/// still for more than twenty seconds.
pub fn of_a_host(error: &anyhow::Error, folder: &Path) -> Option<String> {
    const MARKS: [&str; 2] = ["corrupted stack end detected inside scheduler", "detected stalls on CPUs"];
    let told = format!("{error:#}");
    if told.contains(STUCK) {
        return Some(told);
    }
    let log = fs::read(folder.join("host.log")).ok()?;
    let log = String::from_utf8_lossy(&log);
    if let Some(line) = log.lines().find(|line| MARKS.iter().any(|mark| line.contains(mark))) {
        return Some(line.to_owned());
    }
    // Not if somebody ended QEMU.
    let ended = told.contains(ENDED) && !told.contains("terminating on signal");
    (ended && complaint(&log).is_none()).then(|| "the host has ended without a word".to_owned())
}

/// Whether a line of Xen's tells of a triple fault of a guest that was up before the first step, or of one that came later
/// and that no step started.
fn is_fault(line: &str, scenario: &Scenario) -> bool {
    let Some((vcpu, _)) = line.split_once(" Triple fault") else { return false };
    let vcpu = vcpu.rsplit(' ').next().and_then(|vcpu| vcpu.strip_prefix('d')?.split_once('v'));
    let number = vcpu.and_then(|(domain, _)| domain.parse::<usize>().ok()).unwrap_or(0);
    number <= guests::started(scenario).count() || !scenario.guests.iter().any(|guest| guest.restarts)
}

fn complaint(log: &str) -> Option<&str> {
    log.lines().find(|line| KERNELS.iter().any(|complaint| line.contains(complaint)))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn complaints_of_any_guest_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("alpha.log", "[    0.000000] Linux version 6.1\nlab: the guest is up\n");
        write("xen.log", "(XEN) BUG: not looked at here\n");
        check_kernels(folder.path()).unwrap();
        write("gamma.log", "fine\n[   41.7] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!\nfine\n");
        let told = check_kernels(folder.path()).unwrap_err().to_string();
        assert!(told.contains("gamma.log") && told.contains("soft lockup"), "{told}");
    }

    #[test]
    fn a_host_that_ends_without_a_word_was_brought_down() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(folder.path().join("host.log"), text).unwrap();
        let told = |error: &'static str| of_a_host(&anyhow::Error::msg(error), folder.path());
        let ended = "in step \"record\": the machine has ended; QEMU: it says nothing";
        assert_eq!(told(ended), None, "there is no KVM host");
        assert!(
            told("in step \"shim\", CPU 0 goes on although an interrupt waits in its local APIC").is_some()
        );
        write("[    3.2] random: crng init done\n");
        assert!(told(ended).is_some());
        assert_eq!(told("step \"record\" was stopped: it takes longer than its limit of 120 s"), None);
        assert_eq!(told("the machine has ended; QEMU: terminating on signal 15"), None);
        write("[   46.7] Kernel panic - not syncing: corrupted stack end detected inside scheduler\n");
        assert!(told("the host has crashed").is_some_and(|line| line.contains("corrupted stack end")));
        write("[   46.7] BUG: unable to handle page fault\n");
        assert_eq!(told(ended), None, "that may be anybody's");
    }

    #[test]
    fn what_the_emulator_did_is_told_from_what_steps_do() {
        const SCENARIO: &str = "[hypervisor]\nkind = \"xen\"\nrelease = \"bookworm\"\n\
            [[guest]]\nname = \"alpha\"\nkind = \"pvh\"\n[[guest]]\nname = \"beta\"\nkind = \"pvh\"\nrestarts = true\n";
        let scenario = Scenario::parse(SCENARIO, PathBuf::new()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let told = || of_the_emulator(folder.path(), &scenario);
        let (once, twice) = (format!("{}\n", guests::UP), format!("{}\nfine\n{}\n", guests::UP, guests::UP));
        write("alpha.log", &once);
        write("beta.log", &twice);
        write("xen.log", "(XEN) d1 is fine\n");
        assert_eq!(told(), None);
        write("alpha.log", &twice);
        assert_eq!(told().as_deref(), Some("alpha started twice"));
        write("alpha.log", &once);
        write("beta.log", "[    5.2] RIP: 0010:asm_sysvec_xen_hvm_callback+0x0/0x20\n");
        assert!(told().unwrap().starts_with("beta: "));
        write("beta.log", &twice);
        for (number, counts) in [(1, true), (2, true), (3, false)] {
            write("xen.log", &format!("(XEN) d{number}v0 Triple fault - invoking HVM shutdown action 1\n"));
            assert_eq!(told().is_some_and(|told| told.starts_with("(XEN) d")), counts, "{number}");
        }
    }
}
