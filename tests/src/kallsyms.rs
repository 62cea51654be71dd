//! The symbols of a guest's kernel, as the kernel itself lists them.
//!
//! Debian's `System.map` is a stub and its kernels have no symbol table, so the kernel is booted once, in a machine
//! without a hypervisor. PV guests, and PVH guests that are booted directly, skip the decompressor and with it the
//! randomization of addresses: what is read here with `nokaslr` holds for them.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::kernels::Kernel;
use crate::progress::say;
use crate::qemu::Qemu;
use crate::tree::Tree;

/// More than any kernel's symbol table; only what is written takes space.
const DISK_BYTES: u64 = 64 << 20;

/// The file with the symbols of a kernel, read from the running kernel unless the cache has it.
pub(crate) fn of(kernel: &Kernel, busybox: &[u8], cache: &Cache) -> Result<PathBuf> {
    let path = cache.folder("kallsyms")?.join(&kernel.version);
    if path.exists() {
        return Ok(path);
    }
    say(format_args!("booting {} once to read its symbols", kernel.version));
    let symbols =
        boot(kernel, busybox).with_context(|| format!("cannot read the symbols of {}", kernel.version))?;
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, symbols)?;
    fs::rename(&unfinished, &path)?;
    Ok(path)
}

fn boot(kernel: &Kernel, busybox: &[u8]) -> Result<Vec<u8>> {
    let folder = tempfile::Builder::new().prefix("xenoscope-lab-").tempdir()?;
    let mut tree = Tree::default();
    tree.file("/bin/busybox", 0o755, busybox);
    tree.file("/init", 0o755, include_str!("init/kallsyms.sh"));
    tree.character_device("/dev/console", 5, 1);
    kernel.add_modules(&mut tree, &["virtio_pci", "virtio_blk"])?;
    fs::write(folder.path().join("initrd"), tree.to_cpio())?;
    File::create(folder.path().join("disk"))?.set_len(DISK_BYTES)?;
    let mut arguments: Vec<&str> = vec!["-m", "512", "-serial", "file:console.log", "-initrd", "initrd"];
    arguments.extend([
        "-append",
        "console=ttyS0 nokaslr panic=-1",
        "-drive",
        "file=disk,format=raw,if=virtio",
    ]);
    let image = kernel.image.to_str().context("the cache's path is not UTF-8")?;
    arguments.extend(["-kernel", image]);
    let mut qemu = Qemu::start(folder.path(), arguments)?;
    if !qemu.wait(Duration::from_secs(120))? {
        bail!("the kernel does not come to an end in two minutes");
    }
    let mut symbols = fs::read(folder.path().join("disk"))?;
    // What was never written is zero.
    let end = symbols.iter().position(|&byte| byte == 0).unwrap_or(symbols.len());
    symbols.truncate(end);
    if !symbols.ends_with(b"\n") || !contains(&symbols, b" _text\n") {
        let console = fs::read_to_string(folder.path().join("console.log")).unwrap_or_default();
        let last: Vec<&str> = console.lines().rev().take(5).collect();
        bail!(
            "the kernel listed no symbols; QEMU: {}; the console's last lines, reversed: {last:#?}",
            qemu.complaints()
        );
    }
    Ok(symbols)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
