//! The text of `/proc/kallsyms` and of `System.map`: a line is `ADDRESS TYPE NAME`, then perhaps `[MODULE]`.

use std::str;

use crate::{
    ParseError, SymbolTable,
    listing::{self, Listed},
    preference::Preference,
    table::{Entry, MAX_SYMBOLS},
};

/// What Debian writes into `/boot/System.map-*` instead of symbols.
const PLACEHOLDER: &str = "ffffffffffffffff B The real System.map is in";

impl SymbolTable {
    /// Reads `/proc/kallsyms` or a `System.map`. The two look alike; only the former knows modules.
    ///
    /// The addresses are taken as they are: those of a `System.map` fit a kernel that runs where it was linked, not
    /// one that was moved at boot (KASLR).
    pub fn from_kallsyms(text: &[u8]) -> Result<Self, ParseError> {
        if text.starts_with(PLACEHOLDER.as_bytes()) {
            return Err(ParseError::PlaceholderMap);
        }
        let text = str::from_utf8(text).map_err(|_| ParseError::ForeignFormat)?;
        let mut symbols = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim_ascii().is_empty() {
                continue;
            }
            match parse_line(line) {
                Some(symbol) => symbols.push(symbol),
                None if symbols.is_empty() => return Err(ParseError::ForeignFormat),
                None => return Err(ParseError::BadLine(number)),
            }
        }
        if symbols.is_empty() {
            return Err(ParseError::ForeignFormat);
        }
        listing::table(symbols.into_iter())
    }
}

impl SymbolTable {
    /// Reads what a program writes of the code that it generates (`/tmp/perf-PID.map`, the kernel's
    /// tools/perf/Documentation/jit-interface.txt): a line is `START SIZE NAME`, both numbers hexadecimal. Where
    /// code was made twice, the later line holds; lines of another form are left out.
    pub fn from_perf_map(text: &[u8]) -> Result<Self, ParseError> {
        let text = String::from_utf8_lossy(text);
        let entries: Vec<Entry<'_>> =
            text.lines().rev().filter_map(perf_map_line).take(MAX_SYMBOLS).collect();
        let start = entries.iter().map(|entry| entry.start).min().unwrap_or(0);
        let end = entries.iter().map(|entry| entry.end).max().unwrap_or(0);
        Self::build(entries, Vec::new(), start..end)
    }
}

fn perf_map_line(line: &str) -> Option<Entry<'_>> {
    let (start, rest) = line.split_once(' ')?;
    let (size, name) = rest.split_once(' ')?;
    let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let start = hex(start)?;
    // None is better than another: only the order of the lines tells.
    let preference = Preference::of_listed("", false);
    Some(Entry { start, end: start.saturating_add(hex(size)?), preference, name: name.trim(), module: 0 })
}

fn parse_line(line: &str) -> Option<Listed<'_>> {
    let (address, rest) = line.split_once(' ')?;
    // `from_str_radix` would take a sign.
    if !address.starts_with(|first: char| first.is_ascii_hexdigit()) {
        return None;
    }
    let address = u64::from_str_radix(address, 16).ok()?;
    let (kind, rest) = rest.split_once(' ')?;
    let &[kind] = kind.as_bytes() else { return None };
    // Copying from a terminal makes spaces of the tab before the module.
    let rest = rest.trim_ascii_end();
    let (name, module) = match rest.bytes().position(|byte| byte.is_ascii_whitespace()) {
        Some(end) => {
            (&rest[..end], Some(rest[end..].trim_ascii_start().strip_prefix('[')?.strip_suffix(']')?))
        }
        None => (rest, None),
    };
    (!name.is_empty()).then_some(Listed { address, kind, name, module })
}
