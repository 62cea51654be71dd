//! What can be in the way of looking into a guest.

use profile::GuestVirtual;

use crate::{budget::Exhausted, memory::Missing};

/// Why an address could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The guest's page tables lead nowhere.
    #[error("the guest has nothing mapped at {0}")]
    NotMapped(GuestVirtual),
    /// They lead to an address without memory.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The look's budget is spent.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

/// Why a kernel was not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Under none of the readings of the root is anything mapped where Linux has its kernel. The guest may run
    /// something else, or its firmware; or this is the root of a process of a Xen PV domain, which maps no kernel.
    #[error("no kernel of Linux is mapped by the page tables at {0:#x}")]
    NotLinux(u64),
    /// Something is mapped there, but nothing in it says `Linux version`.
    #[error("what is mapped where kernels are has no `Linux version` in it")]
    NoBanner,
    /// The kernel's table of symbols was not found or contradicts itself.
    #[error("{banner:?} is there, but its table of symbols (kallsyms) is of no known shape or damaged")]
    NoSymbols {
        /// What the kernel says it is: untrusted text.
        banner: String,
    },
    /// Memory could not be read, or the budget is spent.
    #[error("cannot look for the guest's kernel: {0}")]
    Read(#[from] ReadError),
}

impl From<Exhausted> for KernelError {
    fn from(exhausted: Exhausted) -> Self {
        Self::Read(exhausted.into())
    }
}

/// Why the running kernel's structures are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// It was built without type information, or it could not be read.
    #[error(
        "this kernel has no type information in memory (BTF, CONFIG_DEBUG_INFO_BTF): its own functions have names, but \
         its modules and processes can't be told"
    )]
    NoBtf,
    /// Its type information contradicts itself.
    #[error("the type information (BTF) of this kernel is damaged: {0}")]
    DamagedBtf(&'static str),
    /// It has no such structure.
    #[error("this kernel has no structure {0}")]
    NoStructure(&'static str),
    /// It has no such structure, or one without such a member: a kernel of a version that is not known here.
    #[error("this kernel has no {structure}.{member}")]
    NoMember {
        /// The structure, as its source has it.
        structure: &'static str,
        /// The member; a dotted path where it lies in inner structures.
        member: &'static str,
    },
    /// It has no such constant.
    #[error("this kernel has no {0}")]
    NoConstant(&'static str),
}

/// Why something in the guest could not be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// The structures that hold it are not known.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The kernel has no symbol for the place where to begin.
    #[error("this kernel has no symbol `{0}`")]
    NoSymbol(&'static str),
    /// Memory on the way could not be read.
    #[error("cannot read {what} of the guest: {problem}")]
    Read {
        /// What was being read.
        what: &'static str,
        /// What was in the way.
        problem: ReadError,
    },
    /// It contradicts itself: the guest was changing it at this moment, or it was forged.
    #[error("{what} of the guest is damaged: {why}")]
    Damaged {
        /// What was being read.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The budget is spent.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}
