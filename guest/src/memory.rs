//! A guest's memory, wherever it is: in a running domain, in a virtual machine monitor, in a saved image.

use std::fmt;

/// An address as the guest's page tables hold it: where one of its bytes really is.
///
/// For a guest with hardware page tables of its own this is a guest-physical address. The page tables of a Xen PV
/// domain hold machine frames, so that for one of those it is a machine address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestPhysical(pub u64);

impl GuestPhysical {
    /// The address `bytes` further on. It comes from the guest: past the end it begins again.
    pub fn plus(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

impl fmt::Debug for GuestPhysical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestPhysical({:#x})", self.0)
    }
}

impl fmt::Display for GuestPhysical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What a guest's page tables hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// Frames as the guest itself numbers them (KVM, Xen HVM and PVH).
    Guest,
    /// Frames of the machine (Xen PV). The guest's own numbers mean nothing to the memory then; they are found through
    /// its page tables.
    Machine,
}

/// There is nothing at an address, or nothing that may be read: a hole, a device, memory that was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest has no memory at {0}")]
pub struct Missing(pub GuestPhysical);

/// Reads a guest's memory.
///
/// The guest may run meanwhile, so that two reads need not fit each other; whatever reads through this trait copes.
pub trait GuestMemory {
    /// Fills `bytes` with what begins at `address`: all of it, or it is missing. What is missing is never shown as
    /// zeros.
    fn read(&self, address: GuestPhysical, bytes: &mut [u8]) -> Result<(), Missing>;

    /// Tells which pages will be read next, so that they can be got together. What of them is missing is missing when it
    /// is read.
    fn announce(&self, _pages: &[GuestPhysical]) {}

    /// Tells which pages will not be read again, so that they need not be kept.
    fn release(&self, _pages: &[GuestPhysical]) {}

    /// What the guest's page tables hold, and so what `read` takes for addresses.
    fn frames(&self) -> Frames {
        Frames::Guest
    }
}
