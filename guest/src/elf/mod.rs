//! ELF files of which only some pages can be had.
//!
//! Comes in: a file of a guest ([`FileBytes`]). Goes out: its segments, its build id, and its functions, from whichever
//! table is there. What a program was run from is rarely in memory as a whole: the loader needs the program headers, the
//! dynamic section and what that leads to, so that these are what is relied upon. Section headers, and with them the
//! full symbol table, lie at the file's end and are there only if something else read them.

mod frames;
mod functions;
mod sparse;
mod tables;
mod xz;

use std::ops::Range;

pub use frames::{FrameTables, Part};
pub use functions::{Function, FunctionList, FunctionSource};

use crate::{
    budget::{Budget, Exhausted},
    build_id,
    error::GuestError,
    file::{FileBytes, FileError},
    words,
};

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// Real files have about ten.
const MAX_PROGRAM_HEADERS: usize = 256;
const MAX_NOTES: u64 = 64 << 10;
const X86_64: u16 = 62;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_NOTE: u32 = 4;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const PF_W: u32 = 2;
const PF_X: u32 = 1;

/// Why nothing can be said of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// A part that is needed could not be read.
    #[error("cannot read {what}: {problem}")]
    Read {
        /// The part.
        what: &'static str,
        /// What was in the way.
        problem: FileError,
    },
    /// It is no ELF file for x86-64 that can be run.
    #[error("not an ELF program or library for x86-64")]
    Foreign,
    /// It has not got such a table: a stripped program, or a static one.
    #[error("it has no {0}")]
    None(&'static str),
    /// It contradicts itself.
    #[error("damaged: {0}")]
    Damaged(&'static str),
    /// The budget is spent.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

impl ElfError {
    /// The error that a part could not be read.
    fn of_read(what: &'static str, problem: FileError) -> Self {
        match problem {
            FileError::Guest(GuestError::Exhausted(exhausted)) => exhausted.into(),
            problem => Self::Read { what, problem },
        }
    }
}

/// A part of the file that is mapped when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElfSegment {
    /// Where it begins in the file.
    pub offset: u64,
    /// How many of its bytes are in the file.
    pub file_size: u64,
    /// Where it was linked to lie.
    pub address: u64,
    /// How many bytes it has in memory.
    pub memory_size: u64,
    /// Whether it is code.
    pub executable: bool,
    /// Whether it may be changed.
    pub writable: bool,
}

/// An ELF file: what its headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// Whether it runs wherever it is put, and its addresses count from there.
    pub position_independent: bool,
    /// What is mapped of it.
    pub segments: Vec<ElfSegment>,
    dynamic: Option<Range<u64>>,
    notes: Vec<Range<u64>>,
    /// The address of `.eh_frame_hdr`.
    eh_frame_header: Option<u64>,
    sections: SectionHeaders,
}

/// Where section headers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SectionHeaders {
    offset: u64,
    count: u16,
    names: u16,
}

/// Words of structures that have been read whole, so that none is missing.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    words::u16_at(bytes, at).unwrap_or(0)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    words::u32_at(bytes, at).unwrap_or(0)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    words::u64_at(bytes, at).unwrap_or(0)
}

impl Elf {
    /// Reads the headers, which are in the file's first page.
    pub fn read(file: &(impl FileBytes + ?Sized), budget: &Budget) -> Result<Self, ElfError> {
        budget.work(1)?;
        let mut header = [0; HEADER];
        file.read(0, &mut header).map_err(|problem| match problem {
            FileError::PastEnd(_) => ElfError::Foreign,
            problem => ElfError::of_read("its header", problem),
        })?;
        let kind = u16_at(&header, 16);
        let is_ours = header.starts_with(b"\x7fELF\x02\x01") && u16_at(&header, 18) == X86_64;
        if !is_ours || !matches!(kind, ET_EXEC | ET_DYN) {
            return Err(ElfError::Foreign);
        }
        let count = usize::from(u16_at(&header, 56));
        if count > MAX_PROGRAM_HEADERS || usize::from(u16_at(&header, 54)) != PROGRAM_HEADER {
            return Err(ElfError::Damaged("its program headers are of a size that none have"));
        }
        let mut headers = vec![0; count * PROGRAM_HEADER];
        let problem = file.read(u64_at(&header, 32), &mut headers);
        problem.map_err(|problem| ElfError::of_read("its program headers", problem))?;

        let sections = SectionHeaders {
            offset: u64_at(&header, 40),
            count: if u16_at(&header, 58) == 64 { u16_at(&header, 60) } else { 0 },
            names: u16_at(&header, 62),
        };
        let mut elf = Self {
            position_independent: kind == ET_DYN,
            segments: Vec::new(),
            dynamic: None,
            notes: Vec::new(),
            eh_frame_header: None,
            sections,
        };
        for header in headers.chunks_exact(PROGRAM_HEADER) {
            elf.add(header);
        }
        Ok(elf)
    }

    fn add(&mut self, header: &[u8]) {
        let (offset, file_size) = (u64_at(header, 8), u64_at(header, 32));
        let range = offset..offset.saturating_add(file_size);
        match u32_at(header, 0) {
            PT_LOAD => self.segments.push(ElfSegment {
                offset,
                file_size,
                address: u64_at(header, 16),
                memory_size: u64_at(header, 40),
                executable: u32_at(header, 4) & PF_X != 0,
                writable: u32_at(header, 4) & PF_W != 0,
            }),
            PT_GNU_EH_FRAME => self.eh_frame_header = Some(u64_at(header, 16)),
            PT_DYNAMIC => self.dynamic = Some(range),
            PT_NOTE => self.notes.push(range),
            _ => {}
        }
    }

    /// The build id, if there is one.
    pub fn build_id(
        &self,
        file: &(impl FileBytes + ?Sized),
        budget: &Budget,
    ) -> Result<Option<Vec<u8>>, ElfError> {
        for range in &self.notes {
            let length = (range.end - range.start).min(MAX_NOTES);
            budget.scan(length)?;
            let mut notes = vec![0; length as usize];
            file.read(range.start, &mut notes).map_err(|problem| ElfError::of_read("its notes", problem))?;
            if let Some(id) = build_id::in_notes(&notes) {
                return Ok(Some(id.to_vec()));
            }
        }
        Ok(None)
    }

    /// Where a byte of the file was linked to lie: what functions are looked up by.
    ///
    /// An address in a process is first brought to its place in the file, by the mapping that it is in.
    pub fn linked_address(&self, offset: u64) -> Option<u64> {
        let holds = |segment: &&ElfSegment| {
            offset.checked_sub(segment.offset).is_some_and(|within| within < segment.file_size)
        };
        // Pages of data that end one segment may be mapped again as the beginning of the next: code comes first.
        let mut holding = self.segments.iter().filter(holds);
        let segment = holding.clone().find(|segment| segment.executable).or_else(|| holding.next())?;
        Some(segment.address.wrapping_add(offset - segment.offset))
    }

    /// Where in the file the byte is that was linked to lie at `address`.
    fn file_offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let within = address.checked_sub(segment.address).filter(|&within| within < segment.file_size)?;
            segment.offset.checked_add(within)
        })
    }

    fn is_code(&self, address: u64) -> bool {
        self.segments.iter().any(|segment| {
            segment.executable
                && address.checked_sub(segment.address).is_some_and(|within| within < segment.memory_size)
        })
    }
}
