//! What Xen shares of each domain: circles of records, one for each vCPU.

use std::sync::atomic::{AtomicU32, Ordering};

use profile::Mode;

use crate::xen::privcmd::Mapping;

/// A domain's records, on their way from Xen: a buffer for each vCPU.
pub(super) struct Watched {
    pub(super) domain: u16,
    pub(super) mapping: Mapping,
    pub(super) buffer_bytes: usize,
    /// How many Xen had counted as lost when each buffer was looked at last.
    pub(super) lost: Vec<u64>,
}

impl Watched {
    pub(super) fn buffers(&self) -> impl Iterator<Item = Buffer<'_>> {
        self.mapping.halves().chunks_exact(self.buffer_bytes / 4).take(self.lost.len()).map(Buffer)
    }
}

/// `struct xenoprof_buf`: a header and a circle of records, which Xen fills.
pub(super) struct Buffer<'a>(pub(super) &'a [AtomicU32]);

/// `struct event_log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) instruction_pointer: u64,
    pub(super) mode: Mode,
    pub(super) counter: u8,
}

impl Buffer<'_> {
    pub(super) const HEADER_BYTES: usize = 48;
    const HEAD: usize = 0;
    const TAIL: usize = 1;
    const SIZE: usize = 2;
    const VCPU: usize = 3;
    const LOST: usize = 10;
    const ENTRIES: usize = Self::HEADER_BYTES / 4;
    const ENTRY: usize = 4;

    fn load(&self, half: usize) -> u32 {
        self.0[half].load(Ordering::Relaxed)
    }

    pub(super) fn vcpu(&self) -> u32 {
        self.load(Self::VCPU)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.load(Self::HEAD) == self.load(Self::TAIL)
    }

    /// How many found no room.
    pub(super) fn lost(&self) -> u64 {
        u64::from(self.load(Self::LOST)) | u64::from(self.load(Self::LOST + 1)) << 32
    }

    /// Takes every record, oldest first. One that makes no sense is handed out as none.
    pub(super) fn drain(&self, mut each: impl FnMut(Option<Entry>)) {
        let room = self.0.len().saturating_sub(Self::ENTRIES) / Self::ENTRY;
        let size = self.load(Self::SIZE).min(room as u32);
        // Acquire: what was written before the head was moved is seen.
        let head = self.0[Self::HEAD].load(Ordering::Acquire);
        let mut tail = self.load(Self::TAIL);
        if head >= size || tail >= size {
            return;
        }
        while tail != head {
            let at = Self::ENTRIES + Self::ENTRY * tail as usize;
            each(self.entry(at));
            tail = if tail + 1 == size { 0 } else { tail + 1 };
        }
        // Release: Xen writes over what has been read, not before.
        self.0[Self::TAIL].store(tail, Ordering::Release);
    }

    fn entry(&self, at: usize) -> Option<Entry> {
        let [mode, counter, ..] = self.load(at + 2).to_le_bytes();
        Some(Entry {
            instruction_pointer: u64::from(self.load(at)) | u64::from(self.load(at + 1)) << 32,
            mode: match mode {
                0 => Mode::User,
                1 => Mode::Kernel,
                2 => Mode::Hypervisor,
                _ => return None,
            },
            counter,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer of four records as Xen 4.17 fills it, of vCPU 1.
    fn golden(head: u32, tail: u32, entries: [(u64, u8, u8); 4]) -> Vec<AtomicU32> {
        let mut bytes = Vec::new();
        for half in [head, tail, 4, 1] {
            bytes.extend(half.to_le_bytes());
        }
        // Samples in Xen, kernel and user mode; lost ones.
        for count in [1_u64, 2, 3, 0x1_0000_0007] {
            bytes.extend(count.to_le_bytes());
        }
        for (address, mode, counter) in entries {
            bytes.extend(address.to_le_bytes());
            bytes.extend([mode, counter, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa]);
        }
        bytes
            .chunks_exact(4)
            .map(|half| AtomicU32::new(u32::from_le_bytes(half.try_into().unwrap())))
            .collect()
    }

    const ENTRIES: [(u64, u8, u8); 4] =
        [(0x1000_1234, 0, 0), (0xffff_ffff_8100_0000, 1, 0), (0xffff_82d0_4020_0000, 2, 3), (7, 9, 0)];

    fn drained(halves: &[AtomicU32]) -> Vec<Option<Entry>> {
        let mut entries = Vec::new();
        Buffer(halves).drain(|entry| entries.push(entry));
        entries
    }

    #[test]
    fn records_are_taken_once_and_around_the_end() {
        let halves = golden(1, 2, ENTRIES);
        let entry = |instruction_pointer, mode, counter| Some(Entry { instruction_pointer, mode, counter });
        let expected =
            [entry(0xffff_82d0_4020_0000, Mode::Hypervisor, 3), None, entry(0x1000_1234, Mode::User, 0)];
        assert_eq!(drained(&halves), expected);
        assert_eq!(halves[Buffer::TAIL].load(Ordering::Relaxed), 1);
        assert!(drained(&halves).is_empty() && Buffer(&halves).is_empty());
        assert_eq!((Buffer(&halves).vcpu(), Buffer(&halves).lost()), (1, 0x1_0000_0007));
    }

    #[test]
    fn positions_beyond_the_buffer_are_not_followed() {
        for (head, tail) in [(4, 0), (0, 4), (u32::MAX, u32::MAX)] {
            assert!(drained(&golden(head, tail, ENTRIES)).is_empty());
        }
        // A size that is more than there is.
        let halves = golden(3, 2, ENTRIES);
        halves[Buffer::SIZE].store(1 << 30, Ordering::Relaxed);
        assert_eq!(drained(&halves).len(), 1);
    }
}
