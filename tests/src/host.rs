//! The images that a KVM host boots from: its kernel, and its initramfs with the VMM that guests run in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::emulator::Emulator;
use crate::guests;
use crate::images::{Boot, Images};
use crate::initramfs::{self, Base};
use crate::kernels::Kernel;
use crate::packages::PackageSet;
use crate::scenario::{Scenario, Tool};
use crate::tree::Tree;
use crate::vmm;

const SCRIPT: &str = include_str!("init/host.sh");

/// The VMM: Debian's QEMU without all that a small virtual machine on KVM does not need, which takes a quarter of the
/// space with its libraries.
const VMM: &str = "usr/bin/qemu-system-x86_64-microvm";

/// Its place on the host, where QEMU is on others.
const VMM_PLACE: &str = "usr/bin/qemu-system-x86_64";

/// What the VMM loads into guests: the firmware of its machine type, and what makes that boot a kernel directly.
const FIRMWARE: [&str; 2] = ["bios-microvm.bin", "linuxboot_dma.bin"];

/// What the host needs to run guests, to take orders and to write to the run's folder.
const MODULES: [&str; 7] =
    ["kvm-amd", "virtio_pci", "virtio_console", "virtio_rng", "virtio_blk", "9pnet_virtio", "9p"];

impl Tool {
    /// The package that has it.
    fn package(self) -> &'static str {
        match self {
            Tool::Perf => "linux-perf",
        }
    }

    /// Its place in the package.
    fn path(self) -> &'static str {
        match self {
            Tool::Perf => "usr/bin/perf",
        }
    }
}

/// Makes the images of a scenario: what is the scenario's own in `folder`, the rest in the cache. `programs` are put
/// into the host's `/usr/bin`.
pub(crate) fn build(
    scenario: &Scenario,
    programs: &[PathBuf],
    cache: &Cache,
    folder: &Path,
) -> Result<Images> {
    let (release, host) = (scenario.hypervisor.release, &scenario.host);
    let wanted = [
        "qemu-system-x86",
        "qemu-system-data",
        "seabios",
        "libgcc-s1",
        "busybox-static",
        "linux-image-amd64",
    ];
    let tools = host.tools.iter().map(|tool| tool.package());
    let wanted: Vec<String> = wanted.into_iter().chain(tools).map(str::to_owned).collect();
    let packages = PackageSet::fetch(cache, release, &wanted)?;
    let kernel = Kernel::find(&packages)?;
    let busybox = packages.busybox()?;
    let modules: Vec<&str> = MODULES.into_iter().chain(host.modules.iter().map(String::as_str)).collect();
    let base = Base {
        name: format!("host-{}", release.name()),
        packages: &packages,
        kernel: &kernel,
        modules: &modules,
        busybox: &busybox,
        script: SCRIPT,
    };
    let base = base.make(cache, (VMM, FIRMWARE), |tree| add_programs(tree, &packages, &host.tools))?;

    let initrd = folder.join("initrd");
    let mut images = Images {
        // In that of Debian 12, 7.2, a machine in which KVM's guests boot resets itself in about half of all runs.
        emulator: Emulator::unpacked(cache, folder)?,
        plugin: None,
        boot: Boot::Linux { kernel: kernel.image, initrd: initrd.clone() },
        disks: Vec::new(),
        packages: packages.packages,
    };
    let mut overlay = initramfs::overlay(scenario, programs, (&host.files, &host.init), cache)?;
    for guest in &scenario.guests {
        let device =
            initramfs::add_guest(&mut overlay, guest, scenario, &busybox, cache, &mut images, folder)?;
        let path = format!("{}/start", guests::folder(guest.name.get_ref()));
        overlay.file(&path, 0o755, vmm::start_script(guest, device.as_deref()));
    }
    initramfs::join(&base, &overlay, &initrd)?;
    Ok(images)
}

/// The VMM with its firmware, and the tools that the scenario wants; the programs come back.
fn add_programs(tree: &mut Tree, packages: &PackageSet, tools: &[Tool]) -> Result<Vec<PathBuf>> {
    let find =
        |places: &[&str]| packages.find(places).with_context(|| format!("no package has {}", places[0]));
    for name in FIRMWARE {
        let places = ["qemu", "seabios"].map(|folder| format!("usr/share/{folder}/{name}"));
        let file = find(&places.each_ref().map(String::as_str))?;
        tree.file(&format!("/usr/share/qemu/{name}"), 0o644, fs::read(file)?);
    }
    let mut programs = vec![(VMM_PLACE, find(&[VMM])?)];
    for tool in tools {
        programs.push((tool.path(), find(&[tool.path()])?));
    }
    for (path, program) in &programs {
        tree.file(&format!("/{path}"), 0o755, fs::read(program)?);
    }
    Ok(programs.into_iter().map(|(_, program)| program).collect())
}
