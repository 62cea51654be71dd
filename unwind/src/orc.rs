//! The table by which Linux finds callers in its own code (ORC, `Documentation/arch/x86/orc-unwinder.rst`).
//!
//! An entry of six bytes holds from its address on up to the next one's. There are two layouts of its last two bytes
//! (`arch/x86/include/asm/orc_types.h`): up to Linux 6.3 the kind has two bits and 0 is a call; since then it has three
//! and a call is 2. What most entries are tells which.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Kernels have half a million.
const MAX_ENTRIES: usize = 4 << 20;
/// The table of one image covers less.
const MAX_SPAN: u64 = 1 << 30;
const ENTRY: usize = 6;
/// One place in the index stands for so many bytes of code.
const BLOCK: u32 = 256;

/// The unwind table of a kernel's image or of a module. It is plain data: one that was forged leads to nonsense at the worst.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OrcTable {
    base: u64,
    /// Where each entry begins, from `base` on; ascending.
    starts: Vec<u32>,
    entries: Vec<[u8; ENTRY]>,
    /// For each block of code, the number of entries that begin before it.
    blocks: Vec<u32>,
    layout: Layout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Layout {
    UpTo6_3,
    Since6_4,
}

/// Where a frame's caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Orc {
    /// Nothing is known of this code.
    Undefined,
    /// There is no caller: the end of the stack.
    End,
    Frame {
        end: FrameEnd,
        frame_pointer: FramePointer,
        kind: Kind,
        /// Whether the address that this leads to was interrupted, and did not call.
        interrupted: bool,
    },
}

/// Where the frame ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameEnd {
    Register(FrameRegister, i64),
    /// The word there is the end.
    AtBp(i64),
    /// So far behind the word there.
    BehindTop(i64),
}

/// The register that the frame's end is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameRegister {
    Sp,
    Bp,
    /// Those that follow serve only code that was interrupted: it is about to change its stack.
    Dx,
    Di,
    R10,
    R13,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramePointer {
    Unchanged,
    FromEnd(i64),
    FromBp(i64),
}

/// What stands at the frame's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A return address, just below.
    Call,
    /// All registers of what was interrupted.
    Registers,
    /// Of those only what the processor itself saves.
    Interrupted,
}

impl OrcTable {
    /// Takes the table from memory: `addresses` are the numbers of `.orc_unwind_ip`, each relative to its own place,
    /// which begins at `at`; `entries` is `.orc_unwind`. None where there is no such table.
    pub fn parse(at: u64, addresses: &[u8], entries: &[u8]) -> Option<Self> {
        let addresses = addresses.as_chunks::<4>().0;
        let entries = entries.as_chunks::<ENTRY>().0;
        if addresses.is_empty() || addresses.len() != entries.len() || addresses.len() > MAX_ENTRIES {
            return None;
        }
        let places = (0u64..).step_by(4).map(|offset| at.wrapping_add(offset));
        let mut rows: Vec<(u64, [u8; ENTRY])> = places
            .zip(addresses)
            .map(|(place, &address)| place.wrapping_add_signed(i32::from_le_bytes(address).into()))
            .zip(entries.iter().copied())
            .collect();
        // Sorted when the kernel booted; equal addresses keep their order.
        if !rows.is_sorted_by_key(|&(address, _)| address) {
            rows.sort_by_key(|&(address, _)| address);
        }
        let base = rows[0].0;
        rows.retain(|&(address, _)| address - base < MAX_SPAN);
        let calls = rows.iter().filter(|(_, entry)| flags(entry) >> 8 & 7 == 2).count();
        let layout = if calls * 2 > rows.len() { Layout::Since6_4 } else { Layout::UpTo6_3 };
        let starts: Vec<u32> = rows.iter().map(|&(address, _)| (address - base) as u32).collect();
        let mut blocks = Vec::new();
        for (index, start) in (0u32..).zip(&starts) {
            blocks.resize(blocks.len().max((start / BLOCK) as usize + 1), index);
        }
        Some(Self {
            base,
            starts,
            entries: rows.into_iter().map(|(_, entry)| entry).collect(),
            blocks,
            layout,
        })
    }

    /// From where to where it may know code.
    pub fn range(&self) -> Range<u64> {
        // The last entry is the end of what it covers, as a rule.
        let last = self.starts.last().copied().unwrap_or(0);
        self.base..self.base.saturating_add(u64::from(last)).saturating_add(1)
    }

    /// What holds at an address.
    pub(crate) fn at(&self, address: u64) -> Orc {
        let Some(offset) = address.checked_sub(self.base).and_then(|offset| u32::try_from(offset).ok())
        else {
            return Orc::Undefined;
        };
        let block = (offset / BLOCK) as usize;
        let from = self.blocks.get(block).map_or(self.starts.len(), |&before| before as usize);
        let to = self.blocks.get(block + 1).map_or(self.starts.len(), |&before| before as usize);
        let within = self.starts.get(from..to).unwrap_or_default();
        let above = from + within.partition_point(|&start| start <= offset);
        let entry = above.checked_sub(1).and_then(|index| self.entries.get(index));
        entry.map_or(Orc::Undefined, |entry| self.layout.read(entry))
    }
}

fn flags(entry: &[u8; ENTRY]) -> u16 {
    u16::from_le_bytes([entry[4], entry[5]])
}

impl Layout {
    fn read(self, entry: &[u8; ENTRY]) -> Orc {
        let sp_offset = i64::from(i16::from_le_bytes([entry[0], entry[1]]));
        let bp_offset = i64::from(i16::from_le_bytes([entry[2], entry[3]]));
        let flags = flags(entry);
        // What ends a stack has a kind of its own since 6.4. Before, it has a bit, whose place moved once; nothing else
        // that has no register for its frame's end has either.
        let (kind, interrupted) = match (self, flags >> 8 & 7, flags >> 8 & 3) {
            (Self::UpTo6_3, _, _) if flags & 0xf == 0 => {
                return if flags >> 10 & 3 == 0 { Orc::Undefined } else { Orc::End };
            }
            (Self::UpTo6_3, _, 0) => (Kind::Call, false),
            (Self::UpTo6_3, _, 1) => (Kind::Registers, true),
            (Self::UpTo6_3, _, 2) => (Kind::Interrupted, true),
            (Self::Since6_4, 1, _) => return Orc::End,
            (Self::Since6_4, 2, _) => (Kind::Call, flags >> 11 & 1 == 1),
            (Self::Since6_4, 3, _) => (Kind::Registers, true),
            (Self::Since6_4, 4, _) => (Kind::Interrupted, true),
            _ => return Orc::Undefined,
        };
        let end = match flags & 0xf {
            2 => FrameEnd::Register(FrameRegister::Dx, sp_offset),
            3 => FrameEnd::Register(FrameRegister::Di, sp_offset),
            4 => FrameEnd::Register(FrameRegister::Bp, sp_offset),
            5 => FrameEnd::Register(FrameRegister::Sp, sp_offset),
            6 => FrameEnd::Register(FrameRegister::R10, sp_offset),
            7 => FrameEnd::Register(FrameRegister::R13, sp_offset),
            8 => FrameEnd::AtBp(sp_offset),
            9 => FrameEnd::BehindTop(sp_offset),
            _ => return Orc::Undefined,
        };
        let frame_pointer = match flags >> 4 & 0xf {
            1 => FramePointer::FromEnd(bp_offset),
            4 => FramePointer::FromBp(bp_offset),
            _ => FramePointer::Unchanged,
        };
        Orc::Frame { end, frame_pointer, kind, interrupted }
    }
}
