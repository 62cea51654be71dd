//! Writes a table of symbols as `scripts/kallsyms.c` of the kernel does.

/// How the tables are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Linux 4.19: markers and number are words of 8 bytes.
    WideWords,
    /// 4.20 to 6.0.
    OffsetsFirst,
    /// 6.1: long names have two bytes of length.
    LongNames,
    /// 6.2 and 6.3: another table stands between markers and tokens.
    Sequences,
    /// 6.4 to 6.14: the offsets stand last.
    OffsetsLast,
    /// 6.15 and later: no symbol is absolute.
    NothingAbsolute,
}

impl Layout {
    pub(crate) const ALL: [Self; 6] = [
        Self::WideWords,
        Self::OffsetsFirst,
        Self::LongNames,
        Self::Sequences,
        Self::OffsetsLast,
        Self::NothingAbsolute,
    ];

    fn has_long_names(self) -> bool {
        !matches!(self, Self::WideWords | Self::OffsetsFirst)
    }

    fn has_offsets_last(self) -> bool {
        matches!(self, Self::OffsetsLast | Self::NothingAbsolute)
    }
}

/// A symbol: address, letter, name.
pub(crate) type Entry = (u64, u8, String);

/// Tokens of more than one letter.
const PAIRS: [(u8, &str); 4] = [(0x80, "__"), (0x81, "sys_"), (0x82, "function_"), (0xff, "do_")];

/// Puts the tables together; the image begins where `at` counts from.
pub(crate) fn tables(symbols: &[Entry], relative_base: u64, layout: Layout) -> Vec<u8> {
    let mut out = Vec::new();
    let offsets = |out: &mut Vec<u8>| {
        align(out);
        for &(address, ..) in symbols {
            let offset = match layout {
                Layout::NothingAbsolute => address.wrapping_sub(relative_base) as u32,
                // Per-CPU variables.
                _ if address < 1 << 31 => address as u32,
                _ => (relative_base.wrapping_sub(1).wrapping_sub(address) as i64) as u32,
            };
            out.extend(offset.to_le_bytes());
        }
        align(out);
        out.extend(relative_base.to_le_bytes());
    };
    if !layout.has_offsets_last() {
        offsets(&mut out);
    }
    let word = |out: &mut Vec<u8>, value: usize| match layout {
        Layout::WideWords => out.extend((value as u64).to_le_bytes()),
        _ => out.extend((value as u32).to_le_bytes()),
    };
    align(&mut out);
    word(&mut out, symbols.len());
    align(&mut out);
    let names = out.len();
    let mut markers = Vec::new();
    for (index, (_, kind, name)) in symbols.iter().enumerate() {
        if index % 256 == 0 {
            markers.push(out.len() - names);
        }
        let name = compress(&format!("{}{name}", char::from(*kind)));
        if layout.has_long_names() && name.len() > 127 {
            out.push(name.len() as u8 | 0x80);
            out.push((name.len() >> 7) as u8);
        } else {
            out.push(name.len() as u8);
        }
        out.extend(name);
    }
    align(&mut out);
    markers.into_iter().for_each(|marker| word(&mut out, marker));
    align(&mut out);
    if layout == Layout::Sequences {
        (0..symbols.len()).for_each(|index| out.extend(&(index as u32).to_be_bytes()[1..]));
        align(&mut out);
    }
    let mut index = Vec::new();
    let start = out.len();
    for byte in 0..=255 {
        index.extend(((out.len() - start) as u16).to_le_bytes());
        match PAIRS.iter().find(|(token, _)| *token == byte) {
            Some((_, text)) => out.extend(text.bytes()),
            None if byte.is_ascii_graphic() => out.push(byte),
            // Not used, but never empty in a real table.
            None => out.extend(format!("unused{byte}").bytes()),
        }
        out.push(0);
    }
    align(&mut out);
    out.extend(index);
    if layout.has_offsets_last() {
        offsets(&mut out);
    }
    align(&mut out);
    out
}

fn align(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}

fn compress(name: &str) -> Vec<u8> {
    let mut compressed = Vec::new();
    let mut rest = name;
    while let Some(first) = rest.bytes().next() {
        let token = PAIRS.iter().find(|(_, text)| rest.starts_with(text));
        let (token, length) = token.map_or((first, 1), |(token, text)| (*token, text.len()));
        compressed.push(token);
        rest = &rest[length..];
    }
    compressed
}
