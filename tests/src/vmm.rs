//! Guests of a KVM host: how their VMM is started.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::guests;
use crate::scenario::Guest;

/// The script that starts a guest; `disk` is the device of the host that its root file system is on, if any.
///
/// It has succeeded when QEMU has: the virtual machine is there, its virtual CPUs run. What it is told goes to QEMU, but for
/// the first word: that is added to the names of socket and file, for a second VMM that the guest is to move to.
pub(crate) fn start_script(guest: &Guest, disk: Option<&str>) -> String {
    let name = guest.name.get_ref();
    let (folder, console) = (guests::folder(name), format!("/run/{name}.console"));
    let pinned = match guest.pin.iter().fold(0_u64, |mask, cpu| mask | 1 << cpu) {
        0 => String::new(),
        mask => format!("taskset {mask:#x} "),
    };
    // Two thirds of a kernel's way up would go into its messages, an exit to the VMM for each character. Counting the
    // timer's ticks fails where a processor is emulated and shared.
    let kernel_args = ["console=ttyS0 quiet no_timer_check", &guest.kernel_args].join(" ");
    let mut lines = vec![
        format!("exec {pinned}qemu-system-x86_64 -daemonize -nodefaults -no-user-config -display none"),
        // Without a clock to be found, Linux looks for it for seconds.
        format!("-M microvm,rtc=on -accel kvm -cpu host -smp {} -m {}", guest.vcpus, guest.memory_mib),
        format!(
            "-kernel {folder}/vmlinuz -initrd {folder}/initrd -append {}",
            quoted(kernel_args.trim_end())
        ),
        format!("-chardev file,id=console,path={console} -serial chardev:console"),
        format!("-qmp unix:/run/qmp-{name}$life.sock,server=on,wait=off -pidfile /run/{name}$life.pid"),
    ];
    if !guest.anonymous {
        lines.push(format!("-name guest={name},debug-threads=on -uuid {}", uuid(name)));
    }
    if let Some(device) = disk {
        lines.push(format!(
            "-drive file={device},format=raw,if=none,id=root -device virtio-blk-device,drive=root"
        ));
    }
    lines.extend(guest.vmm.iter().cloned());
    lines.push("\"$@\"".to_owned());
    // Character by character, as the serial line has it, would take long over 9p: cat takes what has come meanwhile.
    format!(
        "#!/bin/sh\n# Starts the guest {name}.\n[ $# = 0 ] || {{ life=$1; shift; }}\n\
         [ -p {console} ] || mkfifo {console}\n\
         [ \"$life\" ] || setsid cat {console} >>/share/console/guest-{name}.log &\n{}\n",
        lines.join(" \\\n    ")
    )
}

/// A word of a shell's command line.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A UUID made from a guest's name (RFC 9562, version 8), so that it is the same in every run.
fn uuid(name: &str) -> String {
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        (seed, name).hash(&mut hasher);
        hasher.finish()
    };
    let (high, low) = (half(0) & !0xf000 | 0x8000, half(1) >> 2 | 1 << 63);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::scenario::Scenario;

    fn script(guest: &str, disk: Option<&str>) -> String {
        let text = format!(
            "[hypervisor]\nkind = \"kvm\"\nrelease = \"bookworm\"\n[[guest]]\nname = \"alpha\"\nkind = \"kvm\"\n{guest}"
        );
        start_script(&Scenario::parse(&text, PathBuf::new()).unwrap().guests[0], disk)
    }

    #[test]
    fn a_guest_is_known_by_name_and_uuid_unless_it_is_to_be_anonymous() {
        let named = script("", None);
        assert!(named.contains("-name guest=alpha,debug-threads=on -uuid "), "{named}");
        assert!(!named.contains("taskset") && !named.contains("-drive"), "{named}");
        let anonymous = script("anonymous = true", None);
        assert!(!anonymous.contains("-name") && !anonymous.contains("-uuid"), "{anonymous}");
    }

    #[test]
    fn a_guest_with_all_that_can_be_said() {
        let script = script(
            "vcpus = 2\nmemory_mib = 256\npin = [0, 2]\nkernel_args = \"nokaslr it's\"",
            Some("/dev/vdb"),
        );
        for part in [
            "exec taskset 0x5 qemu-system-x86_64 ",
            "-smp 2 -m 256 ",
            r"-append 'console=ttyS0 quiet no_timer_check nokaslr it'\''s' ",
            "-drive file=/dev/vdb,",
        ] {
            assert!(script.contains(part), "{part} is not in\n{script}");
        }
    }

    #[test]
    fn uuids_are_of_the_right_form_and_differ() {
        let alpha = uuid("alpha");
        let lengths: Vec<usize> = alpha.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        let (version, variant) = (&alpha[14..15], &alpha[19..20]);
        assert!(version == "8" && "89ab".contains(variant), "{alpha}");
        assert_ne!(alpha, uuid("beta"));
    }
}
