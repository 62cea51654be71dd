//! What a machine boots from, whichever hypervisor it is to run.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cache::Cache;
use crate::dom0;
use crate::emulator::Emulator;
use crate::host;
use crate::packages::Package;
use crate::scenario::{HypervisorKind, Scenario};

/// All that a machine boots from.
#[derive(Debug)]
pub(crate) struct Images {
    /// The QEMU that plays the machine.
    pub(crate) emulator: Emulator,
    /// The plugin that counts instructions, where they are counted.
    pub(crate) plugin: Option<PathBuf>,
    /// What QEMU is to load.
    pub(crate) boot: Boot,
    /// The disks of guests, which the control domain sees as `/dev/vda` and so on.
    pub(crate) disks: Vec<PathBuf>,
    /// The packages that all this was taken from.
    pub(crate) packages: Vec<Package>,
}

/// What QEMU is to load.
#[derive(Debug)]
pub(crate) enum Boot {
    /// A hypervisor, uncompressed, with dom0's kernel and initramfs.
    Xen { hypervisor: PathBuf, kernel: PathBuf, initrd: PathBuf },
    /// The host's kernel and initramfs.
    Linux { kernel: PathBuf, initrd: PathBuf },
}

/// Makes the images of a scenario: what is the scenario's own in `folder`, the rest in the cache. `programs` are put
/// into the control domain's `/usr/bin`.
pub(crate) fn build(
    scenario: &Scenario,
    programs: &[PathBuf],
    cache: &Cache,
    folder: &Path,
) -> Result<Images> {
    match scenario.hypervisor.kind {
        HypervisorKind::Xen => dom0::build(scenario, programs, cache, folder),
        HypervisorKind::Kvm => host::build(scenario, programs, cache, folder),
    }
}
