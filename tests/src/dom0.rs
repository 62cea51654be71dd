//! The images that a Xen host boots from: the hypervisor, dom0's kernel and dom0's initramfs.
//!
//! The larger part of the initramfs depends on packages alone and is made once; what a scenario adds is written
//! behind it.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::command;
use crate::disk;
use crate::files;
use crate::guests;
use crate::kallsyms;
use crate::kernels::Kernel;
use crate::libraries;
use crate::packages::{Package, PackageSet};
use crate::progress::say;
use crate::scenario::{Disk, Guest, Release, Scenario};
use crate::steps::step_file;
use crate::tree::Tree;

const INIT: &str = include_str!("init/dom0.sh");
const BLOCK_SCRIPT: &str = include_str!("init/block.sh");

/// Programs of the Xen packages. Not every release has all of them.
const TOOLS: [&str; 19] = [
    "xl",
    "xenstored",
    "xenconsoled",
    "xen-init-dom0",
    "xen-livepatch",
    "libxl-save-helper",
    "xen-diag",
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
}

/// All that a machine boots from.
#[derive(Debug)]
pub(crate) struct Images {
    /// The hypervisor, uncompressed.
    pub(crate) xen: PathBuf,
    /// dom0's kernel.
    pub(crate) kernel: PathBuf,
    /// dom0's initramfs.
    pub(crate) initrd: PathBuf,
    /// The disks of guests, which dom0 sees as `/dev/vda` and so on.
    pub(crate) disks: Vec<PathBuf>,
    /// The packages that all this was taken from.
    pub(crate) packages: Vec<Package>,
}

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
    let wanted = [
        format!("xen-hypervisor-{xen}-amd64"),
        format!("xen-utils-{xen}"),
        "xen-utils-common".to_owned(),
        "xenstore-utils".to_owned(),
        "libgcc-s1".to_owned(),
        "busybox-static".to_owned(),
        "linux-image-amd64".to_owned(),
    ];
    let host = PackageSet::fetch(cache, release, &wanted)?;
    let kernel = Kernel::find(&host)?;
    let busybox = host.find(&["bin/busybox", "usr/bin/busybox"]).context("busybox-static has no busybox")?;
    let busybox = fs::read(busybox)?;
    let base = base(&host, &kernel, &busybox, release, cache)?;

    let mut images = Images {
        xen: hypervisor(&host, release, folder)?,
        kernel: kernel.image,
        initrd: folder.join("initrd"),
        disks: Vec::new(),
        packages: host.packages,
    };
    let mut overlay = overlay(scenario, programs, cache)?;
    for guest in &scenario.guests {
        add_guest(&mut overlay, guest, scenario, &busybox, cache, &mut images, folder)?;
    }
    let mut out = BufWriter::new(File::create(&images.initrd)?);
    io::copy(&mut File::open(base)?, &mut out)?;
    overlay.write_cpio(out)?;
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

/// The part of dom0's initramfs that depends on the packages alone.
fn base(
    host: &PackageSet,
    kernel: &Kernel,
    busybox: &[u8],
    release: Release,
    cache: &Cache,
) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    let versions = host.packages.iter().map(|package| (&package.name, &package.sha256));
    (versions.collect::<Vec<_>>(), INIT, BLOCK_SCRIPT, TOOLS, MODULES).hash(&mut hasher);
    let path = cache.folder("images")?.join(format!("dom0-{}-{:016x}.cpio", release.name(), hasher.finish()));
    if path.exists() {
        return Ok(path);
    }
    say(format_args!("making dom0's image for {}", release.name()));
    let mut tree = Tree::default();
    tree.file("/init", 0o755, INIT);
    tree.file("/bin/busybox", 0o755, busybox);
    tree.link("/bin/sh", "busybox");
    tree.character_device("/dev/console", 5, 1);
    // xl wants to read its configuration, be it empty; it must not take memory from dom0 to start a guest.
    tree.file("/etc/xen/xl.conf", 0o644, "autoballoon=\"off\"\n");
    tree.file("/etc/xen/scripts/block", 0o755, BLOCK_SCRIPT);
    kernel.add_modules(&mut tree, &MODULES)?;
    let programs = add_tools(&mut tree, host, release)?;
    for (name, library) in libraries::needed(host, &programs)? {
        let folder = if name == libraries::LOADER { "/lib64" } else { "/lib/x86_64-linux-gnu" };
        tree.file(&format!("{folder}/{name}"), 0o755, fs::read(library)?);
    }
    let unfinished = path.with_extension("new");
    tree.write_cpio(BufWriter::new(File::create(&unfinished)?))?;
    fs::rename(&unfinished, &path)?;
    Ok(path)
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

