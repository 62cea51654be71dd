//! What was taken, and what was not: counts with a source and a cause, data like any other.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{DomainId, PhysCpu, Time, VcpuId};

/// Why a sample that was due is not in the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossCause {
    /// The CPU's ring was full: the collector did not keep up.
    RingFull,
    /// The sampling interrupt came while one was being handled.
    Nested,
    /// The collector's side of the ring was damaged, so the producer refused to write.
    RingDamaged,
    /// A record that the collector could not read.
    Unreadable,
    /// A counter's interrupt was masked or swallowed by somebody else, or came while the counters were being looked
    /// after.
    Masked,
}

impl LossCause {
    /// All causes.
    pub const ALL: [Self; 5] =
        [Self::RingFull, Self::Nested, Self::RingDamaged, Self::Unreadable, Self::Masked];

    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RingFull => "ring-full",
            Self::Nested => "nested",
            Self::RingDamaged => "ring-damaged",
            Self::Unreadable => "unreadable",
            Self::Masked => "masked",
        }
    }
}

impl fmt::Display for LossCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One CPU's books since sampling began. They balance: `taken = written + filtered + lost`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuAccount {
    /// Samples that were due and attempted.
    pub taken: u64,
    /// Samples that reached the recording.
    pub written: u64,
    /// Samples left out because the user asked for it.
    pub filtered: u64,
    /// Samples lost, by cause.
    pub lost: BTreeMap<LossCause, u64>,
    /// Nanoseconds in which nothing was due because the sampler was silent: no collector renewed the shim's lease, or
    /// the host's kernel throttled.
    pub quiet_ns: u64,
    /// Nanoseconds in which counters were silent, because somebody else had masked or stopped them.
    pub masked_ns: u64,
    /// NMIs that were not the shim's, and were passed on.
    pub foreign: u64,
    /// NMIs of the shim's own that had nothing left to show.
    pub late: u64,
    /// Nanoseconds that the CPU was awake while it was sampled; 0 where that is not known.
    pub awake_ns: u64,
    /// Nanoseconds of them that samples cost.
    pub own_ns: u64,
}

impl CpuAccount {
    /// Samples lost for whatever cause.
    pub fn lost_total(&self) -> u64 {
        self.lost.values().fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// Adds another account of the same CPU, from another time.
    pub fn add(&mut self, other: &Self) {
        let counts = [
            (&mut self.taken, other.taken),
            (&mut self.written, other.written),
            (&mut self.filtered, other.filtered),
            (&mut self.quiet_ns, other.quiet_ns),
            (&mut self.masked_ns, other.masked_ns),
            (&mut self.foreign, other.foreign),
            (&mut self.late, other.late),
            (&mut self.awake_ns, other.awake_ns),
            (&mut self.own_ns, other.own_ns),
        ];
        for (sum, count) in counts {
            *sum = sum.saturating_add(count);
        }
        for (&cause, &count) in &other.lost {
            let sum = self.lost.entry(cause).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// Whether every sample taken is accounted for.
    pub fn balances(&self) -> bool {
        let kept = self.written.checked_add(self.filtered);
        kept.and_then(|kept| kept.checked_add(self.lost_total())) == Some(self.taken)
    }
}

/// The CPU time that the hypervisor itself accounts to a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainTime {
    /// Whose.
    pub domain: DomainId,
    /// Since sampling began or the domain was born, in nanoseconds.
    pub cpu_ns: u64,
}

/// The books of the whole machine at one moment; a later snapshot replaces an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was made.
    pub time: Time,
    /// The same moment by the wall clock, in nanoseconds since 1970.
    pub unix_ns: u64,
    /// Every CPU's books.
    pub cpus: Vec<(PhysCpu, CpuAccount)>,
    /// Nanoseconds of CPU time in which no domain ran, of all CPUs since sampling began, by the hypervisor's account.
    pub idle_ns: u64,
    /// Every domain's CPU time, the dead ones' last known included.
    pub domains: Vec<DomainTime>,
}

/// What a vCPU did with its time, by the hypervisor's own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuTime {
    /// Which.
    pub vcpu: VcpuId,
    /// Nanoseconds in which it ran, the hypervisor's work for it included.
    pub running_ns: u64,
    /// Nanoseconds in which it would have run, but had no CPU: what guests call steal time.
    pub waiting_ns: u64,
    /// Nanoseconds in which it had nothing to run.
    pub blocked_ns: u64,
}

impl VcpuTime {
    /// Adds what it did at another time.
    pub fn add(&mut self, other: &Self) {
        self.running_ns = self.running_ns.saturating_add(other.running_ns);
        self.waiting_ns = self.waiting_ns.saturating_add(other.waiting_ns);
        self.blocked_ns = self.blocked_ns.saturating_add(other.blocked_ns);
    }
}

/// What all vCPUs did with their time since the recording began, or since they were there; a later one replaces an
/// earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuTimes {
    /// Up to when.
    pub time: Time,
    /// Each vCPU's, those of dead domains included.
    pub vcpus: Vec<VcpuTime>,
}

/// What it cost that vCPUs left their guests for one reason: VM exits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitCost {
    /// How often.
    pub count: u64,
    /// Nanoseconds from leaving the guest until it was entered again, of all of them.
    pub total_ns: u64,
    /// Of the longest.
    pub longest_ns: u64,
}

impl ExitCost {
    /// Adds others.
    pub fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
        self.longest_ns = self.longest_ns.max(other.longest_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_balance_only_when_every_sample_is_accounted_for() {
        let mut account = CpuAccount { taken: 10, written: 6, filtered: 1, ..CpuAccount::default() };
        assert!(!account.balances());
        account.lost.insert(LossCause::RingFull, 2);
        account.lost.insert(LossCause::Nested, 1);
        assert!(account.balances());
    }
}
