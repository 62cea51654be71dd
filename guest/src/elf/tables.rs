//! Where an ELF file has its tables of symbols, and how long they are.

use std::ops::Range;

use super::{Elf, ElfError, sparse::Sparse, u32_at, u64_at};
use crate::{budget::Budget, file::FileBytes};

const DYNAMIC_ENTRY: usize = 16;
const SECTION_HEADER: usize = 64;
pub(crate) const SYMBOL: usize = 24;
/// Real dynamic sections have about thirty entries.
const MAX_DYNAMIC: u64 = 64 << 10;
const MAX_SYMBOLS: u64 = 4 << 20;
const MAX_STRINGS: u64 = 128 << 20;
const MAX_BUCKETS: u64 = 1 << 20;
const MAX_SECTION_NAMES: u64 = 1 << 20;
/// What of the hash chains is read at once.
const CHAIN: u64 = 4096;

const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_STRSZ: u64 = 10;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
const SHT_SYMTAB: u32 = 2;

/// A table of symbols and its strings, in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) symbols: Range<u64>,
    pub(crate) strings: Range<u64>,
}

impl Table {
    /// None where a part has no place in a file, an error where it is too large.
    fn new(symbols_at: u64, count: u64, strings_at: u64, strings: u64) -> Result<Self, ElfError> {
        if count > MAX_SYMBOLS || strings > MAX_STRINGS {
            return Err(ElfError::Damaged("a table of symbols is larger than any"));
        }
        let symbols = symbols_at.checked_add(count * SYMBOL as u64).map(|end| symbols_at..end);
        let strings = strings_at.checked_add(strings).map(|end| strings_at..end);
        let (Some(symbols), Some(strings)) = (symbols, strings) else {
            return Err(ElfError::Damaged("a table of symbols reaches past the end of the file"));
        };
        Ok(Self { symbols, strings })
    }
}

/// Reads all of a part that must be there as a whole.
pub(crate) fn whole(
    file: &(impl FileBytes + ?Sized),
    budget: &Budget,
    what: &'static str,
    offset: u64,
    length: u64,
) -> Result<Vec<u8>, ElfError> {
    budget.memory(length)?;
    budget.scan(length)?;
    let mut bytes = vec![0; length as usize];
    file.read(offset, &mut bytes).map_err(|problem| ElfError::of_read(what, problem))?;
    Ok(bytes)
}

impl Elf {
    /// The table that the loader uses, by way of the dynamic section.
    pub(crate) fn dynamic_table(
        &self,
        file: &(impl FileBytes + ?Sized),
        budget: &Budget,
    ) -> Result<Table, ElfError> {
        let none = ElfError::None("dynamic section");
        let range = self.dynamic.clone().ok_or(none)?;
        let length = (range.end - range.start).min(MAX_DYNAMIC);
        let entries = whole(file, budget, "its dynamic section", range.start, length)?;
        let value = |tag| {
            let mut entries = entries.chunks_exact(DYNAMIC_ENTRY).take_while(|entry| u64_at(entry, 0) != 0);
            entries.find(|entry| u64_at(entry, 0) == tag).map(|entry| u64_at(entry, 8))
        };
        let place = |tag| value(tag).and_then(|address| self.file_offset(address));
        let none = || ElfError::None("dynamic symbols");
        let (symbols, strings) = (place(DT_SYMTAB).ok_or_else(none)?, place(DT_STRTAB).ok_or_else(none)?);
        let strings_length = value(DT_STRSZ).ok_or_else(none)?;
        // The dynamic section does not say how many symbols there are; the tables of their hashes do.
        let count = match (place(DT_GNU_HASH), place(DT_HASH)) {
            (Some(hash), _) => count_by_gnu_hash(file, budget, hash)?,
            (None, Some(hash)) => {
                u32_at(&whole(file, budget, "its table of hashes", hash.saturating_add(4), 4)?, 0).into()
            }
            (None, None) => return Err(none()),
        };
        Table::new(symbols, count, strings, strings_length)
    }

