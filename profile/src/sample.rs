//! One sample: who ran where, and on whose behalf.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ChainId, DomainId, EventId, PhysCpu, ProcessId, VcpuId};

/// Nanoseconds of the hypervisor's clock (Xen: since it booted; KVM: the host's `CLOCK_MONOTONIC`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

/// A sample, named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was taken.
    pub time: Time,
    /// Where.
    pub cpu: PhysCpu,
    /// The virtual CPU that was current; none where the hypervisor worked for itself.
    pub vcpu: Option<VcpuId>,
    /// The domain on whose behalf the code ran; none for the hypervisor's own work.
    pub charged_to: Option<DomainId>,
    /// The process that was current in the domain whose code ran, where that is known.
    pub process: Option<ProcessId>,
    /// What a domain's row splits into.
    pub mode: Mode,
    /// Which of the recording's events this is a sample of.
    pub event: EventId,
    /// How many of the event's units this sample stands for.
    pub weight: u64,
    /// Its number among the samples taken on [`Self::cpu`]: a gap is a sample that was filtered or lost.
    pub sequence: u64,
    /// The innermost frame, in the recording's tree of call chains.
    pub chain: ChainId,
}

/// Whose code ran, and so whose symbols name the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Space {
    /// The code of a hypervisor that is no domain's kernel (Xen).
    Hypervisor,
    /// A domain's kernel.
    Kernel(DomainId),
    /// A process of a domain.
    User(DomainId, ProcessId),
}

/// What a domain's row splits into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The hypervisor's code on the domain's behalf.
    Hypervisor,
    /// The domain's kernel.
    Kernel,
    /// The domain's processes.
    User,
    /// Code of the host or of dom0 on the domain's behalf.
    Backend,
}

impl Mode {
    /// All modes, in the order in which reports show them.
    pub const ALL: [Self; 4] = [Self::Hypervisor, Self::Kernel, Self::User, Self::Backend];

    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hypervisor => "hypervisor",
            Self::Kernel => "kernel",
            Self::User => "user",
            Self::Backend => "backend",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
