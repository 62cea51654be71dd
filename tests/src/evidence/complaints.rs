//! Are the kernels well, dom0's, a host's and every guest's?

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

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

/// Whether it was the emulator that had a guest's kernel crash: its last interrupt came a second time, at the first
/// instruction of its own handler (docs/lab.md).
pub fn was_the_emulator(folder: &Path) -> bool {
    const TWICE: &str = "RIP: 0010:asm_sysvec_xen_hvm_callback+0x0/";
    let logs = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut logs = logs.filter_map(|entry| fs::read(entry.path()).ok());
    logs.any(|log| String::from_utf8_lossy(&log).contains(TWICE))
}

fn complaint(log: &str) -> Option<&str> {
    log.lines().find(|line| KERNELS.iter().any(|complaint| line.contains(complaint)))
}

#[cfg(test)]
mod tests {
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
        assert!(!was_the_emulator(folder.path()));
        write("delta.log", "[    5.2] RIP: 0010:asm_sysvec_xen_hvm_callback+0x0/0x20\n");
        assert!(was_the_emulator(folder.path()));
    }
}
