//! The images that a Xen host boots from: the hypervisor, dom0's kernel and dom0's initramfs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::command;
use crate::emulator::Emulator;
use crate::executed;
use crate::guests;
use crate::images::{Boot, Images};
use crate::initramfs::{self, Base};
use crate::kernels::Kernel;
use crate::packages::PackageSet;
use crate::scenario::{Guest, Release, Scenario};
use crate::tree::Tree;

const SCRIPT: &str = include_str!("init/dom0.sh");
const BLOCK_SCRIPT: &str = include_str!("init/block.sh");

/// Programs of the Xen packages. Not every release has all of them.
const TOOLS: [&str; 20] = [
    "xl",
    "xenstored",
    "xenconsoled",
    "xen-init-dom0",
    "xen-livepatch",
    "libxl-save-helper",
    "xen-diag",
    "xen-hptool",
    "xen-mfndump",
    "xenctx",
    "xenlockprof",
    "xenperf",
    "xenpm",
    "xentop",
    "xentrace",
    "xenwatchdogd",
    "xenstore-ls",
    "xenstore-read",
    "xenstore-write",
    "lsevtchn",
];

/// What dom0 needs to talk to Xen, to take orders and to write to the run's folder on the host.
const MODULES: [&str; 12] = [
    "xen-evtchn",
    "xen-privcmd",
    "xen-gntdev",
    "xen-gntalloc",
    "xenfs",
    "virtio_pci",
    "virtio_console",
    "virtio_rng",
    "virtio_blk",
    "xen-blkback",
    "9pnet_virtio",
    "9p",
];

impl Release {
    /// The version of Xen in the release, as it is part of names of packages and folders.
    fn xen(self) -> &'static str {
        match self {
            Release::Bullseye => "4.14",
            Release::Bookworm => "4.17",
            Release::Trixie => "4.20",
        }
    }

    /// The packages with the device model of HVM guests, and where it is in them: where the release's `xl` looks.
    fn device_model(self) -> ([&'static str; 3], &'static str) {
        match self {
            Release::Bullseye => {
                (["qemu-system-x86", "qemu-system-data", "seabios"], "usr/bin/qemu-system-i386")
            }
            Release::Bookworm | Release::Trixie => {
                (["qemu-system-xen", "qemu-system-data", "seabios"], "usr/libexec/xen-qemu-system-i386")
            }
        }
    }
}

/// What the device model needs besides: the BIOS, the ROMs by which a kernel is booted that dom0 hands over, and a
/// keymap, which it insists on without having a keyboard.
const FIRMWARE: [&str; 5] = [
    "usr/share/seabios/bios-256k.bin",
    "usr/share/qemu/linuxboot.bin",
    "usr/share/qemu/linuxboot_dma.bin",
    "usr/share/qemu/kvmvapic.bin",
    "usr/share/qemu/keymaps/en-us",
];

