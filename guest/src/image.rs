//! Memory that was saved: a file, or bytes, that hold a guest's memory piece by piece.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::memory::{GuestMemory, GuestPhysical, Missing};

const GIB: u64 = 1 << 30;

/// What an image's bytes can be read from.
pub trait ImageBytes {
    /// Fills `bytes` from `offset` on, or fails where the image has less.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ImageBytes for File {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }
}

impl<B: AsRef<[u8]>> ImageBytes for io::Cursor<B> {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(bytes.len());
        let source = self.get_ref().as_ref().get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(source);
        Ok(())
    }
}

/// A run of a guest's memory in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where the guest has it.
    pub address: GuestPhysical,
    /// Where the image has it.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// A guest's memory in an image.
#[derive(Debug)]
pub struct MemoryImage<I> {
    image: I,
    /// Ascending by address.
    segments: Vec<Segment>,
}

impl<I: ImageBytes> MemoryImage<I> {
    /// Memory that lies in `image` as `segments` say. Where segments overlap, the one that begins last has the bytes.
    pub fn new(image: I, mut segments: Vec<Segment>) -> Self {
        segments.sort_by_key(|segment| segment.address);
        Self { image, segments }
    }

    /// The memory of QEMU's `pc` machine, of which the image holds `length` bytes without its holes: from 3.5 GiB
    /// upward it is split, and what does not fit below 3 GiB lies above 4 GiB.
    pub fn of_pc(image: I, length: u64) -> Self {
        let low = if length > 3 * GIB + GIB / 2 { 3 * GIB } else { length };
        let low_part = Segment { address: GuestPhysical(0), offset: 0, length: low };
        let high_part = Segment { address: GuestPhysical(4 * GIB), offset: low, length: length - low };
        Self::new(image, vec![low_part, high_part])
    }
}

impl<I: ImageBytes> GuestMemory for MemoryImage<I> {
    fn read(&self, address: GuestPhysical, bytes: &mut [u8]) -> Result<(), Missing> {
        let missing = Missing(address);
        let above = self.segments.partition_point(|segment| segment.address <= address);
        let segment = above.checked_sub(1).map(|index| self.segments[index]).ok_or(missing)?;
        let within = address.0 - segment.address.0;
        if segment.length.checked_sub(within).is_none_or(|left| left < bytes.len() as u64) {
            return Err(missing);
        }
        let offset = segment.offset.checked_add(within).ok_or(missing)?;
        self.image.read_exact_at(bytes, offset).map_err(|_| missing)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn holes_and_what_reaches_into_them_are_missing() {
        let segment = |address, offset, length| Segment { address: GuestPhysical(address), offset, length };
        let segments = vec![segment(0x3000, 4, 4), segment(0x1000, 0, 4), segment(0x5000, 6, 100)];
        let memory = MemoryImage::new(Cursor::new([1, 2, 3, 4, 5, 6, 7, 8]), segments);
        let read = |address, length| {
            let mut bytes = vec![0; length];
            memory.read(GuestPhysical(address), &mut bytes).map(|()| bytes)
        };
        assert_eq!(read(0x1001, 3).unwrap(), [2, 3, 4]);
        assert_eq!(read(0x3000, 4).unwrap(), [5, 6, 7, 8]);
        assert_eq!(read(0x5000, 2).unwrap(), [7, 8]);
        for (address, length) in
            [(0xfff, 1), (0x1001, 4), (0x1004, 1), (0x2fff, 1), (0x5000, 3), (u64::MAX, 2)]
        {
            assert_eq!(read(address, length), Err(Missing(GuestPhysical(address))));
        }
    }

    #[test]
    fn a_large_pc_has_its_rest_above_four_gib() {
        let segments = |length| MemoryImage::of_pc(Cursor::new([]), length).segments;
        assert_eq!(segments(2 * GIB)[0].length, 2 * GIB);
        let large = segments(5 * GIB);
        assert_eq!((large[0].length, large[1].address.0), (3 * GIB, 4 * GIB));
        assert_eq!((large[1].offset, large[1].length), (3 * GIB, 2 * GIB));
    }
}
