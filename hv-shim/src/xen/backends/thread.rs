//! Whom threads of dom0 work for, by their names, and what else `/proc` says of them.

use std::fs;

/// The domain that a kernel's thread of this name serves: blkback's are called `DOMAIN.DEVICE-RING` (before Linux 4
/// `blkback.DOMAIN.DEVICE`), netback's `vifDOMAIN.DEVICE-qQUEUE-…`. Kernels up to 5.16 cut names after 15 characters.
pub(super) fn served_by_thread(name: &str) -> Option<u32> {
    let (domain, rest) = match name.strip_prefix("vif") {
        Some(interface) => {
            let (domain, rest) = number_and_dot(interface)?;
            let (device, queue) = rest.split_once('-')?;
            let is_number = !device.is_empty() && device.bytes().all(|byte| byte.is_ascii_digit());
            return (is_number && !queue.is_empty()).then_some(domain);
        }
        None => number_and_dot(name.strip_prefix("blkback.").unwrap_or(name))?,
    };
    // Devices have letters; other threads' names have other numbers there, such as those of addresses.
    rest.starts_with(|first: char| first.is_ascii_lowercase()).then_some(domain)
}

fn number_and_dot(text: &str) -> Option<(u32, &str)> {
    let (number, rest) = text.split_once('.')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    Some((number.parse().ok().filter(|_| is_number)?, rest))
}

/// The domain that a command line, as in `/proc/PID/cmdline`, makes its process the device model of.
pub(super) fn served_by_command(command: &[u8]) -> Option<u32> {
    let mut arguments = command.split(|&byte| byte == 0);
    arguments.find(|&argument| argument == b"-xen-domid")?;
    str::from_utf8(arguments.next()?).ok()?.parse().ok()
}

/// Whether a process has no user's privileges but root's.
pub(super) fn is_roots(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| has_roots_ids(&status))
}

fn has_roots_ids(status: &str) -> bool {
    let Some(ids) = status.lines().find_map(|line| line.strip_prefix("Uid:")) else { return false };
    ids.split_ascii_whitespace().count() == 4 && ids.split_ascii_whitespace().all(|id| id == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_told_by_their_names() {
        for (name, domain) in [
            ("1.xvda-0", 1),
            ("32751.xvdaa-12", 32751),
            ("blkback.7.xvda", 7),
            ("7.sda1-0", 7),
            ("vif12.0-q3-guest-rx", 12),
            ("vif12.10-q3-dealloc", 12),
            ("vif32751.0-q0-g", 32751),
            ("vif4.0-guest-rx", 4),
        ] {
            assert_eq!(served_by_thread(name), Some(domain), "{name}");
        }
        for name in [
            "xenbus",
            "xenwatch",
            "kworker/0:1",
            "192.168.1.1-manager",
            "vif",
            "vif.0-q0",
            "vif1",
            "vifx.0-q0-guest-rx",
            "vif1.x-q0-guest-rx",
            ".xvda-0",
            "+1.xvda-0",
            "1.",
            "jbd2/xvda-8",
            "99999999999.xvda-0",
            "",
        ] {
            assert_eq!(served_by_thread(name), None, "{name}");
        }
    }

    #[test]
    fn device_models_say_whose_they_are() {
        let command = |text: &str| served_by_command(text.replace(' ', "\0").as_bytes());
        assert_eq!(command("/usr/libexec/xen-qemu-system-i386 -xen-domid 7 -no-shutdown"), Some(7));
        assert_eq!(command("qemu -xen-domid"), None);
        assert_eq!(command("qemu -xen-domid seven"), None);
        assert_eq!(command("sh -c qemu-xen-domid 7"), None);
        assert_eq!(command(""), None);
    }

    #[test]
    fn root_is_root_in_every_way() {
        assert!(has_roots_ids("Name:\tqemu\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n"));
        assert!(!has_roots_ids("Uid:\t1000\t0\t0\t0\n"));
        assert!(!has_roots_ids("Uid:\t0\n"));
        assert!(!has_roots_ids("Name:\tUid:\n"));
    }
}