/// The part of dom0's initramfs that is a scenario's own, guests left out.
fn overlay(scenario: &Scenario, programs: &[PathBuf], cache: &Cache) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.file("/lab/init.sh", 0o644, guests::script(&scenario.dom0.init));
    tree.file("/lab/pin", 0o644, guests::cpu_list(&scenario.dom0.pin));
    let started = scenario.guests.iter().filter(|guest| guest.start);
    tree.file(
        "/lab/start",
        0o644,
        started.map(|guest| format!("{}\n", guest.name.get_ref())).collect::<String>(),
    );
    let collected = scenario.collect.files.iter().map(|pattern| format!("{}\n", pattern.get_ref()));
    tree.file("/lab/collect", 0o644, collected.collect::<String>());
    for (index, step) in scenario.steps.iter().enumerate() {
        tree.file(&format!("/lab/steps/{}.sh", step_file(index, step)), 0o644, step.run.clone());
    }
    for program in programs {
        let name =
            program.file_name().and_then(|name| name.to_str()).context("a program's name is not UTF-8")?;
        let content = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
        tree.file(&format!("/usr/bin/{name}"), 0o755, content);
    }
    files::add_to(&mut tree, &scenario.dom0.files, &scenario.folder, cache)?;
    Ok(tree)
}

/// Puts all that dom0 has of a guest into `tree`; its packages and its disk are added to `images`.
fn add_guest(
    tree: &mut Tree,
    guest: &Guest,
    scenario: &Scenario,
    busybox: &[u8],
    cache: &Cache,
    images: &mut Images,
    folder: &Path,
) -> Result<()> {
    let set = PackageSet::fetch(cache, scenario.hypervisor.release, std::slice::from_ref(&guest.kernel))?;
    let kernel = Kernel::find(&set)?;
    for package in set.packages {
        if !images.packages.contains(&package) {
            images.packages.push(package);
        }
    }
    let home = guests::folder(guest.name.get_ref());
    // Guests with the same kernel share its files.
    let shared = format!("/lab/kernels/{}", kernel.version);
    tree.file(&format!("{shared}/vmlinuz"), 0o644, fs::read(&kernel.image)?);
    tree.file(&format!("{shared}/kallsyms"), 0o644, fs::read(kallsyms::of(&kernel, busybox, cache)?)?);
    for name in ["vmlinuz", "kallsyms"] {
        tree.link(&format!("{home}/{name}"), &format!("{shared}/{name}"));
    }

    let mut files = Tree::default();
    files::add_to(&mut files, &guest.files, &scenario.folder, cache)?;
    // Where the steps find the guest's programs, to name what runs in them.
    tree.graft(&format!("{home}/rootfs"), &files);
    let root = guests::root(guest, &files, busybox);
    let (initrd, device) = match guest.disk {
        Disk::Initramfs => (root, None),
        Disk::Ext4 => {
            let image = folder.join(format!("{}.ext4", guest.name.get_ref()));
            disk::make_ext4(&root, &image)?;
            let letter = char::from(b'a' + images.disks.len() as u8);
            images.disks.push(image);
            (guests::way_to_disk(&kernel, busybox)?, Some(format!("/dev/vd{letter}")))
        }
    };
    tree.file(&format!("{home}/initrd"), 0o644, initrd.to_cpio());
    tree.file(&format!("{home}/xl.cfg"), 0o644, guests::xl_config(guest, device.as_deref()));
    Ok(())
}
