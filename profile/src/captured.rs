//! What is copied of a thread when a sample is taken, so that its callers can be found later.

use crate::CodeAddress;

/// The registers of x86-64 that finding a caller needs: where the code and its stack are, and what a callee has to
/// preserve (System V psABI, figure 3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The instruction pointer.
    pub ip: u64,
    /// The stack pointer.
    pub sp: u64,
    /// The frame pointer, where code keeps one.
    pub bp: u64,
    /// Preserved by callees.
    pub bx: u64,
    /// Preserved by callees.
    pub r12: u64,
    /// Preserved by callees.
    pub r13: u64,
    /// Preserved by callees.
    pub r14: u64,
    /// Preserved by callees.
    pub r15: u64,
}

/// One stretch of a sample's execution, in one address space on one stack: Xen's code, a kernel's, a process's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// What there was when it was left.
    Copied {
        /// Its registers.
        registers: Registers,
        /// Its stack from the stack pointer upwards, as much of it as could be copied.
        stack: Vec<u8>,
    },
    /// The frames, innermost first, as whoever took the sample found them himself.
    Walked(Vec<CodeAddress>),
}
