//! The contract between the hypervisor's side and dom0's: nothing else crosses.
//!
//! Comes in and goes out: 64-bit words in pages that both sides see. This crate says where each word stands
//! ([`control`], [`ring`]), what a record looks like ([`record`], [`section`]) and in which order the words are written and
//! read. Not here: who allocates or maps the pages (`xen-payload`, `hv-shim`), and what takes the samples
//! (`sampler`).
//!
//! Who may write what is part of the contract. dom0 maps everything read-only but two kinds of page: one
//! [`ring::ConsumerPage`] a CPU and one [`control::LeasePage`]. The hypervisor's side keeps private copies of every
//! size and position and checks the few words that dom0 writes, so the worst that dom0 can do is to lose its own
//! samples. dom0's side in turn checks every length before it uses it.
#![cfg_attr(not(loom), no_std)]

pub mod config;
pub mod control;
pub mod pmu;
pub mod record;
pub mod ring;
pub mod section;
mod sync;

pub use sync::{AtomicU64, Ordering};

/// The contract's version. Fields and record sections may be added under one version; a change of meaning takes a
/// new one, and neither side works with a version that it does not know.
pub const VERSION: u64 = 1;

/// Bytes in a page. Everything that is shared comes in single pages: aged hosts have no larger runs of free memory.
pub const PAGE_SIZE: usize = 4096;

/// Words in a page.
pub const PAGE_WORDS: usize = PAGE_SIZE / 8;
