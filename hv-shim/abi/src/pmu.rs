//! What dom0 asks of the performance counters, and what the hypervisor's side answers.

/// The most events in one session.
pub const MAX_EVENTS: usize = 8;

/// The longest period. Processors without full-width writes take 31 bits and a sign, and so do the others' aliases.
pub const LONGEST_PERIOD: u64 = (1 << 31) - 1;

/// The shortest period: below it a CPU would do little else than take samples.
pub const SHORTEST_PERIOD: u64 = 1_000;

/// The bits of [`EventConfig::selector`] that say what is counted: event 7:0 and 35:32, unit mask 15:8, edge 18,
/// inverse 23, counter mask 31:24 (AMD64 Architecture Programmer's Manual, volume 2, 13.2.1; Intel Software
/// Developer's Manual, volume 3, 20.2.1.1: the same layout but for 35:32).
pub const SELECTOR_BITS: u64 = 0xf_ff84_ffff;

/// The event select and unit mask of no event, which stand for Intel's reference cycles: those have a fixed counter
/// and no code.
pub const REFERENCE_CYCLES: u64 = 0x0300;

/// [`EventConfig::modes`]: samples in the hypervisor's code are wanted.
pub const MODE_HYPERVISOR: u64 = 1 << 0;
/// See [`MODE_HYPERVISOR`]: in kernels.
pub const MODE_KERNEL: u64 = 1 << 1;
/// See [`MODE_HYPERVISOR`]: in processes.
pub const MODE_USER: u64 = 1 << 2;
/// All of them.
pub const MODES: u64 = MODE_HYPERVISOR | MODE_KERNEL | MODE_USER;

/// One event.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventConfig {
    /// What is counted: [`SELECTOR_BITS`].
    pub selector: u64,
    /// The mean period in the event's units; where a rate is asked for, the first one.
    pub period: u64,
    /// The mean time between samples that the period is steered towards, in nanoseconds; 0 keeps the period.
    pub interval_ns: u64,
    /// In which modes samples are wanted: [`MODES`].
    pub modes: u64,
}

/// Check that the counters count, overflow and interrupt before they are believed.
pub const TRUST_AUTO: u64 = 0;
/// Believe them: in a machine that has none, whose interrupts are injected from outside.
pub const TRUST_ASSUME: u64 = 1;

/// Why the counters don't serve, and the timer does instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Unusable {
    /// Only the timer was asked for.
    NotAsked = 1,
    /// A processor that is not known here, or that has none.
    NoCounters = 2,
    /// Symbols that the way through the NMI needs.
    NoNmi = 3,
    /// Xen lends the counters to guests.
    Vpmu = 4,
    /// Xen's NMI watchdog uses a counter.
    Watchdog = 5,
    /// An xenoprof session is active.
    Xenoprof = 6,
    /// The local APIC's entry for counters is set up, and not by us.
    ApicInUse = 7,
    /// The local APIC's registers were not found.
    NoApic = 8,
    /// Others use so many that an event has none left.
    TooFewCounters = 9,
    /// The CPUs are not all of one kind.
    CpusDiffer = 10,
    /// They stand still.
    NotCounting = 11,
    /// They pass their end, and say nothing.
    NotOverflowing = 12,
    /// They overflow, and no interrupt comes.
    NotInterrupting = 13,
}

impl Unusable {
    const ALL: [Self; 13] = [
        Self::NotAsked,
        Self::NoCounters,
        Self::NoNmi,
        Self::Vpmu,
        Self::Watchdog,
        Self::Xenoprof,
        Self::ApicInUse,
        Self::NoApic,
        Self::TooFewCounters,
        Self::CpusDiffer,
        Self::NotCounting,
        Self::NotOverflowing,
        Self::NotInterrupting,
    ];

    /// The reason of a code; none for 0, which says that the counters serve, and for codes of a newer shim.
    pub fn of_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u64 == code)
    }

    /// As a phrase.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotAsked => "they were not asked for",
            Self::NoCounters => "this processor has none that are known here",
            Self::NoNmi => "this Xen lacks a symbol that their interrupts need",
            Self::Vpmu => "Xen lends them to guests (vpmu on its command line)",
            Self::Watchdog => "Xen's NMI watchdog uses one (watchdog on its command line)",
            Self::Xenoprof => "a xenoprof session is active",
            Self::ApicInUse => "somebody else has set up their interrupt",
            Self::NoApic => "the local APIC's registers were not found",
            Self::TooFewCounters => "others use so many that an event has none left",
            Self::CpusDiffer => "the CPUs do not all have the same ones",
            Self::NotCounting => "they do not count",
            Self::NotOverflowing => "they do not tell when they overflow",
            Self::NotInterrupting => "they overflow, but no interrupt comes",
        }
    }
}
