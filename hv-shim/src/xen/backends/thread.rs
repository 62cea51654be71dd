//! What `/proc` and its name say of a thread of dom0's.

use std::fs;

/// A thread, by `/proc/PID/stat` (proc(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Thread {
    /// Its name: anybody may call his own process what he likes.
    pub(super) name: String,
    /// Whether it is one of the kernel's own, which only the kernel starts and names.
    pub(super) is_kernels: bool,
    /// When it was started, in the kernel's ticks: numbers are handed out again.
    pub(super) started: u64,
}

impl Thread {
    pub(super) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&stat))
    }

    /// `PID (NAME) STATE PARENT GROUP SESSION TERMINAL GROUP FLAGS …`; a name may have whatever characters.
    fn parse(stat: &str) -> Option<Self> {
        /// `PF_KTHREAD` (include/linux/sched.h).
        const OF_THE_KERNEL: u32 = 0x0020_0000;
        let (before, after) = stat.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        let fields: Vec<&str> = after.split_ascii_whitespace().collect();
        // The first field behind the name is the third.
        let field = |number: usize| fields.get(number - 3);
        let flags: u32 = field(9)?.parse().ok()?;
        Some(Self {
            name: name.to_owned(),
            is_kernels: flags & OF_THE_KERNEL != 0,
            started: field(22)?.parse().ok()?,
        })
    }
}

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
    fn only_the_kernel_has_threads_of_the_kernel() {
        let kernels = "76 (1.xvda-0) S 2 0 0 0 -1 2129984 0 0 0 0 0 9 0 0 20 0 1 0 5120 0 0 0 0";
        let thread = Thread { name: "1.xvda-0".into(), is_kernels: true, started: 5120 };
        assert_eq!(Thread::parse(kernels), Some(thread));
        // A process may call itself what it likes.
        let forged = "9 (1.xvda-0) S 2 (x) R 1 9 9 0 -1 4194560 0 0 0 0 0 9 0 0 20 0 1 0 77 0 0 0 0";
        let forged = Thread::parse(forged).unwrap();
        assert_eq!(
            (forged.name.as_str(), forged.is_kernels, forged.started),
            ("1.xvda-0) S 2 (x", false, 77)
        );
        assert_eq!(Thread::parse("9 (a) S 1"), None);
        let this = Thread::of(std::process::id()).unwrap();
        assert!(!this.is_kernels && this.started > 0);
    }

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
