//! The memory of the kernel that this program runs on, as it shows itself to root.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

/// `/proc/kcore`, an ELF core file of all that the kernel has mapped (proc(5)).
pub struct KernelCore {
    file: File,
    segments: Vec<Segment>,
}

/// Where a stretch of addresses is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    addresses: Range<u64>,
    offset: u64,
}

impl KernelCore {
    /// Where it is.
    pub const PATH: &str = "/proc/kcore";

    /// Opens it.
    pub fn open() -> io::Result<Self> {
        File::open(Self::PATH).and_then(Self::of)
    }

    fn of(file: File) -> io::Result<Self> {
        let mut header = vec![0; 64 << 10];
        let read = file.read_at(&mut header, 0)?;
        let segments = segments(&header[..read]).ok_or_else(|| io::Error::other("it is no core file"))?;
        Ok(Self { file, segments })
    }

    /// Where in which file an address is; none if nothing is mapped there.
    pub fn place(&self, address: u64) -> Option<(&File, u64)> {
        let segment = self.segments.iter().find(|segment| segment.addresses.contains(&address))?;
        Some((&self.file, segment.offset.wrapping_add(address - segment.addresses.start)))
    }
}

/// The loaded segments of an ELF file of 64 bits, by its first bytes.
fn segments(header: &[u8]) -> Option<Vec<Segment>> {
    const LOADED: u64 = 1;
    let word = |at: usize, bytes: usize| {
        let field = header.get(at..)?.get(..bytes)?;
        Some(field.iter().rev().fold(0, |word: u64, &byte| word << 8 | u64::from(byte)))
    };
    if !header.starts_with(b"\x7fELF\x02") {
        return None;
    }
    let (first, size, count) = (word(32, 8)? as usize, word(54, 2)? as usize, word(56, 2)? as usize);
    let mut segments = Vec::new();
    for index in 0..count {
        let at = first.checked_add(index * size)?;
        let field = |within: usize, bytes| word(at.checked_add(within)?, bytes);
        let (offset, address, length) = (field(8, 8)?, field(16, 8)?, field(40, 8)?);
        if field(0, 4)? == LOADED {
            segments.push(Segment { addresses: address..address.saturating_add(length), offset });
        }
    }
    Some(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program's own file stands in for a core file: its segments say where they are as well.
    #[test]
    fn addresses_are_found_in_elf_files() {
        let core = KernelCore::of(File::open("/proc/self/exe").unwrap()).unwrap();
        let offset = |address| core.place(address).map(|(_, offset)| offset);
        assert_eq!(offset(0), Some(0), "the first segment has the header");
        assert_eq!(offset(u64::MAX), None);
    }

    #[test]
    fn segments_are_read_and_nonsense_is_none() {
        let mut header = vec![0; 64 + 2 * 56];
        header[..5].copy_from_slice(b"\x7fELF\x02");
        (header[32], header[54], header[56]) = (64, 56, 2);
        // A note, then memory.
        header[64] = 4;
        header[64 + 56] = 1;
        header[64 + 56 + 9] = 0x70;
        header[64 + 56 + 16..][..8].copy_from_slice(&0xffff_8880_0000_0000u64.to_le_bytes());
        header[64 + 56 + 42] = 1;
        let memory = Segment { addresses: 0xffff_8880_0000_0000..0xffff_8880_0001_0000, offset: 0x7000 };
        assert_eq!(segments(&header), Some(vec![memory]));
        assert_eq!(segments(&header[..100]), None);
        assert_eq!(segments(b"\x7fELF\x01"), None);
        header[32..40].fill(0xff);
        assert_eq!(segments(&header), None);
    }
}
