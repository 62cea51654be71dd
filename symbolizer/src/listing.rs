//! Lists of symbols without sizes, as kernels and hypervisors give them: where does each symbol end?

use std::{collections::HashMap, ops::Range};

use crate::{
    ParseError, SymbolTable,
    preference::Preference,
    table::{Builder, Entry, MAX_SYMBOLS, ModuleIndex},
};

const PAGE: u64 = 4096;

/// One line of a list.
#[derive(Clone, Copy)]
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

/// Makes a table of a list in any order; one that is in the order of its addresses is never held as a whole.
///
/// A function reaches up to the next symbol of the same owner, as in the kernel itself. The last before something
/// else (data, another module, nothing) is unknown in length, and the gap behind it may be gigabytes: it is given
/// the rest of its page and one more, as `perf` does.
pub(crate) fn table<'a>(lines: impl Iterator<Item = Listed<'a>> + Clone) -> Result<SymbolTable, ParseError> {
    let (mut count, mut is_sorted, mut last) = (0, true, 0);
    let (mut has_text, mut shows_text) = (false, false);
    for line in lines.clone() {
        count += 1;
        if !line.is_no_place() {
            is_sorted &= line.address >= last;
            last = line.address;
        }
        has_text |= line.is_text();
        shows_text |= line.is_text() && line.address != 0;
    }
    if count > MAX_SYMBOLS {
        return Err(ParseError::TooLarge("more than 4 million symbols"));
    }
    if has_text && !shows_text {
        return Err(ParseError::HiddenAddresses);
    }
    let lines = lines.filter(|line| !line.is_no_place());
    if is_sorted {
        return of_sorted(lines);
    }
    let mut lines: Vec<Listed<'a>> = lines.collect();
    lines.sort_by_key(|line| line.address);
    of_sorted(lines.into_iter())
}

fn of_sorted<'a>(lines: impl Iterator<Item = Listed<'a>>) -> Result<SymbolTable, ParseError> {
    let mut functions = Functions::default();
    for line in lines {
        functions.take(line)?;
    }
    functions.finish()
}

/// The functions among lines that come in the order of their addresses.
#[derive(Default)]
struct Functions<'a> {
    builder: Builder,
    modules: Modules<'a>,
    extent: Option<Range<u64>>,
    /// The last one of the places before this, whose end is not known yet.
    open: Option<Listed<'a>>,
    /// Where the last lines are.
    place: u64,
    /// Which of them is shown.
    best: Option<Listed<'a>>,
    /// Whether one of them goes on with the code of `open`.
    continues: bool,
}

impl<'a> Functions<'a> {
    fn take(&mut self, line: Listed<'a>) -> Result<(), ParseError> {
        if line.address != self.place {
            self.leave_place()?;
            self.place = line.address;
        }
        self.continues |= self.open.is_some_and(|open| continues(&open, &line));
        let is_function = line.is_text() && !line.is_text_end();
        if is_function && self.best.is_none_or(|best| line.preference() < best.preference()) {
            self.best = Some(line);
        }
        Ok(())
    }

    fn leave_place(&mut self) -> Result<(), ParseError> {
        let end = if self.continues { Some(self.place) } else { None };
        self.close(end, self.place)?;
        (self.open, self.continues) = (self.best.take(), false);
        Ok(())
    }

    /// Ends the open function: at `end`, or where it is guessed to end, but not behind `limit`.
    fn close(&mut self, end: Option<u64>, limit: u64) -> Result<(), ParseError> {
        let Some(function) = self.open.take() else { return Ok(()) };
        let start = function.address;
        let guess = (start | (PAGE - 1)).saturating_add(1 + PAGE);
        let end = end.unwrap_or(guess.min(limit));
        let module = function.module.map_or(0, |name| self.modules.index(name));
        if module == 0 {
            self.extent.get_or_insert(start..end).end = end;
        }
        let (preference, name) = (function.preference(), function.name);
        self.builder.push(&Entry { start, end, preference, name, module })
    }

    fn finish(mut self) -> Result<SymbolTable, ParseError> {
        self.leave_place()?;
        self.close(None, u64::MAX)?;
        self.builder.finish(self.modules.names, self.extent.unwrap_or(0..0))
    }
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
