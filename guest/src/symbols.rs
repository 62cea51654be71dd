//! The list of a kernel's or a module's symbols.

use std::collections::{HashMap, HashSet};

use profile::GuestVirtual;

use crate::names::Named;

/// The symbols of one owner, in the order of its own table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SymbolList {
    rows: Named<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    address: u64,
    kind: u8,
}

/// A symbol of a [`SymbolList`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Where it is.
    pub address: GuestVirtual,
    /// The letter that `nm` would print, as the guest's own `/proc/kallsyms` has it; for a module's symbols that file
    /// has the capital letter where the symbol is exported, and this has the table's own.
    pub kind: char,
    /// Its name: untrusted text.
    pub name: &'a str,
}

impl SymbolList {
    pub(crate) fn with_capacity(symbols: usize, text: usize) -> Self {
        Self { rows: Named::with_capacity(symbols, text) }
    }

    /// What a list takes in memory.
    pub(crate) fn bytes(symbols: usize, text: usize) -> u64 {
        Named::<Row>::bytes(symbols, text)
    }

    pub(crate) fn push(&mut self, address: u64, kind: u8, name: &str) {
        self.rows.push(Row { address, kind }, name);
    }

    /// Adds a symbol whose address is not known yet.
    pub(crate) fn push_parts<'a>(&mut self, kind: u8, name: impl Iterator<Item = &'a str>) {
        self.rows.push_parts(Row { address: 0, kind }, name);
    }

    /// How long all names are together.
    pub(crate) fn text_len(&self) -> usize {
        self.rows.text_len()
    }

    /// Gives each symbol its address.
    pub(crate) fn set_addresses(&mut self, addresses: impl Iterator<Item = u64>) {
        self.rows.rows_mut().zip(addresses).for_each(|(row, address)| row.address = address);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Symbol<'_>> + Clone {
        let symbol = |(row, name): (Row, _)| Symbol {
            address: GuestVirtual(row.address),
            kind: char::from(row.kind),
            name,
        };
        self.rows.iter().map(symbol)
    }

    /// The addresses of the symbols that have these names, found in one pass; of equal names the first counts.
    pub fn addresses<'a>(&self, names: &[&'a str]) -> HashMap<&'a str, GuestVirtual> {
        let mut found = HashMap::new();
        // Few symbols are as long as one of the names, and of those few begin alike.
        let lengths: HashSet<usize> = names.iter().map(|name| name.len()).collect();
        let longest = names.iter().map(|name| name.len()).max().unwrap_or(0);
        let is_length: Vec<bool> = (0..=longest).map(|length| lengths.contains(&length)).collect();
        for symbol in self.iter().filter(|symbol| is_length.get(symbol.name.len()) == Some(&true)) {
            if let Some(&name) = names.iter().find(|&&name| name == symbol.name) {
                found.entry(name).or_insert(symbol.address);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_come_back_as_they_were_put_in() {
        let mut list = SymbolList::with_capacity(3, 16);
        list.push(3, b't', "three");
        list.push(1, b'D', "");
        list.push(2, b'T', "three");
        let rows: Vec<_> = list.iter().map(|symbol| (symbol.address.0, symbol.kind, symbol.name)).collect();
        assert_eq!(rows, [(3, 't', "three"), (1, 'D', ""), (2, 'T', "three")]);
        assert_eq!(list.addresses(&["three", "four"]), HashMap::from([("three", GuestVirtual(3))]));
    }
}
