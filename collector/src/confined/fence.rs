//! What a process that parses guests' bytes gives up: files, network, other processes, more memory than it may need.
//!
//! Three fences, each of which would do for most: limits on resources (setrlimit(2)), no access to any file
//! (Landlock, where the kernel has it), and no system calls but the few that computing needs (seccomp).

use std::{collections::BTreeMap, io};

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
use rustix::process::{Resource, Rlimit, Signal, nice, set_parent_process_death_signal, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// Address space: a look's budget of memory is half of it, and what it copies at once much less.
const MEMORY: u64 = 1 << 30;

/// How much this gives way to whoever samples: names can wait, the rings that samples stand in can't.
const NICE: i32 = 5;

/// What computing, allocating, ending, and a socket that is open already take.
const SYSTEM_CALLS: [i64; 26] = [
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_sendto,
    libc::SYS_close,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Closes the fences around this process, for good.
pub(super) fn close() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    nice(NICE)?;
    // Older kernels have no Landlock. The filter below leaves no way to open anything there, either.
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(|rules| rules.create())
        .and_then(|rules| rules.restrict_self())
        .map_err(io::Error::other)?;
    let limits = [
        (Resource::As, MEMORY),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, 0),
        (Resource::Nproc, 0),
    ];
    for (resource, most) in limits {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    seccompiler::apply_filter(&filter()?).map_err(io::Error::other)
}

/// Kills the process for every other system call.
fn filter() -> io::Result<BpfProgram> {
    let allowed: BTreeMap<i64, _> = SYSTEM_CALLS.into_iter().map(|call| (call, Vec::new())).collect();
    let filter =
        SeccompFilter::new(allowed, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64);
    filter.and_then(TryInto::try_into).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::{
        env, fs, hint, net,
        os::unix::process::ExitStatusExt,
        process::{Command, Stdio},
    };

    use super::*;

    const DEED: &str = "XENOSCOPE_TEST_DEED";

    #[test]
    #[ignore = "started by the test beside it, with something to do"]
    fn does_behind_the_fence_what_it_is_told() {
        let deed = env::var(DEED).unwrap();
        close().unwrap();
        match &*deed {
            "compute" => drop(hint::black_box(vec![1_u8; 100 << 20])),
            "read a file" => drop(fs::read("/etc/hostname")),
            "list a folder" => drop(fs::read_dir("/proc")),
            "connect" => drop(net::TcpStream::connect("127.0.0.1:9")),
            "start a program" => drop(Command::new("true").status()),
            "take memory" => drop(hint::black_box(vec![1_u8; 2 << 30])),
            other => panic!("{other}"),
        }
    }

    fn signal_after(deed: &str) -> Option<i32> {
        let this = "confined::fence::tests::does_behind_the_fence_what_it_is_told";
        let mut child = Command::new(env::current_exe().unwrap());
        child
            .args(["--exact", this, "--ignored"])
            .env(DEED, deed)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        child.status().unwrap().signal()
    }

    #[test]
    fn whoever_is_behind_it_can_compute_and_nothing_else() {
        assert_eq!(signal_after("compute"), None);
        for deed in ["read a file", "list a folder", "connect", "start a program"] {
            assert_eq!(signal_after(deed), Some(libc::SIGSYS), "{deed}");
        }
        // It can't even write down why.
        assert!(matches!(signal_after("take memory"), Some(libc::SIGABRT | libc::SIGSYS)));
    }
}
