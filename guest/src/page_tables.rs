//! Page tables of x86-64, read from memory: translation of one address, and what a range has mapped.

use std::ops::Range;

use profile::GuestVirtual;

use crate::{error::ReadError, look::Look, memory::GuestPhysical};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
/// In an entry above the last level: it maps a large page.
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// The bits of an entry, or of CR3, that are an address.
const FRAME: u64 = 0x000f_ffff_ffff_f000;
const PAGE: u64 = 4096;
const ENTRIES: usize = 512;

/// How many levels of tables there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Levels {
    /// Addresses of 48 bits.
    Four,
    /// Addresses of 57 bits (LA57).
    Five,
}

impl Levels {
    /// The lowest bit of an address that the root table's index is made of.
    fn top_shift(self) -> u32 {
        match self {
            Self::Four => 39,
            Self::Five => 48,
        }
    }

    /// Whether the bits above those that are translated are copies of the highest of them.
    fn is_canonical(self, address: GuestVirtual) -> bool {
        let above = address.0 as i64 >> (self.top_shift() + 8);
        above == 0 || above == -1
    }
}

/// An address space: where its page tables begin (Intel SDM volume 3, 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageTables {
    /// The root table.
    pub root: GuestPhysical,
    /// Their depth.
    pub levels: Levels,
}

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Where its byte is.
    pub address: GuestPhysical,
    /// The size of the page that it is in: 4 KiB, 2 MiB or 1 GiB.
    pub page: u64,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether it may be executed.
    pub executable: bool,
}

/// Neighbouring pages that are mapped alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) range: Range<u64>,
    pub(crate) writable: bool,
    pub(crate) executable: bool,
}

impl PageTables {
    /// The page tables that a CR3 points at: its control bits and the PCID are left out.
    pub fn of_cr3(cr3: u64, levels: Levels) -> Self {
        Self { root: GuestPhysical(cr3 & FRAME), levels }
    }

    /// Walks the tables: at most five reads, whatever they hold.
    pub(crate) fn walk(self, look: &Look<'_>, address: GuestVirtual) -> Result<Translation, ReadError> {
        let unmapped = ReadError::NotMapped(address);
        if !self.levels.is_canonical(address) {
            return Err(unmapped);
        }
        let mut table = self.root;
        let mut access = Access::ALL;
        let mut shift = self.levels.top_shift();
        loop {
            let index = (address.0 >> shift) % ENTRIES as u64;
            let entry = look.physical_u64(table.plus(index * 8))?;
            let Some(step) = Step::of(entry, shift) else { return Err(unmapped) };
            access = access.and(entry);
            match step {
                Step::Table(next) => table = next,
                Step::Page(page) => {
                    let size = 1 << shift;
                    let address = page.plus(address.0 % size);
                    let Access { writable, executable } = access;
                    return Ok(Translation { address, page: size, writable, executable });
                }
            }
            shift -= 9;
        }
    }

    /// What is mapped in `range`, which lies within the 1 GiB that one table of the second-lowest level covers.
    ///
    /// At most 516 tables are read. One that is missing has nothing mapped.
    pub(crate) fn mapped(self, look: &Look<'_>, range: Range<u64>) -> Result<Vec<Run>, ReadError> {
        let mut runs = Vec::new();
        // The bits above those that the root's index is made of are the same throughout the range.
        let untranslated = range.start & !0 << (self.levels.top_shift() + 9);
        let scope = Scope { look, range };
        scope.collect(self.root, self.levels.top_shift(), untranslated, Access::ALL, &mut runs)?;
        Ok(runs)
    }
}

/// What an entry that is present leads to.
enum Step {
    Table(GuestPhysical),
    Page(GuestPhysical),
}

impl Step {
    fn of(entry: u64, shift: u32) -> Option<Self> {
        if entry & PRESENT == 0 {
            return None;
        }
        if shift == 12 {
            return Some(Self::Page(GuestPhysical(entry & FRAME)));
        }
        if entry & LARGE == 0 {
            return Some(Self::Table(GuestPhysical(entry & FRAME)));
        }
        // Above 1 GiB the bit is reserved: these are no page tables.
        (shift <= 30).then(|| Self::Page(GuestPhysical(entry & FRAME & !((1 << shift) - 1))))
    }
}

/// What all entries on the way allow.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Access {
    writable: bool,
    executable: bool,
}

impl Access {
    const ALL: Self = Self { writable: true, executable: true };

    fn and(self, entry: u64) -> Self {
        Self {
            writable: self.writable && entry & WRITABLE != 0,
            executable: self.executable && entry & NO_EXECUTE == 0,
        }
    }
}

struct Scope<'a> {
    look: &'a Look<'a>,
    range: Range<u64>,
}

impl Scope<'_> {
    /// Adds what the table that covers addresses from `base` on has mapped.
    fn collect(
        &self,
        table: GuestPhysical,
        shift: u32,
        base: u64,
        access: Access,
        runs: &mut Vec<Run>,
    ) -> Result<(), ReadError> {
        let mut entries = [0; PAGE as usize];
        match self.look.read_physical(table, &mut entries) {
            Err(ReadError::Missing(_)) => return Ok(()),
            other => other?,
        }
        let covered = 1_u64 << shift;
        for (index, entry) in (0..).zip(entries.as_chunks::<8>().0) {
            let entry = u64::from_le_bytes(*entry);
            let start = base | index << shift;
            let last = start | (covered - 1);
            if last < self.range.start || start >= self.range.end {
                continue;
            }
            let access = access.and(entry);
            match Step::of(entry, shift) {
                None => {}
                Some(Step::Table(next)) => self.collect(next, shift - 9, start, access, runs)?,
                Some(Step::Page(_)) => {
                    let page = start.max(self.range.start)..last.saturating_add(1).min(self.range.end);
                    add(runs, page, access);
                }
            }
        }
        Ok(())
    }
}

/// Lengthens the last run by a page, or begins another.
fn add(runs: &mut Vec<Run>, page: Range<u64>, Access { writable, executable }: Access) {
    match runs.last_mut() {
        Some(run)
            if run.range.end == page.start && run.writable == writable && run.executable == executable =>
        {
            run.range.end = page.end;
        }
        _ => runs.push(Run { range: page, writable, executable }),
    }
}
