//! What is copied of a thread when a sample is taken, so that its callers can be found later.

use serde::{Deserialize, Serialize};

use crate::{CodeAddress, PhysCpu, Space};

/// The registers of x86-64 that finding a caller can need: where the code and its stack are, what a callee has to
/// preserve (System V psABI, figure 3.4), and the others, which some prologues keep the stack's place in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Known of the innermost frame only, as are those that follow; 0 where it is not.
    pub ax: u64,
    /// See `ax`.
    pub cx: u64,
    /// See `ax`.
    pub dx: u64,
    /// See `ax`.
    pub si: u64,
    /// See `ax`.
    pub di: u64,
    /// See `ax`.
    pub r8: u64,
    /// See `ax`.
    pub r9: u64,
    /// See `ax`.
    pub r10: u64,
    /// See `ax`.
    pub r11: u64,
}

/// A piece of a stack as it was when it was copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackPiece {
    /// The address of its first byte.
    pub address: u64,
    /// Its bytes: as many as could be copied before a page that is not there, or as were wanted.
    pub bytes: Vec<u8>,
}

impl StackPiece {
    /// The eight bytes at an address as a number, if all of them were copied.
    pub fn word(&self, address: u64) -> Option<u64> {
        let from = usize::try_from(address.checked_sub(self.address)?).ok()?;
        let bytes = self.bytes.get(from..from.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

/// One stretch of a sample's execution, in one address space: Xen's code, a kernel's, a process's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stretch {
    /// What there was when it was left.
    Copied {
        /// Its registers.
        registers: Registers,
        /// Its stacks, innermost first: a kernel's interrupts have one of their own. The first piece may begin below
        /// the stack pointer, where leaf functions may keep data.
        stacks: Vec<StackPiece>,
    },
    /// The frames, innermost first, as whoever took the sample found them himself.
    Walked(Vec<CodeAddress>),
}

/// All that was copied with a sample, where a recording keeps it: as secret as whatever lay on those stacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptStacks {
    /// The sample, by its CPU
    pub cpu: PhysCpu,
    /// and its number there.
    pub sequence: u64,
    /// What was copied, innermost first, each with whose it is.
    pub stretches: Vec<(Space, Stretch)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_there_only_if_all_of_it_was_copied() {
        let piece = StackPiece { address: 0x1000, bytes: (0..12).collect() };
        assert_eq!(piece.word(0x1000), Some(0x0706_0504_0302_0100));
        assert_eq!(piece.word(0x1004), Some(0x0b0a_0908_0706_0504));
        assert_eq!(piece.word(0x1005), None);
        assert_eq!(piece.word(0xfff), None);
        assert_eq!(piece.word(u64::MAX), None);
    }
}
