//! The tables of an ELF file that tell how its functions' callers are found.

use super::{Elf, sparse::Sparse, u64_at};
use crate::{budget::Budget, file::FileBytes};

/// The largest libraries have some 20 MiB.
const MAX_TABLES: u64 = 64 << 20;
const GO_SECTION: &str = ".gopclntab";
/// How a table of Go's functions begins: Go 1.18, Go 1.20; no padding, instructions of any length, pointers of 8 bytes.
const GO_MAGICS: [[u8; 8]; 2] = [[0xf0, 0xff, 0xff, 0xff, 0, 0, 1, 8], [0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8]];
/// How it is aligned.
const GO_ALIGNMENT: usize = 32;

/// Bytes of a file, at the address that they were linked to. Those that are not in memory are zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The address.
    pub address: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What a file has of such tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameTables {
    /// `.eh_frame_hdr` and the rest of its segment, in which `.eh_frame` follows.
    pub eh_frame_header: Option<Part>,
    /// `.eh_frame` by itself, in a file without the other.
    pub eh_frame: Option<Part>,
    /// Go's table of functions.
    pub go_functions: Option<Part>,
}

impl Elf {
    /// Reads them, as far as their pages are in memory.
    pub fn frame_tables(&self, file: &(impl FileBytes + ?Sized), budget: &Budget) -> FrameTables {
        let section = |name| {
            let range = self.section(file, budget, name).ok()?;
            let address = self.linked_address(range.start)?;
            read(file, budget, address, range.start, range.end - range.start)
        };
        let eh_frame_header =
            self.eh_frame_header.and_then(|address| self.rest_of_segment(file, budget, address));
        let eh_frame = if eh_frame_header.is_none() { section(".eh_frame") } else { None };
        let go_functions = section(GO_SECTION).or_else(|| self.searched_go_functions(file, budget));
        FrameTables { eh_frame_header, eh_frame, go_functions }
    }

    fn rest_of_segment(
        &self,
        file: &(impl FileBytes + ?Sized),
        budget: &Budget,
        address: u64,
    ) -> Option<Part> {
        self.segments.iter().find_map(|segment| {
            let within = address.checked_sub(segment.address).filter(|&within| within < segment.file_size)?;
            read(file, budget, address, segment.offset.checked_add(within)?, segment.file_size - within)
        })
    }

    /// Section headers are seldom in memory, while the table itself is used by the program: it is in a segment of
    /// constants. Files that are no Go programs begin with an interpreter or a build id of another kind.
    fn searched_go_functions(&self, file: &(impl FileBytes + ?Sized), budget: &Budget) -> Option<Part> {
        if !self.is_go(file, budget) {
            return None;
        }
        let constants = self.segments.iter().filter(|segment| !segment.executable && !segment.writable);
        constants
            .filter_map(|segment| read(file, budget, segment.address, segment.offset, segment.file_size))
            .find_map(|Part { address, mut bytes }| {
                let mut places = (0..bytes.len()).step_by(GO_ALIGNMENT);
                let at = places.find(|&at| GO_MAGICS.iter().any(|magic| bytes[at..].starts_with(magic)))?;
                bytes.drain(..at);
                Some(Part { address: address.wrapping_add(at as u64), bytes })
            })
    }

    /// Whether the file has a build id of Go's: the linker's own note, which is in the first page.
    fn is_go(&self, file: &(impl FileBytes + ?Sized), budget: &Budget) -> bool {
        self.notes.iter().any(|range| {
            let mut note = [0; 16];
            let read = budget.work(1).is_ok() && file.read(range.start, &mut note).is_ok();
            // The owner's length, the content's, the kind, the owner.
            read && u64_at(&note, 8) == u64::from_le_bytes([4, 0, 0, 0, b'G', b'o', 0, 0])
        })
    }
}

fn read(
    file: &(impl FileBytes + ?Sized),
    budget: &Budget,
    address: u64,
    offset: u64,
    length: u64,
) -> Option<Part> {
    let length = Some(length).filter(|length| (1..=MAX_TABLES).contains(length))?;
    let bytes = Sparse::read(file, budget, "its tables of frames", offset, length).ok()?.with_zeros();
    Some(Part { address, bytes })
}
