//! What was counted, and how the samples were taken.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An index into the recording's list of [`Event`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventId(pub u16);

/// One thing that was sampled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What users call it: `cpu-clock`, `cycles`.
    pub name: String,
    /// What a sample's weight counts: `ns`, `cycles`.
    pub unit: String,
    /// How the samples were taken.
    pub source: Source,
    /// The rate asked for, per CPU, in hertz.
    pub rate_hz: f64,
}

/// How samples were taken. Each way has a bias, which every report states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The local APIC timer's interrupt, at randomized periods.
    Timer,
    /// A counter of the processor's performance-monitoring unit.
    Pmu,
    /// The host kernel's clock (`cpu-clock` of `perf_event_open`), at periods that are redrawn all the time.
    CpuClock,
    /// Xen's own profiler of old (xenoprof): overflows of the processor's counters, written down by Xen.
    Xenoprof,
    /// dom0 reads the registers of the vCPUs that run, at randomized periods.
    VcpuPoll,
    /// The hypervisor's tracing tells of every VM exit: nothing is sampled. No recording says so of an event.
    ExitTrace,
}

impl Source {
    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timer => "timer",
            Self::Pmu => "pmu",
            Self::CpuClock => "cpu-clock",
            Self::Xenoprof => "xenoprof",
            Self::VcpuPoll => "vcpu-poll",
            Self::ExitTrace => "exit-trace",
        }
    }

    /// What this way of sampling cannot see, in a sentence for the user.
    pub fn bias(self) -> &'static str {
        match self {
            Self::Timer => {
                "interrupt-driven: code that runs with interrupts off is charged to the instruction that turns them on; \
                 a sample that is overdue when its CPU goes idle is charged to the vCPU that ran last, as the \
                 function xenoscope_overdue: its place is not known"
            }
            Self::Pmu => {
                "counter overflow: the instruction shown is a few behind the one that overflowed; nothing is counted \
                 while the processor halts"
            }
            Self::CpuClock => {
                "interrupt-driven: code that runs with interrupts off is charged to the instruction that turns them on, \
                 and what the host does with them off after a guest's exit to the guest's own instruction"
            }
            Self::Xenoprof => {
                "counter overflow, without time, CPU and page tables: a sample's time is when it was read, and its CPU \
                 where its vCPU was then; what the hypervisor does on nobody's behalf is not seen; on AMD processors the \
                 addresses in HVM and PVH guests are mostly those of an earlier exit, and not to be relied on"
            }
            Self::VcpuPoll => {
                "read from outside: the hypervisor's own time is not seen, and is charged to the guest's instruction \
                 that led into it; vCPUs that run only while dom0's reading vCPU does not (on its own CPU, for one) are \
                 hardly seen, and that vCPU never; each sample stands for the CPU time that its vCPU had since the one \
                 before, and pauses it for a moment"
            }
            Self::ExitTrace => {
                "every exit counts, with the time until its guest was entered again: what else ran on that CPU meanwhile is \
                 in it; those in which the guest had nothing to do are left out"
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
