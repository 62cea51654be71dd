//! Lists of symbols without sizes, as kernels and hypervisors give them: where does each symbol end?

use std::collections::HashMap;

use crate::{
    ParseError, SymbolTable,
    preference::Preference,
    table::{Entry, MAX_SYMBOLS, ModuleIndex},
};

const PAGE: u64 = 4096;

/// One line of a list.
pub(crate) struct Listed<'a> {
    pub(crate) address: u64,
    /// The letter that `nm` would print.
    pub(crate) kind: u8,
    pub(crate) name: &'a str,
    pub(crate) module: Option<&'a str>,
}

impl Listed<'_> {
    fn is_text(&self) -> bool {
        matches!(self.kind, b't' | b'T' | b'w' | b'W')
    }

    /// Whether the line is a value that looks like an address, such as the offset of a per-CPU variable.
    fn is_no_place(&self) -> bool {
        matches!(self.kind, b'a' | b'A') || self.address == 0
    }

    fn preference(&self) -> Preference {
        Preference::of_listed(self.name, matches!(self.kind, b'w' | b'W'))
    }

    /// Whether it is where a run of the image's own code ends: a bound, not a function.
    fn is_text_end(&self) -> bool {
        self.module.is_none() && matches!(self.name, "_etext" | "_einittext")
    }
}

/// Makes a table of a list in any order.
///
/// A function reaches up to the next symbol of the same owner, as in the kernel itself. The last before something
/// else (data, another module, nothing) is unknown in length, and the gap behind it may be gigabytes: it is given
/// the rest of its page and one more, as `perf` does.
pub(crate) fn table(mut lines: Vec<Listed<'_>>) -> Result<SymbolTable, ParseError> {
    if lines.len() > MAX_SYMBOLS {
        return Err(ParseError::TooLarge("more than 4 million symbols"));
    }
    if lines.iter().any(Listed::is_text) && lines.iter().all(|line| !line.is_text() || line.address == 0) {
        return Err(ParseError::HiddenAddresses);
    }
    lines.retain(|line| !line.is_no_place());
    lines.sort_by_key(|line| line.address);

    let mut modules = Modules::default();
    let mut entries = Vec::with_capacity(lines.len());
    let mut places = lines.chunk_by(|a, b| a.address == b.address).peekable();
    while let Some(place) = places.next() {
        let functions = place.iter().filter(|line| line.is_text() && !line.is_text_end());
        let Some(best) = functions.min_by_key(|line| line.preference()) else { continue };
        let guess = (best.address | (PAGE - 1)).saturating_add(1 + PAGE);
        let end = match places.peek() {
            Some(next) if next.iter().any(|line| continues(best, line)) => next[0].address,
            Some(next) => next[0].address.min(guess),
            None => guess,
        };
        let module = best.module.map_or(0, |name| modules.index(name));
        let (start, preference, name) = (best.address, best.preference(), best.name);
        entries.push(Entry { start, end, preference, name, module });
    }

    let own = || entries.iter().filter(|entry| entry.module == 0);
    let start = own().map(|entry| entry.start).min().unwrap_or(0);
    let end = own().map(|entry| entry.end).max().unwrap_or(0);
    SymbolTable::build(entries, modules.names, start..end)
}

/// Whether the code that `line` begins goes on up to where `next` is.
fn continues(line: &Listed<'_>, next: &Listed<'_>) -> bool {
    next.module == line.module && (next.is_text() || next.is_text_end())
}

#[derive(Default)]
struct Modules<'a> {
    names: Vec<Box<str>>,
    indices: HashMap<&'a str, ModuleIndex>,
}

impl<'a> Modules<'a> {
    fn index(&mut self, name: &'a str) -> ModuleIndex {
        *self.indices.entry(name).or_insert_with(|| {
            self.names.push(name.into());
            self.names.len() as ModuleIndex
        })
    }
}
