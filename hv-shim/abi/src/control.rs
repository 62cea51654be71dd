//! How dom0 finds the rings, and how it tells the hypervisor's side that it still lives.
//!
//! ```text
//! payload's metadata: "… control=<MFN>"
//!   ControlPage ─ list ──▶ ListPage ─ next ──▶ ListPage …
//!      │                     └ a RingDirectory's MFN each ─▶ header, consumer page, data pages
//!      └ lease ──▶ LeasePage
//! ```

use crate::{AtomicU64, PAGE_WORDS};

/// `"XSCOPE01"` as the first word of the control page.
pub const MAGIC: u64 = u64::from_le_bytes(*b"XSCOPE01");

/// The key in the payload's metadata before the control page's machine frame number, in hexadecimal.
pub const METADATA_CONTROL: &str = "control=";

/// The key in the payload's metadata before the reason why it refused to run; the reason ends the metadata.
pub const METADATA_REFUSED: &str = "refused=";

/// What the payload's metadata begins with once it is out of effect and has given everything back: only then may it
/// be unloaded.
pub const METADATA_REVERTED: &str = "reverted";

/// The root of all that is shared; read-only to dom0.
#[repr(C)]
pub struct ControlPage {
    /// [`MAGIC`], written last.
    pub magic: AtomicU64,
    /// [`crate::VERSION`].
    pub version: AtomicU64,
    /// How many rings there are: one for each CPU, online or not.
    pub rings: AtomicU64,
    /// The first list page's machine frame number.
    pub list: AtomicU64,
    /// The lease page's machine frame number.
    pub lease: AtomicU64,
    /// The unit of every time in this contract: see [`CLOCK_XEN_SYSTEM_TIME`].
    pub clock: AtomicU64,
    /// The mean sampling period in nanoseconds.
    pub period_ns: AtomicU64,
    /// Where the payload's code begins in the hypervisor's address space.
    pub text: AtomicU64,
    /// When sampling began.
    pub started: AtomicU64,
    /// How the mode of paravirtualized vCPUs is told: [`PV_MODE_BY_FLAG`] or [`PV_MODE_BY_ADDRESS`].
    pub pv_mode: AtomicU64,
    /// Why the counters don't serve ([`crate::pmu::Unusable`]); 0 where they do.
    pub pmu: AtomicU64,
    /// Where they do: how many slices counting goes round in, in the lowest byte, then, a byte each, in how many of
    /// them each event is.
    pub slices: [AtomicU64; 2],
    /// What came of the wish for callers: [`CALL_GRAPH_UNWANTED`], [`CALL_GRAPH_SERVES`] or [`CALL_GRAPH_NO_MEMORY`].
    pub call_graph: AtomicU64,
}

/// Nothing is captured with samples, as was asked.
pub const CALL_GRAPH_UNWANTED: u64 = 0;
/// What was asked for is captured.
pub const CALL_GRAPH_SERVES: u64 = 1;
/// Nothing is captured: guests' memory can't be told from other memory in this build.
pub const CALL_GRAPH_NO_MEMORY: u64 = 2;

/// Times are nanoseconds of Xen's system time: since it booted, the same on every CPU.
pub const CLOCK_XEN_SYSTEM_TIME: u64 = 1;

/// A paravirtualized vCPU's mode is Xen's own flag: exact.
pub const PV_MODE_BY_FLAG: u64 = 1;
/// A paravirtualized vCPU is taken to be in its kernel where the address is in the upper half: Xen's flag was not
/// found in this build.
pub const PV_MODE_BY_ADDRESS: u64 = 2;

/// How many ring directories a list page names; the word behind them is the next list page's machine frame number,
/// 0 in the last one.
pub const LIST_ENTRIES: usize = PAGE_WORDS - 1;

/// Words of a ring's directory, read-only to dom0.
pub mod directory {
    /// The [`RingHeader`](crate::ring::RingHeader)'s machine frame number.
    pub const HEADER: usize = 0;
    /// The [`ConsumerPage`](crate::ring::ConsumerPage)'s machine frame number.
    pub const CONSUMER: usize = 1;
    /// How many data pages there are: a power of two, at most [`MAX_DATA_PAGES`].
    pub const DATA_PAGES: usize = 2;
    /// The first of the data pages' machine frame numbers.
    pub const DATA: usize = 8;
    /// The most data pages a ring may have.
    pub const MAX_DATA_PAGES: usize = 256;
}

/// What dom0 writes for all CPUs. The hypervisor's side believes none of it: it only compares.
#[repr(C)]
pub struct LeasePage {
    /// Any change renews the lease; dom0 adds one.
    pub renewed: AtomicU64,
    /// [`COMMAND_SAMPLE`] or [`COMMAND_QUIET`].
    pub command: AtomicU64,
    /// The process that collects, for whoever finds the shim loaded.
    pub owner_pid: AtomicU64,
    /// When that process began, in seconds of Unix time.
    pub owner_since: AtomicU64,
}

/// Take samples.
pub const COMMAND_SAMPLE: u64 = 0;
/// Take none until told otherwise: the shim is harmless without being unloaded.
pub const COMMAND_QUIET: u64 = 1;