/// Makes the images of a scenario: what is the scenario's own in `folder`, the rest in the cache. `programs` are put
/// into dom0's `/usr/bin`.
pub(crate) fn build(
    scenario: &Scenario,
    programs: &[PathBuf],
    cache: &Cache,
    folder: &Path,
) -> Result<Images> {
    let release = scenario.hypervisor.release;
    let xen = release.xen();
    let mut wanted = vec![
        format!("xen-hypervisor-{xen}-amd64"),
        format!("xen-utils-{xen}"),
        "xen-utils-common".to_owned(),
        "xenstore-utils".to_owned(),
        "libgcc-s1".to_owned(),
        "busybox-static".to_owned(),
        "linux-image-amd64".to_owned(),
    ];
    let dom0 = &scenario.dom0;
    let device_model = dom0.qemu || scenario.guests.iter().any(Guest::is_hvm);
    if device_model {
        wanted.extend(release.device_model().0.map(str::to_owned));
    }
    let host = PackageSet::fetch(cache, release, &wanted)?;
    let kernel = Kernel::find(&host)?;
    let busybox = host.busybox()?;
    let modules: Vec<&str> = MODULES.into_iter().chain(dom0.modules.iter().map(String::as_str)).collect();
    let base = Base {
        name: format!("dom0-{}", release.name()),
        packages: &host,
        kernel: &kernel,
        modules: &modules,
        busybox: &busybox,
        script: SCRIPT,
    };
    let base = base.make(cache, (BLOCK_SCRIPT, TOOLS, FIRMWARE), |tree| {
        let mut programs = add_xen(tree, &host, release)?;
        if device_model {
            programs.push(add_device_model(tree, &host, release)?);
        }
        Ok(programs)
    })?;

    let initrd = folder.join("initrd");
    let hypervisor = hypervisor(&host, release, folder)?;
    let mut images = Images {
        emulator: Emulator::installed(),
        plugin: scenario.machine.count_instructions.then(|| executed::plugin(cache)).transpose()?,
        boot: Boot::Xen { hypervisor, kernel: kernel.image, initrd: initrd.clone() },
        disks: Vec::new(),
        packages: host.packages,
    };
    let mut overlay = initramfs::overlay(scenario, programs, (&dom0.files, &dom0.init), cache)?;
    overlay.file("/lab/pin", 0o644, guests::cpu_list(&dom0.pin));
    for guest in &scenario.guests {
        let device =
            initramfs::add_guest(&mut overlay, guest, scenario, &busybox, cache, &mut images, folder)?;
        let folder = guests::folder(guest.name.get_ref());
        overlay.file(&format!("{folder}/xl.cfg"), 0o644, guests::xl_config(guest, device.as_deref()));
        overlay.file(&format!("{folder}/pin"), 0o644, guests::cpu_list(&guest.pin));
    }
    initramfs::join(&base, &overlay, &initrd)?;
    Ok(images)
}

/// QEMU takes the hypervisor uncompressed only.
fn hypervisor(host: &PackageSet, release: Release, folder: &Path) -> Result<PathBuf> {
    let name = format!("xen-{}-amd64.gz", release.xen());
    let compressed =
        host.find(&[&format!("boot/{name}")]).with_context(|| format!("there is no /boot/{name}"))?;
    let path = folder.join("xen");
    let binary = command::stdout(Command::new("gzip").arg("-dc").arg(compressed), "apt-get install gzip")?;
    fs::write(&path, binary)?;
    Ok(path)
}

/// What Xen and its tools need in dom0; the tools come back.
fn add_xen(tree: &mut Tree, host: &PackageSet, release: Release) -> Result<Vec<PathBuf>> {
    // xl wants to read its configuration, be it empty; it must not take memory from dom0 to start a guest.
    tree.file("/etc/xen/xl.conf", 0o644, "autoballoon=\"off\"\n");
    tree.file("/etc/xen/scripts/block", 0o755, BLOCK_SCRIPT);
    add_tools(tree, host, release)
}

/// Puts the tools where their packages have them, since they know each other's places, and links to them on the path.
fn add_tools(tree: &mut Tree, host: &PackageSet, release: Release) -> Result<Vec<PathBuf>> {
    let home = format!("usr/lib/xen-{}/bin", release.xen());
    let mut programs = Vec::new();
    for tool in TOOLS {
        let places = [format!("{home}/{tool}"), format!("usr/bin/{tool}"), format!("usr/sbin/{tool}")];
        let Some(program) = host.find(&places.each_ref().map(String::as_str)) else { continue };
        tree.file(&format!("/{home}/{tool}"), 0o755, fs::read(&program)?);
        tree.link(&format!("/usr/sbin/{tool}"), &format!("/{home}/{tool}"));
        programs.push(program);
    }
    if programs.is_empty() {
        bail!("the packages have no Xen tools below /{home}");
    }
    Ok(programs)
}

/// Puts in what HVM guests need, which is large: only where a scenario has such guests. Gives the device model.
fn add_device_model(tree: &mut Tree, host: &PackageSet, release: Release) -> Result<PathBuf> {
    let (_, program) = release.device_model();
    let hvmloader = format!("usr/lib/xen-{}/boot/hvmloader", release.xen());
    let find = |path: &str| host.find(&[path]).with_context(|| format!("the packages have no /{path}"));
    for path in [program, &hvmloader].into_iter().chain(FIRMWARE) {
        tree.file(&format!("/{path}"), 0o755, fs::read(find(path)?)?);
    }
    find(program)
}
