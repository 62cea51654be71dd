//! What `/proc/PID/stat` says of a process or a thread of the system that this program runs on, dom0 or the host (proc(5)).

use std::fs;

/// A process or a thread: to the kernel, both are tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    /// Its name: anybody may call his own process what he likes.
    pub(crate) name: String,
    /// When it was started, in the kernel's ticks: numbers are handed out again.
    pub(crate) started: u64,
    /// How long it has run a guest, in the same ticks.
    pub(crate) guest_ticks: u64,
    state: u8,
    flags: u32,
}

impl Task {
    pub(crate) fn of_process(pid: u32) -> Option<Self> {
        Self::read(&format!("/proc/{pid}/stat"))
    }

    pub(crate) fn of_thread(pid: u32, tid: u32) -> Option<Self> {
        Self::read(&format!("/proc/{pid}/task/{tid}/stat"))
    }

    fn read(path: &str) -> Option<Self> {
        Self::parse(&String::from_utf8_lossy(&fs::read(path).ok()?))
    }

    /// `PID (NAME) STATE PARENT GROUP SESSION TERMINAL GROUP FLAGS …`; a name may have whatever characters.
    fn parse(stat: &str) -> Option<Self> {
        let (before, after) = stat.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        // By the manual's numbers, of which the first field behind the name has the third.
        let field = |number: usize| after.split_ascii_whitespace().nth(number - 3);
        Some(Self {
            name: name.to_owned(),
            state: *field(3)?.as_bytes().first()?,
            flags: field(9)?.parse().ok()?,
            started: field(22)?.parse().ok()?,
            guest_ticks: field(43).and_then(|ticks| ticks.parse().ok()).unwrap_or_default(),
        })
    }

    /// Whether it is dead, be it that nobody has asked for its end yet.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    /// Whether it is one of the kernel's own processes, which only the kernel starts and names.
    pub(crate) fn is_kernels(&self) -> bool {
        /// `PF_KTHREAD` (include/linux/sched.h).
        const KERNEL_THREAD: u32 = 0x0020_0000;
        self.flags & KERNEL_THREAD != 0
    }

    /// Whether it is a thread that the kernel has made for itself in a process of somebody else's.
    pub(crate) fn is_user_worker(&self) -> bool {
        /// `PF_USER_WORKER` (include/linux/sched.h).
        const USER_WORKER: u32 = 0x0000_4000;
        self.flags & USER_WORKER != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernel_has_threads_of_the_kernel() {
        let kernels = "76 (1.xvda-0) S 2 0 0 0 -1 2129984 0 0 0 0 0 9 0 0 20 0 1 0 5120 0 0 0 0";
        let thread = Task::parse(kernels).unwrap();
        assert_eq!((thread.name.as_str(), thread.is_kernels(), thread.started), ("1.xvda-0", true, 5120));
        assert!(!thread.is_dead() && !thread.is_user_worker());
        // A process may call itself what it likes.
        let forged = "9 (1.xvda-0) S 2 (x) R 1 9 9 0 -1 4194560 0 0 0 0 0 9 0 0 20 0 1 0 77 0 0 0 0";
        let forged = Task::parse(forged).unwrap();
        assert_eq!(
            (forged.name.as_str(), forged.is_kernels(), forged.started),
            ("1.xvda-0) S 2 (x", false, 77)
        );
        assert_eq!(Task::parse("9 (a) S 1"), None);
        let this = Task::of_process(std::process::id()).unwrap();
        assert!(!this.is_kernels() && !this.is_dead() && this.started > 0);
        assert_eq!(Task::of_process(u32::MAX), None);
    }

    #[test]
    fn vcpus_threads_and_kvms_own_are_told_apart() {
        let of = |state: &str, flags: u32, guest: &str| {
            // The fields 10 to 42.
            let between = format!("{} 4711 {}", ["0"; 12].join(" "), ["0"; 20].join(" "));
            Task::parse(&format!("812 (CPU 0/KVM) {state} 1 8 8 0 -1 {flags} {between} {guest} 0")).unwrap()
        };
        assert_eq!(of("R", 0x0040_0040, "333").started, 4711);
        assert_eq!(of("R", 0x0040_0040, "333").guest_ticks, 333);
        assert!(of("S", 0x0040_4040, "0").is_user_worker());
        assert!(of("Z", 0x0040_0044, "0").is_dead());
    }
}
