//! The symbols of one image, as compact as look-ups allow.

use std::{fmt, ops::Range};

use crate::{ParseError, preference::Preference};

/// A kernel has 150 thousand, the largest programs some millions. Keeps indices in 32 bits and hostile files small.
pub(crate) const MAX_SYMBOLS: usize = 4 << 20;
/// Bounds the text that many symbols can make of one long string that they share.
const MAX_NAME_TEXT: usize = 256 << 20;
/// Longer names are cut: nobody could read them.
pub(crate) const MAX_NAME: usize = 4096;

/// The owner of addresses that no symbol covers.
const NOBODY: u32 = u32::MAX;

/// The function symbols of one image, sorted by address.
///
/// Where symbols share an address the best name is kept (a kernel's own choice for kernels; global before local for
/// ELF files). Where a sized symbol lies inside another, the inner one owns its bytes.
#[derive(Clone)]
pub struct SymbolTable {
    /// The addresses at which code changes owners, ascending.
    boundaries: Vec<u64>,
    /// For each boundary, the index of the symbol that owns the code from there to the next, or [`NOBODY`].
    owners: Vec<u32>,
    records: Vec<Record>,
    /// All names in the order of `records`, without separators.
    names: String,
    modules: Vec<Box<str>>,
    extent: Range<u64>,
}

#[derive(Clone)]
struct Record {
    start: u64,
    /// Where its name begins in [`SymbolTable::names`]; it ends where the next record's begins.
    name: u32,
    module: ModuleIndex,
}

/// One symbol of a [`SymbolTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Its name as the table spells it, not demangled: untrusted text.
    pub name: &'a str,
    /// The loadable module that it belongs to; none for the image itself.
    pub module: Option<&'a str>,
    /// Its first address.
    pub start: u64,
}

/// 0 for the image itself, else one more than the index of one of its loadable modules.
pub(crate) type ModuleIndex = u32;

/// A symbol on its way into a table. It covers `start..end`.
pub(crate) struct Entry<'a> {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) preference: Preference,
    pub(crate) name: &'a str,
    pub(crate) module: ModuleIndex,
}

impl SymbolTable {
    /// Sorts `entries`, which may come in any order, overlap and share addresses.
    ///
    /// `extent` is where the image itself lies, its loadable modules left out.
    pub(crate) fn build(
        mut entries: Vec<Entry<'_>>,
        modules: Vec<Box<str>>,
        extent: Range<u64>,
    ) -> Result<Self, ParseError> {
        entries.retain(|entry| entry.start < entry.end);
        entries.sort_by_key(|entry| (entry.start, entry.preference));
        entries.dedup_by_key(|entry| entry.start);
        let mut builder = Builder::default();
        for entry in &entries {
            builder.push(entry)?;
        }
        builder.finish(modules, extent)
    }

    /// The symbol that covers `address`.
    pub fn lookup(&self, address: u64) -> Option<Symbol<'_>> {
        let above = self.boundaries.partition_point(|&boundary| boundary <= address);
        let owner = *self.owners.get(above.checked_sub(1)?)? as usize;
        let record = self.records.get(owner)?;
        let name_end = self.records.get(owner + 1).map_or(self.names.len(), |next| next.name as usize);
        let module = (record.module as usize).checked_sub(1).map(|index| &*self.modules[index]);
        Some(Symbol { name: &self.names[record.name as usize..name_end], module, start: record.start })
    }

    /// Where the image itself lies, its loadable modules left out.
    pub fn extent(&self) -> Range<u64> {
        self.extent.clone()
    }

    /// How many symbols can be found, at least one.
    #[expect(
        clippy::len_without_is_empty,
        reason = "no table is empty: an image without symbols is an error"
    )]
    pub fn len(&self) -> usize {
        self.records.len()
    }
}

impl fmt::Debug for SymbolTable {
    /// A summary: the symbols are too many to print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SymbolTable({} symbols, {:#x?})", self.len(), self.extent)
    }
}

/// A table of symbols that come in the order of their addresses, no two at the same.
#[derive(Default)]
pub(crate) struct Builder {
    records: Vec<Record>,
    names: String,
    territory: Territory,
}

impl Builder {
    /// Takes one. One that covers nothing can't be found, and is left out.
    pub(crate) fn push(&mut self, entry: &Entry<'_>) -> Result<(), ParseError> {
        if entry.start >= entry.end {
            return Ok(());
        }
        if self.records.len() == MAX_SYMBOLS {
            return Err(ParseError::TooLarge("more than 4 million symbols"));
        }
        let index = self.records.len() as u32;
        self.records.push(Record { start: entry.start, name: self.names.len() as u32, module: entry.module });
        self.names.push_str(&entry.name[..entry.name.floor_char_boundary(MAX_NAME)]);
        if self.names.len() > MAX_NAME_TEXT {
            return Err(ParseError::TooLarge("more than 256 MiB of names"));
        }
        self.territory.open(entry.start, entry.end, index);
        Ok(())
    }

