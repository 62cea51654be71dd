//! The sampling core: all that the shim decides, free of the hypervisor that it runs in.
//!
//! Comes in: times, and words of the hypervisor's memory through [`Machine`]. Goes out: when to sample
//! ([`Schedule`]), what was interrupted ([`interrupted::sample`], as [`abi::record::Sample`]), and where this
//! hypervisor keeps what both need ([`probe::layout`]), or why it can't be told. Not here: hooks, allocation and
//! interrupt entry, which are `xen-payload`'s; the ring, which is [`abi::ring`]'s.
//!
//! Everything here runs and is tested on the host too; nothing allocates, locks or panics.
#![no_std]

mod budget;
pub mod calls;
pub mod capture;
pub mod interrupted;
pub mod pmu;
pub mod probe;
mod random;
mod schedule;
pub mod walk;

pub use budget::Budget;
pub use schedule::{Schedule, Verdict};

/// What the core needs of the machine that it runs on.
pub trait Machine {
    /// The 64-bit word at a virtual address of the hypervisor. The address need not be aligned.
    fn read(&self, address: u64) -> u64;

    /// CR3 of this CPU.
    fn cr3(&self) -> u64;

    /// A field of the current virtual machine control structure (Intel); none where there is none.
    fn vmread(&self, field: u64) -> Option<u64>;

    /// Where the hypervisor has a machine address in its map of all memory; none for what is no memory.
    fn direct_map(&self, _machine: u64) -> Option<u64> {
        None
    }

    /// The 32-bit word at an address.
    fn read32(&self, address: u64) -> u32 {
        self.read(address) as u32
    }

    /// The 16-bit word at an address.
    fn read16(&self, address: u64) -> u16 {
        self.read(address) as u16
    }
}