    /// The full table, by way of the section headers.
    pub(crate) fn full_table(
        &self,
        file: &(impl FileBytes + ?Sized),
        budget: &Budget,
    ) -> Result<Table, ElfError> {
        let headers = self.section_headers(file, budget)?;
        let mut headers_of = headers.chunks_exact(SECTION_HEADER);
        let table = headers_of.find(|header| u32_at(header, 4) == SHT_SYMTAB);
        let table = table.ok_or(ElfError::None("symbol table"))?;
        let strings = headers.chunks_exact(SECTION_HEADER).nth(u32_at(table, 40) as usize);
        let strings = strings.ok_or(ElfError::Damaged("its symbol table has no strings"))?;
        let count = u64_at(table, 32) / SYMBOL as u64;
        Table::new(u64_at(table, 24), count, u64_at(strings, 24), u64_at(strings, 32))
    }

    /// Where a section of that name is in the file.
    pub(crate) fn section(
        &self,
        file: &(impl FileBytes + ?Sized),
        budget: &Budget,
        name: &'static str,
    ) -> Result<Range<u64>, ElfError> {
        let headers = self.section_headers(file, budget)?;
        let names = headers.chunks_exact(SECTION_HEADER).nth(self.sections.names.into());
        let names = names.ok_or(ElfError::None("names of sections"))?;
        let length = u64_at(names, 32).min(MAX_SECTION_NAMES);
        let names = Sparse::read(file, budget, "the names of its sections", u64_at(names, 24), length)?;
        let is_named = |header: &&[u8]| {
            names.string(u32_at(header, 0) as usize, name.len() + 1) == Some(name.as_bytes())
        };
        let header = headers.chunks_exact(SECTION_HEADER).find(is_named).ok_or(ElfError::None(name))?;
        let offset = u64_at(header, 24);
        Ok(offset..offset.saturating_add(u64_at(header, 32)))
    }

    fn section_headers(
        &self,
        file: &(impl FileBytes + ?Sized),
        budget: &Budget,
    ) -> Result<Vec<u8>, ElfError> {
        if self.sections.count == 0 {
            return Err(ElfError::None("section headers"));
        }
        let length = u64::from(self.sections.count) * SECTION_HEADER as u64;
        whole(file, budget, "its section headers", self.sections.offset, length)
    }
}

/// How many symbols a GNU hash table covers: the last one is at the end of the chain that begins last.
fn count_by_gnu_hash(file: &(impl FileBytes + ?Sized), budget: &Budget, hash: u64) -> Result<u64, ElfError> {
    let what = "its table of hashes";
    let header = whole(file, budget, what, hash, 16)?;
    let [buckets, first, blooms] = [0, 4, 8].map(|at| u64::from(u32_at(&header, at)));
    if buckets > MAX_BUCKETS || blooms > MAX_BUCKETS {
        return Err(ElfError::Damaged("its table of hashes is larger than any"));
    }
    let buckets_at = hash.saturating_add(16 + 8 * blooms);
    let heads = whole(file, budget, what, buckets_at, 4 * buckets)?;
    let last = heads.chunks_exact(4).map(|head| u64::from(u32_at(head, 0))).max().unwrap_or(0);
    let Some(mut index) = last.checked_sub(first) else {
        // Every chain is empty: there is nothing but what is imported.
        return Ok(first);
    };
    let chains_at = buckets_at.saturating_add(4 * buckets);
    while index < MAX_SYMBOLS {
        // To the end of the page: the next one may be missing, and not be needed.
        let at = chains_at.saturating_add(4 * index);
        let length = (CHAIN - at % CHAIN).max(4).min(file.size().saturating_sub(at)) & !3;
        if length == 0 {
            break;
        }
        let chain = whole(file, budget, what, at, length)?;
        if let Some(end) = chain.chunks_exact(4).position(|link| u32_at(link, 0) & 1 == 1) {
            return Ok(first + index + end as u64 + 1);
        }
        index += length / 4;
    }
    Err(ElfError::Damaged("its table of hashes has no end"))
}