    pub(crate) fn finish(
        self,
        modules: Vec<Box<str>>,
        extent: Range<u64>,
    ) -> Result<SymbolTable, ParseError> {
        let Self { mut records, mut names, territory } = self;
        if records.is_empty() {
            return Err(ParseError::NoSymbols);
        }
        records.shrink_to_fit();
        names.shrink_to_fit();
        let (boundaries, owners) = territory.finish();
        Ok(SymbolTable { boundaries, owners, records, names, modules, extent })
    }
}

/// Divides the address space among symbols that are announced in the order of their addresses.
#[derive(Default)]
struct Territory {
    boundaries: Vec<u64>,
    owners: Vec<u32>,
    /// The symbols that contain the current address, the innermost last, each with its end.
    open: Vec<(u64, u32)>,
}

impl Territory {
    fn open(&mut self, start: u64, end: u64, symbol: u32) {
        self.close_up_to(start);
        self.give(start, symbol);
        self.open.push((end, symbol));
    }

    /// Gives what lies behind each symbol that ends by `limit` back to the one around it.
    fn close_up_to(&mut self, limit: u64) {
        while let Some(&(end, _)) = self.open.last()
            && end <= limit
        {
            while self.open.last().is_some_and(|&(outer_end, _)| outer_end <= end) {
                self.open.pop();
            }
            self.give(end, self.open.last().map_or(NOBODY, |&(_, symbol)| symbol));
        }
    }

    fn give(&mut self, from: u64, owner: u32) {
        if self.boundaries.last() == Some(&from) {
            self.boundaries.pop();
            self.owners.pop();
        }
        self.boundaries.push(from);
        self.owners.push(owner);
    }

    fn finish(mut self) -> (Vec<u64>, Vec<u32>) {
        self.close_up_to(u64::MAX);
        self.boundaries.shrink_to_fit();
        self.owners.shrink_to_fit();
        (self.boundaries, self.owners)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(ranges: &[(u64, u64, &str)]) -> SymbolTable {
        let entry = |&(start, end, name)| {
            let preference = Preference::of_listed(name, false);
            Entry { start, end, preference, name, module: 0 }
        };
        SymbolTable::build(ranges.iter().map(entry).collect(), Vec::new(), 0..0).unwrap()
    }

    fn name_at(table: &SymbolTable, address: u64) -> Option<&str> {
        table.lookup(address).map(|symbol| symbol.name)
    }

    #[test]
    fn a_symbol_ends_where_it_says() {
        let table = table(&[(0x20, 0x28, "later"), (0x10, 0x18, "first"), (0x18, 0x20, "second")]);
        let names: Vec<_> =
            [0xf, 0x10, 0x17, 0x18, 0x1f, 0x20, 0x27, 0x28, 0].map(|a| name_at(&table, a)).into();
        let (first, second, later) = (Some("first"), Some("second"), Some("later"));
        assert_eq!(names, [None, first, first, second, second, later, later, None, None]);
    }

    #[test]
    fn an_inner_symbol_gives_back_what_follows_it() {
        let table = table(&[(0x10, 0x30, "write"), (0x18, 0x20, "write_nocancel")]);
        assert_eq!(name_at(&table, 0x17), Some("write"));
        assert_eq!(name_at(&table, 0x1f), Some("write_nocancel"));
        assert_eq!(table.lookup(0x2f), Some(Symbol { name: "write", module: None, start: 0x10 }));
        assert_eq!(name_at(&table, 0x30), None);
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        let name = format!("{}é", "x".repeat(MAX_NAME - 1));
        let table = table(&[(1, 2, &name)]);
        assert_eq!(name_at(&table, 1).unwrap().len(), MAX_NAME - 1);
    }

    #[test]
    fn the_last_address_belongs_to_nobody_without_overflow() {
        let table = table(&[(u64::MAX - 1, u64::MAX, "edge")]);
        assert_eq!(name_at(&table, u64::MAX - 1), Some("edge"));
        assert_eq!(name_at(&table, u64::MAX), None);
    }

    proptest! {
        /// The sweep agrees with asking every symbol: the one that starts last among those that cover the address.
        #[test]
        fn territories_are_those_of_a_naive_search(
            ranges in prop::collection::btree_map(0..60_u64, 1..30_u64, 1..20),
        ) {
            let names: Vec<String> = ranges.keys().map(u64::to_string).collect();
            let entries: Vec<_> =
                ranges.iter().zip(&names).map(|((&start, size), name)| (start, start + size, &**name)).collect();
            let table = table(&entries);
            for address in 0..100 {
                let expected = entries.iter().rfind(|(start, end, _)| (*start..*end).contains(&address));
                prop_assert_eq!(name_at(&table, address), expected.map(|entry| entry.2));
            }
        }
    }
}
