//! Kernel threads that serve a single guest. They are processes of their own, and their names say for whom they work.

use std::fs;

use crate::own_task::Task;

/// What such threads are called, up to the number of the thread that had them made: those of vhost, which became threads of
/// the monitor's own in Linux 6.4, and of KVM itself.
const NAMES: [&str; 3] = ["vhost-", "kvm-nx-lpage-recovery-", "kvm-pit/"];

/// The process that a process works for, if it is a kernel thread that serves one.
pub(super) fn served_by(pid: u32) -> Option<u32> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let thread = in_name(name.trim_end())?;
    // Whatever a process calls itself.
    if Task::of_process(pid)?.is_kernels() { process_of(thread) } else { None }
}

fn in_name(name: &str) -> Option<u32> {
    NAMES.iter().find_map(|start| name.strip_prefix(start))?.parse().ok()
}

/// The process that a thread is of.
fn process_of(thread: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread::Builder};

    use super::*;

    #[test]
    fn kernel_threads_are_told_by_their_names() {
        for (name, thread) in [
            ("vhost-812", Some(812)),
            ("kvm-nx-lpage-recovery-77", Some(77)),
            ("kvm-pit/5", Some(5)),
            ("vhost-", None),
            ("vhost-worker", None),
            ("kvm-nx-lpage-re", None),
            ("kworker/0:1", None),
        ] {
            assert_eq!(in_name(name), thread, "{name}");
        }
    }

    /// On Linux since 5.17, `comm` has kernel threads' names beyond their first fifteen characters.
    #[test]
    fn whoever_calls_himself_so_is_none() {
        let own = std::process::id();
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let named = Builder::new().name(format!("vhost-{own}")).spawn(move || {
            // SAFETY: gettid has no preconditions.
            tell.send(unsafe { libc::gettid() } as u32).unwrap();
            let _ = ended.recv();
        });
        let thread = told.recv().unwrap();
        let name = fs::read_to_string(format!("/proc/{thread}/comm")).unwrap();
        assert_eq!(in_name(name.trim_end()), Some(own));
        assert_eq!(served_by(thread), None);
        assert_eq!(process_of(thread), Some(own));
        drop(end);
        named.unwrap().join().unwrap();
    }
}
