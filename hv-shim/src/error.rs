use std::{io, time::SystemTime};

/// What can go wrong between us and a hypervisor. Each says what failed, on what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// Users without privileges may not see the machine.
    #[error(
        "this user may not sample the machine: run as root, or allow it with `setcap \
         cap_perfmon,cap_bpf,cap_sys_ptrace,cap_syslog,cap_dac_read_search+ep` on the program{}", setting(.paranoid)
    )]
    PerfForbidden {
        /// What `kernel.perf_event_paranoid` is set to, if the kernel has it.
        paranoid: Option<i32>,
    },
    /// Every CPU takes some descriptors.
    #[error("CPU {cpu} can't be sampled: this process may open too few files (ulimit -n)")]
    OpenFiles {
        /// The first for which there was none.
        cpu: u32,
    },
    /// Buffers are locked in memory.
    #[error(
        "CPU {cpu} can't be sampled: this user may lock too little memory for buffers (ulimit -l, sysctl \
         kernel.perf_event_mlock_kb)"
    )]
    LockedMemory {
        /// The first for which there was none.
        cpu: u32,
    },
    /// A kernel without `perf_event_open`, or a sandbox that hides it.
    #[error("this kernel has no perf events (CONFIG_PERF_EVENTS, or a sandbox forbids perf_event_open)")]
    NoPerfEvents,
    /// The kernel's door is missing.
    #[error("/dev/xen/privcmd is missing: load the kernel module xen-privcmd (modprobe xen-privcmd)")]
    NoPrivcmd,
    /// The door is closed to this user.
    #[error("/dev/xen/privcmd may not be opened: run as root")]
    NotPrivileged,
    /// This domain may not control the hypervisor.
    #[error("this domain may not control Xen: run in dom0")]
    NotControlDomain,
    /// A control interface that is newer or older than what is known.
    #[error("this Xen's control interface is of no version that is known here (4.14 and later are)")]
    UnknownInterface,
    /// Built without, or switched off.
    #[error("this Xen takes no livepatches (built without CONFIG_LIVEPATCH, or an XSM policy forbids it)")]
    NoLivepatch,
    /// Xen's identity can't be pinned.
    #[error("this Xen's build id has {bytes} bytes instead of 20: a livepatch can't be bound to it")]
    BuildId {
        /// How long it is.
        bytes: usize,
    },
    /// A function or variable that the shim needs.
    #[error("this Xen has no symbol {0}: the shim does not know how to sample it")]
    MissingSymbol(String),
    /// Two functions or variables of one name.
    #[error("this Xen has more than one symbol {0}: the shim can't tell which one it needs")]
    AmbiguousSymbol(String),
    /// The probes inside of the hypervisor.
    #[error("the shim refused to run in this Xen: {reason}")]
    Refused {
        /// The shim's own words.
        reason: String,
    },
    /// Somebody else is at it.
    #[error("the shim is in use by process {pid}, since {}: stop that one first", seconds_ago(.since))]
    InUse {
        /// Whose.
        pid: u32,
        /// Since when.
        since: SystemTime,
    },
    /// Xen's loader.
    #[error("Xen refused to {action} the shim: {error}{hint}")]
    Livepatch {
        /// `upload`, `apply`, `revert`, `unload`.
        action: &'static str,
        /// Its error code.
        error: io::Error,
        /// What to do, if that is known.
        hint: &'static str,
    },
    /// What the shim shows is not what it should be.
    #[error("the shim's pages do not look as expected: {what}")]
    Contract {
        /// What does not.
        what: String,
    },
    /// Events that can't be sampled.
    #[error(transparent)]
    Event(#[from] crate::events::EventError),
    /// A request that can't be served.
    #[error("{0}")]
    Request(String),
    /// Anything that the kernel or the hypervisor refused.
    #[error("{what} failed: {error}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
}

impl ShimError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { what: what.into(), error }
    }
}

fn setting(paranoid: &Option<i32>) -> String {
    match paranoid {
        None => String::new(),
        Some(value @ ..=2) => format!(" (kernel.perf_event_paranoid is {value})"),
        // Debian's own levels.
        Some(value) => {
            format!(
                " and `sysctl kernel.perf_event_paranoid=2` (it is {value}, for which cap_perfmon is not enough)"
            )
        }
    }
}

fn seconds_ago(since: &SystemTime) -> String {
    match SystemTime::now().duration_since(*since) {
        Ok(passed) => format!("{} s ago", passed.as_secs()),
        Err(_) => "a time in the future".into(),
    }
}
