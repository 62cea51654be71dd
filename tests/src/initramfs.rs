//! The control domain's initramfs: dom0's on Xen, the host's on KVM.
//!
//! The larger part depends on packages alone and is made once; what a scenario adds is written behind it.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::disk;
use crate::files::{self, FileEntry};
use crate::guests;
use crate::images::Images;
use crate::kallsyms;
use crate::kernels::Kernel;
use crate::libraries;
use crate::packages::PackageSet;
use crate::progress::say;
use crate::scenario::{Disk, Guest, Scenario};
use crate::steps::step_file;
use crate::tree::Tree;

const INIT: &str = include_str!("init/control.sh");

/// The part that depends on packages alone.
pub(crate) struct Base<'a> {
    /// How its file in the cache is called.
    pub(crate) name: String,
    pub(crate) packages: &'a PackageSet,
    pub(crate) kernel: &'a Kernel,
    /// Of the kernel's modules, those that are loaded.
    pub(crate) modules: &'a [&'a str],
    pub(crate) busybox: &'a [u8],
    /// What the first process does for the hypervisor.
    pub(crate) script: &'a str,
}

impl Base<'_> {
    /// The archive's file, made unless the cache has it. `add` puts in what else there is to be, hands back the
    /// programs whose libraries are wanted, and depends on the packages and on `key` alone.
    pub(crate) fn make(
        &self,
        cache: &Cache,
        key: impl Hash,
        add: impl FnOnce(&mut Tree) -> Result<Vec<PathBuf>>,
    ) -> Result<PathBuf> {
        let mut hasher = DefaultHasher::new();
        let versions = self.packages.packages.iter().map(|package| (&package.name, &package.sha256));
        (versions.collect::<Vec<_>>(), INIT, self.script, self.modules, key).hash(&mut hasher);
        let path = cache.folder("images")?.join(format!("{}-{:016x}.cpio", self.name, hasher.finish()));
        if path.exists() {
            return Ok(path);
        }
        say(format_args!("making the image {}", self.name));
        let mut tree = Tree::default();
        tree.file("/init", 0o755, INIT);
        tree.file("/lab/hypervisor.sh", 0o644, self.script);
        tree.file("/bin/busybox", 0o755, self.busybox);
        tree.link("/bin/sh", "busybox");
        tree.character_device("/dev/console", 5, 1);
        self.kernel.add_modules(&mut tree, self.modules)?;
        let programs = add(&mut tree)?;
        libraries::add_to(&mut tree, |places| self.packages.find(places), &programs)?;
        let unfinished = path.with_extension("new");
        tree.write_cpio(BufWriter::new(File::create(&unfinished)?))?;
        fs::rename(&unfinished, &path)?;
        Ok(path)
    }
}

/// The part that is a scenario's own, guests left out: `programs`, the steps, and the control domain's files and its
/// init's lines.
pub(crate) fn overlay(
    scenario: &Scenario,
    programs: &[PathBuf],
    (entries, init): (&[FileEntry], &[String]),
    cache: &Cache,
) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.file("/lab/init.sh", 0o644, guests::script(init));
    tree.file(
        "/lab/start",
        0o644,
        guests::started(scenario).map(|guest| format!("{}\n", guest.name.get_ref())).collect::<String>(),
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
    files::add_to(&mut tree, entries, &scenario.folder, cache)?;
    Ok(tree)
}

/// Puts what the control domain has of any guest into `tree`; its packages and its disk are added to `images`. What
/// comes back is the device that the guest's root file system is on, as the control domain sees it, if it is on one.
pub(crate) fn add_guest(
    tree: &mut Tree,
    guest: &Guest,
    scenario: &Scenario,
    busybox: &[u8],
    cache: &Cache,
    images: &mut Images,
    folder: &Path,
) -> Result<Option<String>> {
    let release = guest.release.unwrap_or(scenario.hypervisor.release);
    let set = PackageSet::fetch(cache, release, std::slice::from_ref(&guest.kernel))?;
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
    let mut root = guests::root(guest, &files, busybox);
    if !guest.modules.is_empty() {
        let mut modules = Tree::default();
        kernel.add_modules(&mut modules, &guest.modules.iter().map(String::as_str).collect::<Vec<_>>())?;
        tree.graft(&format!("{home}/modules"), &modules);
        root.graft("", &modules);
    }
    let (initrd, device) = match guest.disk {
        Disk::Initramfs => (root, None),
        Disk::Ext4 => {
            let image = folder.join(format!("{}.ext4", guest.name.get_ref()));
            disk::make_ext4(&root, &image)?;
            let letter = char::from(b'a' + images.disks.len() as u8);
            images.disks.push(image);
            (guests::way_to_disk(guest, &kernel, busybox)?, Some(format!("/dev/vd{letter}")))
        }
    };
    tree.file(&format!("{home}/initrd"), 0o644, initrd.to_cpio());
    Ok(device)
}

/// Writes the scenario's part behind the other one.
pub(crate) fn join(base: &Path, overlay: &Tree, initrd: &Path) -> Result<()> {
    let mut out = BufWriter::new(File::create(initrd)?);
    io::copy(&mut File::open(base)?, &mut out)?;
    overlay.write_cpio(out)?;
    Ok(())
}
