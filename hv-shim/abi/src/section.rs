//! Sections of a sample's record: what was captured for finding its callers.
//!
//! ```text
//! word 0      length in words u16 · kind u16 · space u8 · 0 u24
//! registers   root of the page tables · r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi · rip · rsp
//! stack       address of the first word · the words
//! frames      root of the page tables · instruction pointer · return addresses, innermost first
//! calls       pairs, innermost first: a word of the hypervisor's stack that may be a return address · what the call in
//!             front of it leads to, 0 for an indirect one
//! missing     why nothing follows, as a number of [`Missing`]'s
//! ```
//! Sections stand innermost first, and a stack belongs to the registers of its space that stand before it. A space has no
//! registers, or one set of them.

use crate::record::{Mode, SAMPLE_WORDS};

/// The kind of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// The registers of a space.
    Registers = 1,
    /// A piece of its stack.
    Stack = 2,
    /// Its frames, found by frame pointers.
    Frames = 3,
    /// What on the hypervisor's stack looks like return addresses.
    Calls = 4,
    /// Why there is no more.
    Missing = 5,
}

/// Why nothing was captured of a space, nor of those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Missing {
    /// The ring was nearly full.
    Room = 1,
    /// The guest's page tables are of a kind that is not followed.
    PageTables = 2,
}

/// Words of a section that says why there is no more, its first one included.
pub const MISSING_WORDS: usize = 2;

/// Words of a section of registers, its first one included.
pub const REGISTERS_WORDS: usize = 2 + REGISTERS;

/// How many registers there are in it.
pub const REGISTERS: usize = 17;

/// A section's first word.
#[inline]
pub const fn header(words: usize, kind: Kind, space: Mode) -> u64 {
    words as u64 | (kind as u64) << 16 | (space as u64) << 32
}

/// A section as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section<'a> {
    /// [`Kind::Registers`].
    Registers {
        /// Whose.
        space: Mode,
        /// The root of its page tables.
        root: u64,
        /// They.
        words: &'a [u64; REGISTERS],
    },
    /// [`Kind::Stack`].
    Stack {
        /// Whose.
        space: Mode,
        /// Where it begins.
        address: u64,
        /// What it holds.
        words: &'a [u64],
    },
    /// [`Kind::Frames`].
    Frames {
        /// Whose.
        space: Mode,
        /// The root of its page tables.
        root: u64,
        /// The instruction pointer, then return addresses.
        words: &'a [u64],
    },
    /// [`Kind::Calls`].
    Calls {
        /// Return address and target by turns.
        words: &'a [u64],
    },
    /// [`Kind::Missing`].
    Missing {
        /// Why.
        why: Missing,
    },
}

/// The sections of a record that are known here, up to the first that can't be read.
pub fn sections(record: &[u64]) -> impl Iterator<Item = Section<'_>> {
    let mut rest = record.get(SAMPLE_WORDS..).unwrap_or(&[]);
    core::iter::from_fn(move || {
        let first = *rest.first()?;
        let length = (first & 0xffff) as usize;
        let section = rest.get(1..length)?;
        rest = &rest[length..];
        Some(read(first, section))
    })
    .flatten()
}

fn read(first: u64, words: &[u64]) -> Option<Section<'_>> {
    let space = match (first >> 32) as u8 {
        0 => Mode::Hypervisor,
        1 => Mode::Kernel,
        2 => Mode::User,
        _ => return None,
    };
    let (&one, rest) = words.split_first()?;
    match (first >> 16) as u16 {
        1 => Some(Section::Registers { space, root: one, words: rest.try_into().ok()? }),
        2 => Some(Section::Stack { space, address: one, words: rest }),
        3 => Some(Section::Frames { space, root: one, words: rest }),
        4 => Some(Section::Calls { words }),
        5 => Some(Section::Missing { why: Missing::of_number(one)? }),
        _ => None,
    }
}

impl Missing {
    fn of_number(number: u64) -> Option<Self> {
        [Self::Room, Self::PageTables].into_iter().find(|&why| why as u64 == number)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    fn record(sections: &[&[u64]]) -> Vec<u64> {
        let mut words = std::vec![0; SAMPLE_WORDS];
        sections.iter().for_each(|section| words.extend_from_slice(section));
        words
    }

    #[test]
    fn sections_are_read_and_unknown_ones_stepped_over() {
        let mut registers = [0; REGISTERS_WORDS];
        registers[0] = header(REGISTERS_WORDS, Kind::Registers, Mode::User);
        registers[1] = 0x1000;
        registers[18] = 0x7fff;
        let newer = [3 | 99 << 16, 1, 2];
        let stack = [header(4, Kind::Stack, Mode::User), 0x7fff, 5, 6];
        let missing = [header(MISSING_WORDS, Kind::Missing, Mode::Kernel), Missing::PageTables as u64];
        let reasons = [header(MISSING_WORDS, Kind::Missing, Mode::Kernel), 99];
        let words = record(&[&registers, &newer, &stack, &reasons, &missing]);
        let read: Vec<Section<'_>> = sections(&words).collect();
        assert_eq!(read.len(), 3);
        assert!(matches!(
            read[0],
            Section::Registers { space: Mode::User, root: 0x1000, words } if words[16] == 0x7fff
        ));
        assert_eq!(read[1], Section::Stack { space: Mode::User, address: 0x7fff, words: &[5, 6] });
        assert_eq!(read[2], Section::Missing { why: Missing::PageTables });
    }

    #[test]
    fn forged_sections_end_the_reading() {
        for forged in [&[0u64][..], &[9 | 2 << 16, 1], &[1 | 2 << 16], &[u64::MAX], &[2 | 1 << 16, 0]] {
            assert_eq!(sections(&record(&[forged])).count(), 0, "{forged:x?}");
        }
        assert_eq!(sections(&[1, 2, 3]).count(), 0);
    }
}
