//! Relocatable objects of our own making, embedded in this program: sections and symbols of ELF for 64 bits.

/// In an `Elf64_Sym`.
const SYMBOL_BYTES: usize = 24;
pub(crate) const SYMBOL_SECTION: usize = 6;
pub(crate) const SYMBOL_VALUE: usize = 8;

/// Our own object: well-formed, because we built it.
pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
    pub(crate) sections: Vec<Section<'a>>,
}

pub(crate) struct Section<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: u32,
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    link: usize,
}

pub(crate) struct Symbol<'a> {
    /// Where its entry stands in the file.
    pub(crate) entry: usize,
    pub(crate) name: &'a str,
    pub(crate) section: u16,
    pub(crate) value: u64,
}

impl<'a> Elf<'a> {
    /// Panics where an object that was not built by us would be malformed.
    pub(crate) fn parse(bytes: &'a [u8]) -> Self {
        let headers = word(bytes, 0x28) as usize;
        let count = half(bytes, 0x3c);
        let header = |number: u16| &bytes[headers + 64 * usize::from(number)..][..64];
        let names = word(header(half(bytes, 0x3e)), 0x18) as usize;
        let section = |number| {
            let header = header(number);
            Section {
                name: text(bytes, names + word(header, 0) as u32 as usize),
                kind: (word(header, 0) >> 32) as u32,
                offset: word(header, 0x18) as usize,
                bytes: word(header, 0x20) as usize,
                link: word(header, 0x28) as u32 as usize,
            }
        };
        Self { bytes, sections: (0..count).map(section).collect() }
    }

    pub(crate) fn symbols(&self) -> impl Iterator<Item = Symbol<'a>> {
        const SYMTAB: u32 = 2;
        let table = self.sections.iter().find(|section| section.kind == SYMTAB).expect("a symbol table");
        let names = self.sections[table.link].offset;
        let bytes = self.bytes;
        (table.offset..table.offset + table.bytes).step_by(SYMBOL_BYTES).map(move |entry| Symbol {
            entry,
            name: text(bytes, names + word(bytes, entry) as u32 as usize),
            section: half(bytes, entry + SYMBOL_SECTION),
            value: word(bytes, entry + SYMBOL_VALUE),
        })
    }
}

pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn text(bytes: &[u8], at: usize) -> &str {
    let end = bytes[at..].iter().position(|&byte| byte == 0).expect("a terminator");
    std::str::from_utf8(&bytes[at..at + end]).expect("our own names")
}
