//! Memory of some MiB, and page tables in it.

use std::cell::Cell;

use guest::{Frames, GuestMemory, GuestPhysical, Levels, Missing};

const PAGE: u64 = 4096;
/// Where page tables and small objects are allocated.
const HEAP: std::ops::Range<u64> = 0x10_000..2 << 20;

/// How a page is mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) writable: bool,
    pub(crate) executable: bool,
}

/// A guest's memory. The guest numbers its frames from 0; where its page tables hold the machine's, those are others.
#[derive(Clone)]
pub(crate) struct Ram {
    bytes: Vec<u8>,
    next: u64,
    pub(crate) frames: Frames,
    levels: Levels,
    /// Frames that can't be read, by the guest's number.
    pub(crate) missing: Vec<u64>,
    pub(crate) reads: Cell<u64>,
    touched: Vec<Cell<bool>>,
}

impl Ram {
    pub(crate) fn new(levels: Levels, frames: Frames, size: u64) -> Self {
        let bytes = vec![0; size as usize];
        let (reads, touched) = (Cell::new(0), vec![Cell::new(false); (size / PAGE) as usize]);
        Self { bytes, next: HEAP.start, frames, levels, missing: Vec::new(), reads, touched }
    }

    pub(crate) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The frames that were read, by the guest's number.
    pub(crate) fn touched(&self) -> Vec<u64> {
        (0..).zip(&self.touched).filter(|(_, touched)| touched.get()).map(|(frame, _)| frame).collect()
    }

    /// What the page tables hold for an address as the guest numbers it; and the way back, which is the same.
    pub(crate) fn real(&self, physical: u64) -> u64 {
        match self.frames {
            Frames::Guest => physical,
            Frames::Machine => physical ^ 0x2a_5000,
        }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Memory for an object, zeroed.
    pub(crate) fn allocate(&mut self, size: u64, align: u64) -> u64 {
        let place = self.next.next_multiple_of(align);
        self.next = place + size;
        assert!(self.next <= HEAP.end, "the objects outgrow their part of memory");
        place
    }

    pub(crate) fn write(&mut self, physical: u64, bytes: &[u8]) {
        self.bytes[physical as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn u64(&self, physical: u64) -> u64 {
        u64::from_le_bytes(*self.bytes[physical as usize..].first_chunk().unwrap())
    }

    /// Maps a page of 4 KiB, 2 MiB or 1 GiB under a root table.
    pub(crate) fn map(&mut self, root: u64, address: u64, physical: u64, size: u64, access: Access) {
        let mut table = root;
        let mut shift = if self.levels == Levels::Five { 48 } else { 39 };
        loop {
            let entry = table + ((address >> shift) % 512) * 8;
            if 1 << shift == size {
                let large = if shift > 12 { 0x80 } else { 0 };
                let access = u64::from(access.writable) << 1 | u64::from(!access.executable) << 63;
                self.write(entry, &(self.real(physical) | 0x21 | large | access).to_le_bytes());
                return;
            }
            if self.u64(entry) & 1 == 0 {
                let next = self.allocate(PAGE, PAGE);
                self.write(entry, &(self.real(next) | 0x63).to_le_bytes());
            }
            table = self.real(self.u64(entry) & 0x000f_ffff_ffff_f000);
            shift -= 9;
        }
    }

    /// Maps so many bytes in pages of 4 KiB.
    pub(crate) fn map_pages(&mut self, root: u64, address: u64, physical: u64, length: u64, access: Access) {
        for offset in (0..length).step_by(PAGE as usize) {
            self.map(root, address + offset, physical + offset, PAGE, access);
        }
    }
}

impl GuestMemory for Ram {
    fn read(&self, address: GuestPhysical, bytes: &mut [u8]) -> Result<(), Missing> {
        self.reads.set(self.reads.get() + 1);
        let (mut at, mut rest) = (address.0, bytes);
        while !rest.is_empty() {
            // Frames that follow each other in the machine are anywhere in the guest.
            let physical = self.real(at & !(PAGE - 1)) | at & (PAGE - 1);
            let length = rest.len().min((PAGE - at % PAGE) as usize);
            let (now, later) = rest.split_at_mut(length);
            let source =
                usize::try_from(physical).ok().and_then(|start| self.bytes.get(start..)?.get(..length));
            let source = source.filter(|_| !self.missing.contains(&(physical / PAGE)));
            now.copy_from_slice(source.ok_or(Missing(address))?);
            self.touched[(physical / PAGE) as usize].set(true);
            at = at.wrapping_add(length as u64);
            rest = later;
        }
        Ok(())
    }

    fn frames(&self) -> Frames {
        self.frames
    }
}
