//! Guests: what they boot from, and how `xl` is told about them.

use std::fmt::Write as _;

use anyhow::Result;

use crate::kernels::Kernel;
use crate::scenario::{Guest, GuestKind, Scenario};
use crate::tree::Tree;

/// What a guest's first process says on its console before all else.
pub(crate) const UP: &str = "lab: the guest is up";

/// Where a guest's files are in dom0.
pub(crate) fn folder(name: &str) -> String {
    format!("/guests/{name}")
}

/// The guests that are up before the first step, in the order in which they are started: see the script of dom0's init. On
/// Xen they have the numbers from 1 on.
pub(crate) fn started(scenario: &Scenario) -> impl Iterator<Item = &Guest> {
    let is_first = |guest: &&Guest| guest.is_hvm();
    let started = || scenario.guests.iter().filter(|guest| guest.start);
    started().filter(is_first).chain(started().filter(move |guest| !is_first(guest)))
}

/// A guest's root file system; `files` are the scenario's own.
pub(crate) fn root(guest: &Guest, files: &Tree, busybox: &[u8]) -> Tree {
    let mut root = Tree::default();
    root.file("/bin/busybox", 0o755, busybox);
    root.link("/bin/sh", "busybox");
    root.file("/init", 0o755, include_str!("init/guest.sh"));
    root.file("/lab/init.sh", 0o644, script(&guest.init));
    root.character_device("/dev/console", 5, 1);
    root.graft("", files);
    root
}

/// The initramfs of a guest whose root file system is on a disk.
pub(crate) fn way_to_disk(guest: &Guest, kernel: &Kernel, busybox: &[u8]) -> Result<Tree> {
    let (device, driver) = match guest.kind.get_ref() {
        GuestKind::Pv | GuestKind::Pvh | GuestKind::Hvm => ("/dev/xvda", &["xen-blkfront"][..]),
        GuestKind::Kvm => ("/dev/vda", &["virtio_mmio", "virtio_blk"][..]),
    };
    let mut tree = Tree::default();
    tree.file("/bin/busybox", 0o755, busybox);
    tree.file("/init", 0o755, include_str!("init/disk.sh"));
    tree.character_device("/dev/console", 5, 1);
    tree.file("/lab/device", 0o644, device);
    kernel.add_modules(&mut tree, &[driver, &["ext4"]].concat())?;
    Ok(tree)
}

/// Shell lines as a script.
pub(crate) fn script(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The guest's configuration for `xl`; `disk` is the device in dom0 that its root file system is on, if any.
pub(crate) fn xl_config(guest: &Guest, disk: Option<&str>) -> String {
    let name = guest.name.get_ref();
    let folder = folder(name);
    let kind = match guest.kind.get_ref() {
        GuestKind::Pv => "pv",
        GuestKind::Pvh => "pvh",
        GuestKind::Hvm => "hvm",
        GuestKind::Kvm => "kvm",
    };
    // HVM guests' kernels go where they want to, as they do elsewhere, unless the scenario has them stay.
    let console = if kind == "hvm" { "console=hvc0" } else { "console=hvc0 nokaslr" };
    let kernel_args = [console, &guest.kernel_args].join(" ");
    let mut config = format!(
        "name = \"{name}\"\ntype = \"{kind}\"\nkernel = \"{folder}/vmlinuz\"\nramdisk = \"{folder}/initrd\"\n\
         extra = \"{}\"\nmemory = {}\nvcpus = {}\non_crash = \"preserve\"\n",
        kernel_args.trim_end(),
        guest.memory_mib,
        guest.vcpus
    );
    if *guest.kind.get_ref() != GuestKind::Pv {
        // Emulated time-stamp counters do not work where QEMU emulates the CPU.
        config.push_str("tsc_mode = \"native\"\n");
    }
    if guest.is_hvm() {
        // No screen: its console is the paravirtualized one, like the others'.
        config.push_str("vga = \"none\"\nvnc = 0\n");
    }
    if let Some(device) = disk {
        writeln!(config, "disk = [\"phy:{device},xvda,w\"]").expect("a String takes all that is written");
    }
    // HVM guests are pinned once they are up.
    if !guest.pin.is_empty() && !guest.is_hvm() {
        writeln!(config, "cpus = \"{}\"", cpu_list(&guest.pin)).expect("a String takes all that is written");
    }
    config.push_str(&script(&guest.xl));
    config
}

/// Physical CPUs as Xen's tools list them.
pub(crate) fn cpu_list(cpus: &[u32]) -> String {
    cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::scenario::Scenario;

    fn config(guest: &str) -> String {
        let text = format!(
            "[hypervisor]\nkind = \"xen\"\nrelease = \"bookworm\"\n[[guest]]\nname = \"alpha\"\n{guest}"
        );
        xl_config(&Scenario::parse(&text, PathBuf::new()).unwrap().guests[0], Some("/dev/vdb"))
    }

    #[test]
    fn a_plain_pv_guest_on_a_disk() {
        let expected = "name = \"alpha\"\ntype = \"pv\"\nkernel = \"/guests/alpha/vmlinuz\"\n\
            ramdisk = \"/guests/alpha/initrd\"\nextra = \"console=hvc0 nokaslr\"\nmemory = 128\nvcpus = 1\n\
            on_crash = \"preserve\"\ndisk = [\"phy:/dev/vdb,xvda,w\"]\n";
        assert_eq!(config("kind = \"pv\""), expected);
    }

    #[test]
    fn an_hvm_guest_without_a_screen_whose_kernel_lies_where_it_likes() {
        let config = config("kind = \"hvm\"");
        for line in [
            "type = \"hvm\"",
            "tsc_mode = \"native\"",
            "vga = \"none\"",
            "vnc = 0",
            "extra = \"console=hvc0\"",
        ] {
            assert!(config.lines().any(|found| found == line), "{line} is not in\n{config}");
        }
    }

    #[test]
    fn a_pvh_guest_with_all_that_can_be_said() {
        let config = config(
            "kind = \"pvh\"\nvcpus = 2\nmemory_mib = 256\npin = [0, 1]\nkernel_args = \"quiet\"\nxl = [\"nomigrate = 1\"]",
        );
        for line in [
            "type = \"pvh\"",
            "tsc_mode = \"native\"",
            "extra = \"console=hvc0 nokaslr quiet\"",
            "memory = 256",
            "vcpus = 2",
            "cpus = \"0,1\"",
            "nomigrate = 1",
        ] {
            assert!(config.lines().any(|found| found == line), "{line} is not in\n{config}");
        }
    }
}
