//! Addresses, a type per space: a number alone does not say whose page tables translate it.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// A virtual address of the hypervisor's own image.
    HypervisorVirtual
}
address! {
    /// A virtual address as the code of a domain uses it (dom0 included).
    GuestVirtual
}
address! {
    /// A byte offset from the start of an image (an ELF file, a kernel) as linked.
    ImageOffset
}
address! {
    /// The root of a page-table tree as the processor holds it (CR3 without its control bits): tells the processes
    /// of one domain apart as long as they live.
    AddressSpaceRoot
}

/// An address of code, with what it points at.
///
/// An instruction pointer is the instruction that was interrupted. A return address is the instruction *after* the
/// call: looked up as it is, a call that ends its function would be named by the next function in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CodeAddress {
    /// The interrupted instruction.
    InstructionPointer(u64),
    /// Where a call returns to.
    ReturnAddress(u64),
}

impl CodeAddress {
    /// The address as the processor or the stack held it.
    pub fn raw(self) -> u64 {
        match self {
            Self::InstructionPointer(address) | Self::ReturnAddress(address) => address,
        }
    }

    /// An address inside the instruction that was executing: what symbol tables are asked for.
    pub fn for_lookup(self) -> u64 {
        match self {
            Self::InstructionPointer(address) => address,
            Self::ReturnAddress(address) => address.wrapping_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_addresses_are_looked_up_inside_the_call() {
        assert_eq!(CodeAddress::InstructionPointer(0x1000).for_lookup(), 0x1000);
        assert_eq!(CodeAddress::ReturnAddress(0x1000).for_lookup(), 0xfff);
        assert_eq!(CodeAddress::ReturnAddress(0).for_lookup(), u64::MAX);
    }
}
